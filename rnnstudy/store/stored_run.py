"""A run in a store: its description, its state, and the address of its files.

A run is identified by its key; what is needed to decide about it later (its specification, its probes, the hashes of
its code, its outcome) is stored in tags named `rnnstudy.…`.
"""

import dataclasses
import json
import os
import re
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from rnnstudy.errors import shown
from rnnstudy.run import Run
from rnnstudy.spec import canonical
from rnnstudy.store import foreign
from rnnstudy.store.errors import DamagedFile, DiskFull, StoreError, disk_is_full
from rnnstudy.store.source_hashes import changed_classes
from rnnstudy.store.tracker import Failures, KnownRuns
from rnnstudy.training.records import RunState

COMPLETE = ("finished", "diverged")

FORMER_KEY = "rnnstudy.former_key"
"""The tag with the key that a run had before what a key depends on was changed."""

ALSO_IN = "rnnstudy.also_in"
"""The tag with the other experiments that a run belongs to, by the stems of their files, with / between them."""
OUTCOMES = "|".join(state for state in get_args(RunState) if state not in ("absent", "damaged"))


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A run in a store.

    Attributes:
        key, name, experiment: which run it is.
        state: whether it is running, interrupted, or how it ended; `damaged` where its tags cannot be read.
        tags: all tags, including those of MLflow.
        identity: MLflow's run id, or the run's folder.
        artifacts: MLflow's address of its artifacts; empty for a folder.
    """

    key: str
    name: str
    experiment: str
    state: RunState
    tags: Mapping[str, str]
    identity: str
    artifacts: str = ""

    @property
    def damage(self) -> str:
        """One line that names the run and the tag that is damaged; empty for a sound run."""
        wrong = damage_of(self.tags)
        again = "sweep again, or `rnnstudy forget` it"
        return (
            f"{shown(self.name)} ({shown(self.key)[1:-1]}) is damaged in the store: {wrong}; {again}" if wrong else ""
        )

    @property
    def probes(self) -> list[Any]:
        """The probes that were read, in the form of `spec.canonical`."""
        return json.loads(self.tags.get("rnnstudy.probes", "[]"))

    def belongs_to(self, experiment: str | None) -> bool:
        """Whether it is a run of this experiment, whichever one trained it; of any when None."""
        return experiment in (None, self.experiment, *self.tags.get(ALSO_IN, "").split("/"))

    @property
    def own_tags(self) -> dict[str, str]:
        """The tags that say which run it is, as they stand in the store."""
        return {name: self.tags[name] for name in ("rnnstudy.key", "rnnstudy.spec")}

    @property
    def sources(self) -> dict[str, str]:
        """Qualified class name to code hash; in runs stored before 2026-12, to the hash of the whole text."""
        return json.loads(self.tags.get("rnnstudy.code") or self.tags.get("rnnstudy.source", "{}"))

    def serves(self, run: Run) -> bool:
        """Whether the probes that `run` asks for are among those that were read."""
        return all(probe in self.probes for probe in cast(list[Any], canonical(run.probes)))

    def warning(self, run: Run) -> str:
        """One line when the code of `run`'s task, cell or probes has changed since; otherwise empty."""
        changed = changed_classes(run, self.sources)
        if not changed:
            return ""
        return f"{self.name} ({self.key}) was made with other code of {', '.join(changed)}; --rerun trains it again"


def state_of(tags: Mapping[str, str]) -> RunState:
    return "damaged" if damage_of(tags) else cast(RunState, tags["rnnstudy.outcome"])


def damage_of(tags: Mapping[str, str]) -> str:
    """What is wrong with the tags by which a run is known; empty where nothing is. Anybody can edit a store."""
    known = {"key": r"[0-9a-f]{12}", "outcome": OUTCOMES, "attempts": r"[0-9]{1,6}"}
    for name, form in known.items():
        value = tags.get(f"rnnstudy.{name}", "0" if name == "attempts" else None)
        if value is None or not re.fullmatch(form, value):
            return f"its tag rnnstudy.{name} is {'gone' if value is None else shown(value)}"
    try:
        foreign.describing_tags(tags, "its tag")
    except DamagedFile as error:
        return str(error)
    return ""


def newest_complete(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """One run for each key, of runs given newest first: the newest complete one, else the newest."""
    chosen: dict[str, StoredRun] = {}
    for run in runs:
        present = chosen.get(run.key)
        if present is None or (run.state in COMPLETE and present.state not in COMPLETE):
            chosen[run.key] = run
    return chosen


def attempts_of(tags: Mapping[str, str]) -> int:
    """How often a run has failed."""
    return int(tags.get("rnnstudy.attempts", "0"))


class RunIndex(KnownRuns):
    """Knows the state of every run in a store or in a folder of files."""

    @abstractmethod
    def runs(self) -> list[StoredRun]:
        """All runs of this package, newest first."""

    def runs_with(self, keys: Collection[str]) -> list[StoredRun]:
        """The runs with one of these keys, newest first."""
        return [run for run in self.runs() if run.key in keys]

    @abstractmethod
    def forget(self, keys: Iterable[str]) -> int:
        """Delete these runs, so that they are trained again; returns how many there were."""

    @abstractmethod
    def mark_interrupted(self) -> int:
        """Mark as interrupted the runs that a dead process left as running; returns how many there were."""

    def finished(self, keys: Collection[str] | None = None) -> dict[str, StoredRun]:
        """The complete runs by key: finished or diverged, and not deleted."""
        return {key: run for key, run in self._newest(keys).items() if run.state in COMPLETE}

    def failures(self, keys: Collection[str] | None = None) -> dict[str, Failures]:
        """The runs that have failed and have not been completed since, by key."""
        return {
            key: Failures(attempts_of(run.tags), run.tags.get("rnnstudy.reason", ""))
            for key, run in self._newest(keys).items()
            if run.state not in (*COMPLETE, "damaged") and attempts_of(run.tags)
        }

    def damaged(self, keys: Collection[str] | None = None) -> dict[str, str]:
        """The runs whose tags are damaged, each with a line that names it. They count as runs that have not ended."""
        return {key: run.damage for key, run in self._newest(keys).items() if run.state == "damaged"}

    def _newest(self, keys: Collection[str] | None) -> dict[str, StoredRun]:
        return newest_complete(self.runs() if keys is None else self.runs_with(keys))

    def states(self, keys: Iterable[str]) -> dict[str, RunState]:
        """The state of each run; `absent` for a run that is not there."""
        keys = list(keys)
        known = self._newest(keys)
        return {key: known[key].state if key in known else "absent" for key in keys}


def require_folder(folder: Path, remedy: str = "make it a folder that you may write, or set RNNSTUDY_HOME") -> None:
    """Make the folder of a store; raises `StoreError`, with the `remedy`, when that is impossible or it cannot be
    written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull.caused_by(error, folder) from None
        reason = error.strerror or error
        raise StoreError(f"{folder} cannot hold runs ({reason}); {remedy}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{folder} cannot be written; {remedy}")
