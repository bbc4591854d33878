"""The two contracts of a store: `Tracker` writes the records of a sweep, `RunIndex` knows which runs are complete."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from rnnstudy.run import Run
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.records import Record, RunState


class CompletedRun(Protocol):
    """A run that is complete in a store."""

    def serves(self, run: Run) -> bool:
        """Whether its readings include all that `run`, of the same key, asks for."""
        ...

    def warning(self, run: Run) -> str:
        """One line when the code of `run`'s task, cell or probes has changed since; otherwise empty."""
        ...


@dataclass(frozen=True)
class Failures:
    """How often a run has failed since it was last forgotten, and why the last time."""

    attempts: int
    reason: str


class KnownRuns(Protocol):
    """Which runs need no training any more, and which have failed: what a plan is made from."""

    def finished(self) -> Mapping[str, CompletedRun]:
        """The complete runs (finished or diverged), by key."""
        ...

    def failures(self) -> Mapping[str, Failures]:
        """The runs whose last attempts failed, by key."""
        ...


class RunIndex(KnownRuns, Protocol):
    """Knows the state of every run in a store or in a folder of files."""

    def states(self, keys: Iterable[str]) -> dict[str, RunState]:
        """The state of each run; `absent` for a run that is not there."""
        ...

    def forget(self, keys: Iterable[str]) -> int:
        """Delete these runs, so that they are trained again; returns how many there were."""
        ...

    def mark_interrupted(self) -> int:
        """Mark as interrupted the runs that a dead process left as running; returns how many there were."""
        ...


class Tracker(Protocol):
    """Writes the records of a sweep. Exactly one process writes."""

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = ...) -> None:
        """A run starts, or continues after an interruption. `tags` are stored beside those of the sweep."""
        ...

    def write(self, record: Record) -> None:
        """Store a record; may be buffered. A record with an outcome ends its run."""
        ...

    def sampled(self, sample: Sample, seconds: float) -> None:
        """Store a reading of the machine's sensors, made at `seconds` since 1970, for every open run."""
        ...

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can continue later. Ignored for a run that is not open."""
        ...

    def close(self) -> None:
        """Write what is still buffered."""
        ...
