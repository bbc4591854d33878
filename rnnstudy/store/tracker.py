"""Who takes the records of a sweep: the contract of a tracker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from rnnstudy.run import Run
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.records import Record, RunState


class CompletedRun(Protocol):
    """A run that is complete in a store."""

    def serves(self, run: Run) -> bool:
        """Whether its readings cover those that `run`, of the same key, asks for."""
        ...

    def warning(self, run: Run) -> str:
        """One line when the source of `run`'s task, cell or probes has changed since; otherwise an empty text."""
        ...


@dataclass(frozen=True)
class Failures:
    """How often a run has failed since it was last forgotten, and why the last time."""

    attempts: int
    reason: str


class Tracker(Protocol):
    """Takes the records of a sweep. Exactly one process writes."""

    def finished(self) -> Mapping[str, CompletedRun]:
        """The runs that are complete in the store (finished or diverged), by key."""
        ...

    def failures(self) -> Mapping[str, Failures]:
        """The runs whose last attempts failed, by key."""
        ...

    def states(self, keys: Iterable[str]) -> dict[str, RunState]:
        """How each run stands in the store."""
        ...

    def forget(self, keys: Iterable[str]) -> int:
        """Drop every trace of these runs from the store, so that they run again; gives how many were there."""
        ...

    def mend(self) -> int:
        """Mark as interrupted what a dead process left as running; gives how many runs that were."""
        ...

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = ...) -> None:
        """A run starts, or goes on after an interruption. `tags` are kept beside those of the sweep."""
        ...

    def write(self, record: Record) -> None:
        """Keep a record; may be buffered. A record with an outcome ends its run."""
        ...

    def sampled(self, sample: Sample, seconds: float) -> None:
        """What the machine's sensors said at `seconds` since 1970, for every run that is being written."""
        ...

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can go on later."""
        ...

    def close(self) -> None:
        """Write what is still buffered."""
        ...


class RunIndex(Protocol):
    """Knows which runs are complete: a tracker, or a store that is only read."""

    def finished(self) -> Mapping[str, CompletedRun]: ...

    def failures(self) -> Mapping[str, Failures]: ...
