"""Where a launcher's populations come from: the plan of a grid, or a search that asks for more as results come in."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from rnnstudy.run import Run
from rnnstudy.sweep.messages import Assignment
from rnnstudy.training.records import Check, Outcome


class WorkQueue(Protocol):
    """Hands out populations, and is told what becomes of them. All calls come from the one process that writes."""

    @property
    def served(self) -> Collection[str]:
        """Keys that the store already holds."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out, and nothing more will be once all that is in training has ended."""
        ...

    def take(self) -> Assignment | None:
        """The next population to train; None when there is none at this moment."""
        ...

    def give_back(self, task: Assignment) -> None:
        """A population whose worker died, to be handed out again before any other."""
        ...

    def checked(self, check: Check) -> Collection[str]:
        """Told the validation errors of runs in training; gives the keys of those that are to be pruned."""
        ...

    def ended(self, key: str, outcome: Outcome) -> None:
        """Told how a run ended, after its last record was written."""
        ...

    def ended_elsewhere(self, served: Collection[str], set_aside: Collection[str]) -> None:
        """Told of runs that another launcher had claimed: the store holds them now, or they failed too often."""
        ...

    def name(self, run: Run) -> str:
        """What people call the run."""
        ...

    def tags(self, run: Run) -> Mapping[str, str]:
        """What the store is told of the run beside its specification."""
        ...


class FixedQueue:
    """A fixed list of populations, in this order: the supply of a grid. Nothing is pruned."""

    def __init__(self, tasks: Sequence[Assignment], names: Mapping[str, str], served: Collection[str] = ()) -> None:
        self.served = served
        self._waiting = deque(tasks)
        self._names = names

    @property
    def done(self) -> bool:
        return not self._waiting

    def take(self) -> Assignment | None:
        return self._waiting.popleft() if self._waiting else None

    def give_back(self, task: Assignment) -> None:
        self._waiting.appendleft(task)

    def checked(self, check: Check) -> Collection[str]:
        return ()

    def ended(self, key: str, outcome: Outcome) -> None:
        """Nothing depends on it."""

    def ended_elsewhere(self, served: Collection[str], set_aside: Collection[str]) -> None:
        """Nothing depends on it."""

    def name(self, run: Run) -> str:
        return self._names[run.key]

    def tags(self, run: Run) -> Mapping[str, str]:
        return {}
