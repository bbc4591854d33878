"""What training hands up: readings, the series they form, and how a run ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Status = Literal["finished", "diverged", "pruned", "failed"]

RunState = Literal["finished", "diverged", "pruned", "failed", "interrupted", "running", "absent"]
"""How a run stands in a store."""


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
        status: `finished`; `diverged` when loss or gradient left the finite numbers (data, not a fault); `pruned` when
            a search gave it up; `failed` for a fault of ours.
        step: updates made.
        solved: whether the task's criterion held on the test sequences; None unless finished.
        steps_to_solve: updates before the first of two validation checks in a row that met the criterion, or None.
        seconds: wall time spent, divided evenly among the runs that trained together.
        engine: which engine trained it.
        reason: one line on a failure, a divergence or a pruning.
        attempts: for a failure, how often it was tried before it was given up.
        summary: scalars for the table of runs, such as `error`, `log10_ratio_initial`; absent values left out.
    """

    status: Status
    step: int
    solved: bool | None = None
    steps_to_solve: int | None = None
    seconds: float = 0.0
    engine: str = ""
    reason: str = ""
    attempts: int = 1
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


@dataclass(frozen=True)
class Check:
    """The validation errors at one check: what a search goes by.

    Attributes:
        step: updates made.
        errors: by key; infinite for a run that has diverged. Pruned runs are left out. A run that has solved its task
            and stopped keeps its error.
    """

    step: int
    errors: Mapping[str, float]


@dataclass(frozen=True)
class TrainingProgress:
    """Where a population stands, for a display.

    Attributes:
        step, steps: updates made, and most updates.
        active: replicas still training at the last check.
        loss: median over the active replicas of the training loss then; NaN before the first check.
        error: smallest validation error over all replicas then.
    """

    step: int
    steps: int
    active: int
    loss: float
    error: float
