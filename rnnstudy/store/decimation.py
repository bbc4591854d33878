"""The points of a run's readings that MLflow's pages show: a copy of at most 100 points for each curve.

The schedule depends on the training step alone, so that a resumed run shows the same points as an uninterrupted one.
A point that is made again is identical: it carries the time of the record, not of the writing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnnstudy.probes.reading import MEDIAN
from rnnstudy.training.records import Outcome, Series

MOST_POINTS = 100
"""The most points of one curve: a point takes 290 bytes of MLflow's database, three indices included."""

LARGEST_METRIC = 200
"""The most points of one metric: curves that older versions began, and those of sensors, may have so many."""

SHARES = ("_zeros", "_nonfinite")
"""Endings of series that count missing values; those with an axis `time`, `lag` or `age` are in the arrays alone."""


class Point(NamedTuple):
    """One point of a metric: MLflow's step is a training step, a lag, an age or a length; time in ms since 1970."""

    metric: str
    step: int
    value: float
    time: int


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def scheduled(steps: np.ndarray, spacing: int, most: int) -> np.ndarray:
    """(moment) → (moment): whether the reading at each training step is shown, for a run of at most `most` steps.

    The steps 0..most fall into 100 equal bins; a reading is shown when the one `spacing` before it lies in another bin.
    """
    if spacing == 0:
        return np.ones(len(steps), dtype=bool)
    bins, before = (np.floor_divide(MOST_POINTS * step, most + 1) for step in (steps, steps - spacing))
    return (steps < spacing) | (bins != before)


def points_of(series: Mapping[str, Series], most: int, time: float, complete: bool) -> Iterator[Point]:
    """The points of the `series` of a run of at most `most` training steps.

    Of the quantiles, the median. A reading without further axes is one metric against the training step; axis `time`
    makes two, `<name>_first` and `<name>_last`, at the first and last measured time step; axes `lag`, `age` and
    `length` make one, once the series are `complete`: the last moment, with the lag, age or length as MLflow's step.
    Values that are not finite are absent. Series named `summary/…` are not curves: see `summary_of`.
    """
    stamp = milliseconds(time)
    for name, reading in series.items():
        if name.startswith("summary/") or (name.endswith(SHARES) and {"time", "lag", "age"} & set(reading.axes)):
            continue
        values, axes = np.asarray(reading.values, dtype=np.float64), reading.axes
        if "quantile" in axes:
            values = np.take(values, MEDIAN, axis=1 + axes.index("quantile"))
            axes = tuple(axis for axis in axes if axis != "quantile")
        if axes in ((), ("time",)):
            shown = scheduled(reading.steps, reading.spacing, most)
            steps, values = reading.steps[shown], values[shown]
            curves = {name: values} if not axes else {f"{name}_first": _first(values), f"{name}_last": _last(values)}
            for metric, curve in curves.items():
                yield from _finite(metric, steps, curve, stamp)
        elif complete and len(values) and axes in (("lag",), ("age",)):
            positions = thinned(values.shape[1])
            yield from _finite(name, positions, values[-1, positions], stamp)
        elif complete and len(values) and axes == ("length",):
            yield from _finite(name, np.asarray(reading.coordinates["length"]), values[-1], stamp)


def thinned(count: int) -> np.ndarray:
    """At most 100 of the positions 0..count−1, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def summary_of(series: Mapping[str, Series], outcome: Outcome) -> dict[str, float]:
    """The finite scalars of the table of runs: the last values of series named `summary/…`, and the outcome's own."""
    last = {
        name.removeprefix("summary/"): float(reading.values[-1])
        for name, reading in series.items()
        if name.startswith("summary/") and not reading.axes and len(reading.values)
    }
    return {name: float(value) for name, value in {**last, **outcome.summary}.items() if np.isfinite(value)}


def summary_points(series: Mapping[str, Series], outcome: Outcome, time: float) -> Iterator[Point]:
    """`summary/…` at the run's last step, with `summary/solved` (1 or 0) and `summary/steps_to_solve` where known."""
    values: dict[str, Any] = {
        **summary_of(series, outcome),
        "solved": outcome.solved,
        "steps_to_solve": outcome.steps_to_solve,
    }
    for name, value in values.items():
        if value is not None:
            yield Point(f"summary/{name}", outcome.step, float(value), milliseconds(time))


def _finite(metric: str, steps: np.ndarray, values: np.ndarray, stamp: int) -> Iterator[Point]:
    for position in np.flatnonzero(np.isfinite(values)):
        yield Point(metric, int(steps[position]), float(values[position]), stamp)


def _first(values: np.ndarray) -> np.ndarray:
    """(moment, time) → (moment): the first measured value of each row, NaN where there is none."""
    return values[np.arange(len(values)), (~np.isnan(values)).argmax(axis=1)]


def _last(values: np.ndarray) -> np.ndarray:
    return _first(values[:, ::-1])
