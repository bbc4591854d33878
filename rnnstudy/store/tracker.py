"""The two contracts of a store: `Tracker` writes the records of a sweep, `KnownRuns` says which runs are complete."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from rnnstudy.run import Run
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.records import Record


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

    def finished(self, keys: Collection[str] | None = ...) -> Mapping[str, CompletedRun]:
        """The complete runs (finished or diverged), by key: all, or those of `keys`."""
        ...

    def failures(self, keys: Collection[str] | None = ...) -> Mapping[str, Failures]:
        """The runs whose last attempts failed, by key: all, or those of `keys`."""
        ...


class Tracker(Protocol):
    """Writes the records of a sweep. Exactly one process writes."""

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = ..., began: float | None = ...) -> None:
        """A run starts, or continues after an interruption. `tags` are stored beside those of the sweep; its first
        update `began` at this time, in seconds since 1970 (None: now)."""

    def write(self, record: Record) -> None:
        """Store a record; may be buffered. A record with an outcome ends its run."""

    def sampled(self, sample: Sample, seconds: float) -> None:
        """Store a reading of the machine's sensors, made at `seconds` since 1970, for every open run."""

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can continue later. Ignored for a run that is not open."""

    def drop(self, key: str) -> None:
        """Another process writes this run from now on: forget it, and write nothing. Ignored if it is not open."""

    def close(self) -> None:
        """Write what is still buffered."""
