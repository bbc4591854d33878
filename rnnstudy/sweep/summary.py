"""What a sweep reports: to a listener while it runs, and as a summary at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rnnstudy.run import Run, distinguishing_fields
from rnnstudy.store.project import Project
from rnnstudy.store.tracker import Failures
from rnnstudy.sweep.messages import Assignment
from rnnstudy.training.records import Outcome, TrainingProgress


class ProgressListener(Protocol):
    """Is told how a sweep goes on: the command line draws it, a notebook may ignore it."""

    def planned(self, assignments: Sequence[Assignment], most_runs: int | None = None) -> None:
        """The sweep begins with these populations. A search does not know its populations yet: it says how many runs
        there will be at most."""

    def started(self, assignment: Assignment) -> None:
        """A worker begins to train a population."""

    def progressed(self, assignment: Assignment, progress: TrainingProgress) -> None:
        """A population in training has come this far."""

    def ended(self, assignment: Assignment, message: str) -> None:
        """A population left its worker: it is complete (an empty message), or "failed", "interrupted" or "halved"."""

    def message(self, line: str) -> None:
        """Something that the user should know."""


class Silent(ProgressListener):
    """Ignores what it is told."""


@dataclass
class SweepSummary:
    """How a sweep ended.

    Attributes:
        runs: all runs of the sweep; empty for a search, which chooses its runs as it goes on.
        names: their names, by key.
        complete: keys of the runs that the store held already, or that another launcher has trained meanwhile.
        ended: how each run ended that this launcher trained, by key.
        given_up: the runs that have failed too often to be tried again, by key.
        interrupted: True when something was left to train; launching again continues.
        writing_seconds: time spent writing, beside the training.
        fell_back_to_files: True when the store stayed away to the end, and files hold what it lacks (`rnnstudy sync`).
        offline: the folder that was written to in place of the store, or None.
        project: whose store holds the runs.
    """

    runs: Sequence[Run] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    ended: dict[str, Outcome] = field(default_factory=dict)
    given_up: Mapping[str, Failures] = field(default_factory=dict)
    interrupted: bool = False
    writing_seconds: float = 0.0
    fell_back_to_files: bool = False
    offline: Path | None = None
    project: Project | None = None

    @property
    def failed(self) -> list[str]:
        """Keys of the runs that failed in this sweep."""
        return [key for key, outcome in self.ended.items() if outcome.status == "failed"]

    @property
    def table(self) -> Any:
        """A data frame: for each cell, length and whatever else differed but the seed, how many runs were solved.

        Of the runs that the store holds; see `results.outcomes.outcome_table`. Raises `RequestError` where it holds
        none of them.
        """
        from rnnstudy import results
        from rnnstudy.results.outcomes import outcome_table

        missing = {*self.failed, *self.given_up}
        keys = [run.key for run in self.runs if run.key not in missing]
        varied = [name for name in distinguishing_fields(self.runs) if name != "data_seed"]
        return outcome_table(results.load(keys, project=self.project).runs, varied)
