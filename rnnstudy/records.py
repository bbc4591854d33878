"""What training hands up: readings, the series they form, and how a run ended. And who may take them: a tracker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from rnnstudy.run import Run

QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)
"""The quantiles over a batch that readings keep, along their axis `quantile`; the median is among them."""

MEDIAN = QUANTILES.index(0.50)

Status = Literal["finished", "diverged", "failed"]

State = Literal["finished", "diverged", "failed", "interrupted", "running", "absent"]
"""How a run stands in a store."""


@dataclass(frozen=True)
class Reading:
    """A quantity measured at one moment for every replica of a population, batch already reduced.

    Attributes:
        name: as in the store, for example `through_time/h`.
        values: (replica, *axes), on the device of training.
        axes: names of the axes behind `replica`: `quantile`, `time`, `lag`, `length`.
        unit: for example `log10`, `nats`, `share`.
    """

    name: str
    values: Tensor
    axes: tuple[str, ...] = ()
    unit: str = ""
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """One reading of one run over training.

    Attributes:
        steps: (moment): updates made before each reading.
        values: (moment, *axes), NaN where nothing was measured (an exact zero on a logarithmic scale, for example).
        axes: names of the axes behind `moment`.
        unit: for example `log10`.
        spacing: updates between two readings of its schedule; 0 for a reading that is made once.
        coordinates: positions along an axis that does not simply count up: the lengths of axis `length`. Axis `time`
            counts from 1, `lag` from 0; `quantile` holds `QUANTILES`.
    """

    steps: np.ndarray
    values: np.ndarray
    axes: tuple[str, ...] = ()
    unit: str = ""
    spacing: int = 0
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `finished`; `diverged` when loss or gradient left the finite numbers (data, not a fault); `failed` for a
            fault of ours.
        step: updates made.
        solved: whether the task's criterion held on the test sequences; None unless finished.
        steps_to_solve: updates before the first of two validation checks in a row that met the criterion, or None.
        seconds: wall time spent, divided evenly among the runs that trained together.
        engine: which engine trained it.
        reason: one line on a failure or divergence.
        summary: scalars for the table of runs, such as `error`, `log10_ratio_initial`; absent values left out.
    """

    status: Status
    step: int
    solved: bool | None = None
    steps_to_solve: int | None = None
    seconds: float = 0.0
    engine: str = ""
    reason: str = ""
    summary: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """News of one run.

    Attributes:
        key: the run.
        step: updates made.
        time: when it was measured, seconds since 1970; kept in the checkpoint, so that a repeated record is identical.
        series: the readings since the run's previous record; in the last record, all of them.
        outcome: set in the run's last record alone.
        weights: final parameters, in the last record of a run that finished or diverged.
    """

    key: str
    step: int
    time: float
    series: Mapping[str, Series]
    outcome: Outcome | None = None
    weights: Mapping[str, np.ndarray] | None = None


class Kept(Protocol):
    """A run that is complete in a store."""

    def serves(self, run: "Run") -> bool:
        """Whether its readings cover those that `run`, of the same key, asks for."""
        ...

    def warning(self, run: "Run") -> str:
        """One line when the source of `run`'s task, cell or probes has changed since; otherwise an empty text."""
        ...


class Tracker(Protocol):
    """Takes the records of a sweep. Exactly one process writes."""

    def finished(self) -> Mapping[str, Kept]:
        """The runs that are complete in the store (finished or diverged), by key."""
        ...

    def states(self, keys: Iterable[str]) -> dict[str, State]:
        """How each run stands in the store."""
        ...

    def forget(self, keys: Iterable[str]) -> int:
        """Drop every trace of these runs from the store, so that they run again; gives how many were there."""
        ...

    def mend(self) -> int:
        """Mark as interrupted what a dead process left as running; gives how many runs that were."""
        ...

    def begin(self, run: "Run", name: str) -> None:
        """A run starts, or goes on after an interruption."""
        ...

    def write(self, record: Record) -> None:
        """Keep a record; may be buffered. A record with an outcome ends its run."""
        ...

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can go on later."""
        ...

    def close(self) -> None:
        """Write what is still buffered."""
        ...
