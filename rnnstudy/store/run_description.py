"""What a run is when it begins: its description, and what the runs of one sweep have in common."""

import dataclasses
import functools
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnstudy.run import Run
from rnnstudy.spec import LOCATION, NOT_IDENTITY, canonical, flatten
from rnnstudy.store.documents import NOTE, data_set, note, run_documents
from rnnstudy.store.git import CHANGED, checked_out_commit, repository
from rnnstudy.store.owner import Owner
from rnnstudy.store.source_hashes import code_hashes


@dataclasses.dataclass(frozen=True)
class SweepInfo:
    """What the runs that are launched together have in common.

    Attributes:
        experiment: the MLflow experiment: the stem of the experiment file.
        experiment_file: its path, as the command names it; empty when there is none.
        command: the command that launched them.
        engine: the requested engine; a run's outcome names the one that trained it.
        sweep: identifies this launch.
        hypothesis: the docstring of the experiment file.
    """

    experiment: str
    experiment_file: str = ""
    command: str = ""
    engine: str = ""
    sweep: str = dataclasses.field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    hypothesis: str = ""

    @functools.cached_property
    def tags(self) -> dict[str, str]:
        """The tags of each run of the sweep: the sweep, this process, and the commit when there is one.

        Where files differ from the commit, `rnnstudy.uncommitted` says so; MLflow's tag is the commit alone.
        """
        folder = repository(Path(self.experiment_file).absolute().parent if self.experiment_file else Path.cwd())
        commit = (checked_out_commit(folder) if folder else None) or ""
        tags = {
            "rnnstudy.sweep": self.sweep,
            "rnnstudy.engine": self.engine,
            "rnnstudy.command": self.command,
            **Owner.this().tags(),
            "mlflow.source.name": self.experiment_file or self.experiment,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit.removesuffix(CHANGED),
            "rnnstudy.uncommitted": "true" if commit.endswith(CHANGED) else "",
        }
        return {name: value for name, value in tags.items() if value}

    def describe(self, run: Run, name: str, tags: Mapping[str, str]) -> "Description":
        """The description of a run of this sweep, with `tags` of its own."""
        return describe(run, name, self.experiment, {**self.tags, **tags}, self.hypothesis)


@dataclasses.dataclass(frozen=True)
class Description:
    """What is stored of a run when it begins. JSON-serialisable, so that it can be stored offline.

    Attributes:
        key, name, experiment: which run it is.
        steps: the most updates it makes.
        parameters: short names and dotted paths of the specification, without the probes and where data lie (they may
            differ between two parts of an interrupted run, and MLflow's parameters cannot be changed; tags hold them).
        tags: see `stored_run`.
        documents: file name to text, see `documents.run_documents`.
        data_set: which sequences it sees, see `documents.data_set`.
        hypothesis: the docstring of the experiment file.
    """

    key: str
    name: str
    experiment: str
    steps: int
    parameters: dict[str, Any]
    tags: dict[str, str]
    documents: dict[str, str] = dataclasses.field(default_factory=dict)
    data_set: dict[str, Any] = dataclasses.field(default_factory=dict)
    hypothesis: str = ""


def describe(run: Run, name: str, experiment: str, sweep_tags: Mapping[str, str], hypothesis: str = "") -> Description:
    flat = flatten(run, leave_out=frozenset({NOT_IDENTITY, LOCATION}))
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
            "rnnstudy.spec": json.dumps(run.described),
            "rnnstudy.code": json.dumps(code_hashes(run)),
            NOTE: note(run, repeating(run.key, sweep_tags.get("rnnstudy.command", ""))),
        },
        documents=run_documents(run),
        data_set=data_set(run),
        hypothesis=hypothesis,
    )


def parameter_text(value: Any) -> str:
    """The text of a parameter in MLflow, which refuses to change it: the same before and after a way through JSON."""
    return str(_tuples(value))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def repeating(key: str, command: str) -> str:
    """The command that repeats one run of the sweep that `command` launched; empty where `command` is."""
    return f"{command} --only {key} --rerun" if command else ""
