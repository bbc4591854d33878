"""What a store keeps about a run: its description, how it stands, and the files of its arrays.

A run is known by its key; what is needed to decide about it later (its specification, its probes, the hash of its
source, its outcome) is kept in tags named `rnnstudy.…`.
"""

import dataclasses
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from rnnstudy.arrays import READINGS, WEIGHTS, write_readings, write_weights
from rnnstudy.decimation import MOST_POINTS, Point, points_of, summary_of, summary_points
from rnnstudy.descriptions import NOTE, data_set, note, papers
from rnnstudy.machine import Sample, points_of_sample, samples_in
from rnnstudy.processes import Owner
from rnnstudy.records import Outcome, Record, State
from rnnstudy.run import Run
from rnnstudy.spec import SpecError, canonical, flatten, qualified_name, source_hash
from rnnstudy.tracker import Failures
from rnnstudy.versions import CHANGED, commit, repository

COMPLETE = ("finished", "diverged")


def _new_sweep() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@dataclasses.dataclass(frozen=True)
class SweepInfo:
    """What the runs that are launched together have in common.

    Attributes:
        experiment: the MLflow experiment: the stem of the experiment file.
        experiment_file: its path, as the command names it; empty when there is none.
        command: what was typed.
        engine: the engine that trains, until a run's outcome says which it was.
        sweep: identifies this launch.
        hypothesis: what the experiment asks, in its own words.
    """

    experiment: str
    experiment_file: str = ""
    command: str = ""
    engine: str = ""
    sweep: str = dataclasses.field(default_factory=_new_sweep)
    hypothesis: str = ""

    def tags(self) -> dict[str, str]:
        """What each run of the sweep is tagged with: the sweep, this process, and the commit when there is one.

        Where files differ from the commit, `rnnstudy.uncommitted` says so; MLflow's tag is the commit alone.
        """
        checked_out, changed = _checked_out(self.experiment_file)
        tags = {
            "rnnstudy.sweep": self.sweep,
            "rnnstudy.engine": self.engine,
            "rnnstudy.command": self.command,
            **process_tags(),
            "mlflow.source.name": self.experiment_file or self.experiment,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": checked_out,
            "rnnstudy.uncommitted": "true" if changed else "",
        }
        return {name: value for name, value in tags.items() if value}


def process_tags() -> dict[str, str]:
    """Which process writes, so that a later one can tell whether it still lives."""
    return Owner.this().tags()


def _checked_out(file: str) -> tuple[str, bool]:
    """The commit of the repository that `file` (or else the working directory) lies in, empty outside of one, and
    whether files differ from it.
    """
    folder = repository(Path(file).absolute().parent if file else Path.cwd())
    found = commit(folder) if folder else None
    return (found or "").removesuffix(CHANGED), (found or "").endswith(CHANGED)


@dataclasses.dataclass(frozen=True)
class Description:
    """What a store is told about a run when it begins. Plain values, so that it can wait in a file.

    Attributes:
        key, name, experiment: which run it is.
        steps: the most updates it makes.
        parameters: short names and dotted paths of the specification, without the probes (they may differ between two
            parts of an interrupted run, and MLflow's parameters cannot be changed; a tag holds them).
        tags: see the module.
        papers: file name to text, see `descriptions.papers`.
        data_set: what its sequences are, see `descriptions.data_set`.
        hypothesis: what the experiment asks, in its own words.
    """

    key: str
    name: str
    experiment: str
    steps: int
    parameters: dict[str, Any]
    tags: dict[str, str]
    papers: dict[str, str] = dataclasses.field(default_factory=dict)
    data_set: dict[str, Any] = dataclasses.field(default_factory=dict)
    hypothesis: str = ""


def describe(run: Run, name: str, experiment: str, sweep_tags: Mapping[str, str], hypothesis: str = "") -> Description:
    flat = {path: value for path, value in flatten(run).items() if path.split(".")[0] != "probes"}
    return Description(
        key=run.key,
        name=name,
        experiment=experiment,
        steps=run.training.steps,
        parameters={**flat, **run.short_parameters},
        tags={
            **sweep_tags,
            "rnnstudy.key": run.key,
            "rnnstudy.outcome": "running",
            "rnnstudy.probes": json.dumps(canonical(run.probes)),
            "rnnstudy.spec": json.dumps(canonical(run)),
            "rnnstudy.source": json.dumps(_sources(run)),
            NOTE: note(run, repeating(run.key, sweep_tags.get("rnnstudy.command", ""))),
        },
        papers=papers(run),
        data_set=data_set(run),
        hypothesis=hypothesis,
    )


def repeating(key: str, command: str) -> str:
    """The command that repeats one run of the sweep that `command` launched; empty where that is not known."""
    return f"{command} --only {key} --rerun" if command else ""


def _sources(run: Run) -> dict[str, str]:
    """Qualified name to source hash of the task, the cell and the probes; classes typed at a prompt have no source."""
    hashes = {}
    for part in (run.task, run.cell, *run.probes):
        try:
            hashes[qualified_name(type(part))] = source_hash(type(part))
        except (OSError, TypeError):
            continue
    return hashes


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A run as it stands in a store.

    Attributes:
        key, name, experiment: which run it is.
        state: how it stands.
        tags: all of them, those of MLflow among them.
        identity: MLflow's run id, or the run's folder.
        artifacts: MLflow's address of its artifacts; empty for a folder.
    """

    key: str
    name: str
    experiment: str
    state: State
    tags: Mapping[str, str]
    identity: str
    artifacts: str = ""

    @property
    def probes(self) -> list[Any]:
        """The probes that were read, as `spec.canonical` describes them."""
        return json.loads(self.tags.get("rnnstudy.probes", "[]"))

    @property
    def sources(self) -> dict[str, str]:
        """Qualified class name to source hash."""
        return json.loads(self.tags.get("rnnstudy.source", "{}"))

    def serves(self, run: Run) -> bool:
        """Whether the probes that `run` asks for are among those that were read."""
        return all(probe in self.probes for probe in cast(list[Any], canonical(run.probes)))

    def warning(self, run: Run) -> str:
        """One line when the source of `run`'s task, cell or probes has changed since; otherwise an empty text."""
        then = self.sources
        changed = [name for name, now in _sources(run).items() if then.get(name, now) != now]
        if not changed:
            return ""
        return f"{self.name} ({self.key}) was made with another source of {', '.join(changed)}; --rerun makes it again"


def state_of(tags: Mapping[str, str]) -> State:
    return cast(State, tags.get("rnnstudy.outcome", "running"))


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


def failures_of(runs: Iterable[StoredRun]) -> dict[str, Failures]:
    """The runs, given newest first, that have failed and not ended well since."""
    return {
        key: Failures(attempts_of(run.tags), run.tags.get("rnnstudy.reason", ""))
        for key, run in newest_complete(runs).items()
        if run.state not in COMPLETE and attempts_of(run.tags)
    }


@dataclasses.dataclass
class OpenRun:
    """A run being written: `sent` holds the steps of each metric that the store has or is about to get; `attempts` says
    how often it has failed before, `samples` how many of the machine it has had, once there was one."""

    description: Description
    identity: str
    sent: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    buffer: list[Point] = dataclasses.field(default_factory=list)
    attempts: int = 0
    samples: int | None = None

    def fresh(self, points: Iterable[Point]) -> list[Point]:
        """The points that are new, now counted as sent."""
        new = []
        for point in points:
            steps = self.sent.setdefault(point.metric, set())
            if point.step not in steps and len(steps) < MOST_POINTS:
                steps.add(point.step)
                new.append(point)
        return new

    def sampled(self, sample: Sample, seconds: float) -> list[Point]:
        """The new points of what the machine's sensors said at `seconds` since 1970."""
        number = samples_in(self.sent) if self.samples is None else self.samples
        self.samples = number + 1
        return self.fresh(points_of_sample(sample, number, seconds))

    def points(self, record: Record) -> list[Point]:
        """The new points of a record."""
        points = points_of(record.series, self.description.steps, record.time, complete=record.outcome is not None)
        new = self.fresh(points)
        if record.outcome is not None and record.outcome.status in COMPLETE:
            new += self.fresh(summary_points(record.series, record.outcome, record.time))
        return new


def ending_tags(outcome: Outcome, failed_before: int = 0) -> dict[str, str]:
    """The tags that a run ends with."""
    reason = outcome.reason[:1000]
    tags = {"rnnstudy.outcome": outcome.status, "rnnstudy.engine": outcome.engine, "rnnstudy.reason": reason}
    if outcome.solved is not None:
        tags["rnnstudy.solved"] = str(outcome.solved).lower()
    if outcome.status == "failed":
        tags["rnnstudy.attempts"] = str(failed_before + outcome.attempts)
    return {name: value for name, value in tags.items() if value}


def run_header(description: Description, record: Record) -> dict[str, Any]:
    """What the manifest of `readings.npz` says about the run; a record without outcome describes a run under way."""
    outcome = record.outcome or Outcome(cast(Any, "running"), record.step)
    told = dataclasses.asdict(outcome)
    return {
        **{field: getattr(description, field) for field in ("key", "name", "experiment", "parameters", "tags")},
        "outcome": {field: value for field, value in told.items() if field not in ("summary", "attempts")},
        "summary": summary_of(record.series, outcome),
        "time": record.time,
    }


def write_arrays(folder: Path, description: Description, record: Record) -> list[Path]:
    """The array files of a run's last record, in `folder`."""
    written = [folder / READINGS]
    write_readings(written[0], run_header(description, record), record.series)
    if record.weights is not None:
        written.append(folder / WEIGHTS)
        write_weights(written[1], record.weights)
    return written


def require_folder(folder: Path) -> None:
    """Make the folder of a store; raises `SpecError` when it is not one or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise SpecError(
            f"{folder} cannot hold the store ({reason}); make it a folder that you may write, or set RNNSTUDY_HOME"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{folder} cannot be written; make it writable, or set RNNSTUDY_HOME to another project")
