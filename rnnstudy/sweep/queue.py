"""Work queues: where a launcher's populations come from. A grid's are fixed; a search adds some as results come in."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from rnnstudy.run import Run
from rnnstudy.sweep.messages import Assignment
from rnnstudy.training.records import Outcome, ValidationCheck


class WorkQueue(Protocol):
    """Hands out populations and is told what becomes of them. Only the launcher's process calls it."""

    complete_keys: set[str]
    """Keys of the runs that the store already holds."""

    @property
    def done(self) -> bool:
        """True when the queue is empty and no running population can add to it."""
        ...

    def next(self) -> Assignment | None:
        """The next population to train; None when there is none at the moment."""
        ...

    def requeue(self, assignment: Assignment) -> None:
        """Hand out this population again, before any other: its worker died."""

    def on_validation(self, check: ValidationCheck) -> Collection[str]:
        """Take note of validation errors; returns the keys of the runs to be pruned."""
        return ()

    def on_ended(self, key: str, outcome: Outcome) -> None:
        """Take note of how a run ended; its last record is in the store."""

    def on_ended_elsewhere(self, complete: Collection[str], given_up: Collection[str]) -> None:
        """Take note of runs that another launcher has trained: complete now, or given up after too many failures."""

    def run_name(self, run: Run) -> str:
        """The run's name in the store."""
        ...

    def run_tags(self, run: Run) -> Mapping[str, str]:
        """Tags of the run in the store, beside those of the sweep."""
        return {}


class FixedQueue(WorkQueue):
    """A fixed list of populations, in this order, for the runs of a grid. Nothing is pruned."""

    def __init__(self, assignments: Sequence[Assignment], names: Mapping[str, str], complete: set[str]) -> None:
        self.complete_keys = complete
        self._waiting = deque(assignments)
        self._names = names

    @property
    def done(self) -> bool:
        return not self._waiting

    def next(self) -> Assignment | None:
        return self._waiting.popleft() if self._waiting else None

    def requeue(self, assignment: Assignment) -> None:
        self._waiting.appendleft(assignment)

    def run_name(self, run: Run) -> str:
        return self._names[run.key]
