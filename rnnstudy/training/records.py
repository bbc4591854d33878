"""What training reports: the series of readings, how a run ended, validation checks, progress."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Status = Literal["finished", "diverged", "pruned", "failed"]

RunState = Literal["finished", "diverged", "pruned", "failed", "interrupted", "running", "absent", "damaged"]
"""The state of a run in a store; `damaged` where what the store says of it cannot be read."""


@dataclass(frozen=True)
class Series:
    """One reading of one run over training.

    Attributes:
        steps: (moment): updates made before each reading.
        values: (moment, *axes), NaN where nothing was measured (an exact zero on a logarithmic scale, for example).
        axes: names of the axes after `moment`.
        unit: for example `log10`.
        spacing: updates between two readings of its schedule; 0 for a reading that is made once.
        coordinates: positions along an axis that is not a plain count: the lengths of axis `length`. Axis `time` counts
            from 1, `lag` and `age` from 0; `quantile` holds `QUANTILES`.
    """

    steps: np.ndarray
    values: np.ndarray
    axes: tuple[str, ...] = ()
    unit: str = ""
    spacing: int = 0
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, Any]:
        """All but `steps` and `values`, as plain values."""
        coordinates = {axis: list(positions) for axis, positions in self.coordinates.items()}
        return {"axes": list(self.axes), "unit": self.unit, "spacing": self.spacing, "coordinates": coordinates}

    @staticmethod
    def labelled(labels: Mapping[str, Any], steps: np.ndarray, values: np.ndarray) -> "Series":
        """The series with these `labels`."""
        coordinates = {axis: tuple(positions) for axis, positions in labels["coordinates"].items()}
        return Series(steps, values, tuple(labels["axes"]), labels["unit"], labels["spacing"], coordinates)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `finished`; `diverged` when loss or gradient was not finite (a result, not an error); `pruned` when a
            search stopped it; `failed` for an error.
        step: updates made.
        solved: whether the task's criterion held on the test sequences; None unless finished.
        steps_to_solve: updates before the first of two validation checks in a row that met the criterion, or None.
        seconds: wall time spent, divided evenly among the runs that trained together.
        engine: which engine trained it.
        reason: one line on a failure, a divergence or a pruning.
        attempts: for a failure, how often it was tried.
        summary: scalars for the table of runs, such as `error`, `log10_ratio_initial`; values not measured are absent.
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
    """What training reports about one run since its previous record.

    Attributes:
        key: the run.
        step: updates made.
        time: when it was measured, seconds since 1970; kept in the checkpoint, so that a repeated record is identical.
        series: the readings since the run's previous record; in the last record, all of them.
        outcome: set only in the run's last record.
        weights: final parameters, in the last record of a run that finished or diverged.
    """

    key: str
    step: int
    time: float
    series: Mapping[str, Series]
    outcome: Outcome | None = None
    weights: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class ValidationCheck:
    """The validation errors at one check, by which a search decides what to prune.

    Attributes:
        step: updates made.
        errors: key to error; infinite for a run that has diverged. Pruned runs are left out; runs that have solved
            their task and stopped are not.
    """

    step: int
    errors: Mapping[str, float]


Phase = Literal["compiling", "measuring", "training", "testing"]
"""What a population is busy with: compiling its engine's kernels, reading the probes before the first update, training,
or reading the probes and the test sequences after the last."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a population, for a display.

    Attributes:
        step, steps: updates made, and the most that will be made.
        active: replicas still training at the last check.
        loss: median over the active replicas of the training loss at that check; NaN before the first one, and when no
            replica is active any more.
        error: smallest validation error over all replicas at that check.
    """

    step: int
    steps: int
    active: int
    loss: float
    error: float
    phase: Phase = "training"
