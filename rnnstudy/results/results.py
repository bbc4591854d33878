"""Runs as tidy tables: one row for each run, and long tables of readings, keyed by run.

results.runs                                     # one row for each run, indexed by key
results.readings("through_time/h")               # key, step, quantile, time, value
results.with_runs(frame, "cell", "length")       # the same, with columns of `runs` joined
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.run import Run, unique_names
from rnnstudy.spec import RequestError, nearest
from rnnstudy.store.open_run import run_header
from rnnstudy.store.run_description import describe
from rnnstudy.training.records import Record, Series

SHORT = ("task", "cell", "length", "width", "layers", "seed", "learning_rate")
"""Columns that every run has, in addition to the dotted paths of its specification."""

_DESCRIBED = ("key", "name", "experiment")
_OUTCOME = ("status", "solved", "step", "steps_to_solve", "seconds", "engine")

FIRST = {"time": 1, "lag": 0}
"""The first coordinate of an axis that simply counts up."""


@dataclass(frozen=True)
class RunReadings:
    """One run's readings, read from their file when they are needed.

    Attributes:
        header: description and outcome of the run, as `run_header` makes it.
        units: name to unit, for every series.
        series: returns the series of a name.
    """

    header: Mapping[str, Any]
    units: Mapping[str, str]
    series: Callable[[str], Series]

    @staticmethod
    def of(header: Mapping[str, Any], series: Mapping[str, Series]) -> "RunReadings":
        """The readings of a run whose series are in memory."""
        return RunReadings(header, {name: one.unit for name, one in series.items()}, series.__getitem__)


Listener = Callable[[str, float | None, Sequence[str]], None]
"""Called on every access to a reading, with its name, the quantile (None: all of them) and the keys of the runs."""


class Results:
    """Runs and what was measured in them.

    Attributes:
        runs: one row for each run, indexed by `key`: `name`, `experiment`, the short parameters (`task`, `cell`,
            `length`, `width`, `layers`, `seed`, `learning_rate`), `status`, `solved` (missing unless judged), `step`
            (updates made), `steps_to_solve` (missing if unsolved), `seconds`, `engine`, the summary scalars, and each
            field of the specification under its dotted path.
        names: of all readings, in alphabetical order.
        units: name of a reading to its unit.
        per_run: the readings of each run.
    """

    def __init__(self, per_run: Sequence[RunReadings], listener: Listener | None = None) -> None:
        self.per_run = per_run
        self._listener = listener
        self.runs = _table(per_run)
        self.units = {name: unit for run in per_run for name, unit in sorted(run.units.items())}
        self.names = sorted(self.units)

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """All readings of one name, in long form; with `keys`, only those of these runs.

        Columns: `key` (categorical), `step` (updates made before the reading), one column for each axis (`quantile`;
        `time` from 1; `lag` from 0; `length`) and `value` (float32, in `units[name]`; NaN where nothing was measured).
        With `quantile`, only that one, and without the column `quantile`. Runs without this reading have no rows.

        Raises `RequestError` for a name that no run has, or a quantile that was not stored.
        """
        if name not in self.units:
            hint = nearest(name, self.names) or ";"
            raise RequestError(f"no reading is called '{name}'{hint} There are: {', '.join(self.names) or 'none'}")
        blocks: dict[str, list[np.ndarray]] = defaultdict(list)
        codes = []
        wanted = None if keys is None else set(keys)
        chosen = [
            (code, run)
            for code, run in enumerate(self.per_run)
            if name in run.units and (wanted is None or run.header["key"] in wanted)
        ]
        if self._listener is not None:
            self._listener(name, quantile, [run.header["key"] for _, run in chosen])
        for code, run in chosen:
            columns = _long(run.series(name), quantile)
            codes.append(np.full(len(columns["value"]), code, dtype=np.int32))
            for column, values in columns.items():
                blocks[column].append(values)
        if not chosen:
            return pd.DataFrame({"key": pd.Categorical([], categories=self.runs.index), "step": [], "value": []})
        key = pd.Categorical.from_codes(np.concatenate(codes), categories=self.runs.index)
        return pd.DataFrame({"key": key, **{column: np.concatenate(parts) for column, parts in blocks.items()}})

    def with_runs(self, frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """`frame`, which has a column `key`, with columns of `runs` joined to it.

        Raises `RequestError` for a column that `runs` does not have, or that `frame` has already.
        """
        for column in columns:
            if column not in self.runs.columns:
                raise RequestError(f"runs have no column '{column}'{nearest(column, self.runs.columns)}")
            if column in frame.columns:
                raise RequestError(
                    f"the frame has its own column '{column}'; rename it, or join a dotted one such as task.{column}"
                )
        rows = self.runs.index.get_indexer(pd.Index(frame["key"]))
        joined = {column: self.runs[column].array.take(rows) for column in columns}
        return pd.concat([frame, pd.DataFrame(joined, index=frame.index)], axis=1)


def from_records(records: Iterable[Record], runs: Sequence[Run]) -> Results:
    """The results in the records that training yields, without a store.

    A run without its last record is included up to its newest record, with the status `running`.
    Raises `RequestError` when a run has no record.
    """
    pieces: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        pieces[record.key].append(record)
    without = [run.name for run in runs if run.key not in pieces]
    if without:
        raise RequestError(f"no record of {', '.join(without)}; pass all records that training these runs yielded")
    run_names = unique_names(runs)
    per_run = []
    for run in runs:
        record = _joined(pieces[run.key])
        header = run_header(describe(run, run_names[run.key], "", {}), record)
        per_run.append(RunReadings.of(header, record.series))
    return Results(per_run)


def _joined(pieces: Sequence[Record]) -> Record:
    """The last record of a run, which holds all its series; without it, one record with the series of all pieces."""
    last = pieces[-1]
    if last.outcome is not None:
        return last
    parts: dict[str, list[Series]] = defaultdict(list)
    for piece in pieces:
        for name, series in piece.series.items():
            parts[name].append(series)
    whole = {}
    for name, of_name in parts.items():
        steps, values = (np.concatenate([getattr(part, field) for part in of_name]) for field in ("steps", "values"))
        whole[name] = replace(of_name[0], steps=steps, values=values)
    return Record(last.key, last.step, last.time, whole)


def _table(per_run: Sequence[RunReadings]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for header in (run.header for run in per_run):
        parameters = {name: _plain(value) for name, value in header["parameters"].items()}
        described = {name: header[name] for name in _DESCRIBED}
        outcome = {name: header["outcome"][name] for name in _OUTCOME}
        rows.append({**header["summary"], **parameters, **described, **outcome})
    summaries = (name for run in per_run for name in run.header["summary"])
    fields = (name for row in rows for name in row)
    columns = list(dict.fromkeys([*_DESCRIBED, *SHORT, *_OUTCOME, *summaries, *fields]))
    table = pd.DataFrame(rows, columns=columns).set_index("key")
    return table.astype({"solved": "boolean", "steps_to_solve": "Int64"})


def _long(series: Series, quantile: float | None) -> dict[str, np.ndarray]:
    """The columns of one series in long form: `step`, one for each axis, and `value`."""
    values, axes = series.values.astype(np.float32, copy=False), series.axes
    if quantile is not None and "quantile" in axes:
        stored = series.coordinates.get("quantile", QUANTILES)
        if quantile not in stored:
            raise RequestError(f"quantile {quantile} was not stored; there are {', '.join(map(str, stored))}")
        values = np.take(values, stored.index(quantile), axis=1 + axes.index("quantile"))
        axes = tuple(axis for axis in axes if axis != "quantile")
    columns = {}
    for axis, column in enumerate(("step", *axes)):
        along = series.steps if column == "step" else _coordinates(series, column, values.shape[axis])
        shaped = along.reshape([-1 if other == axis else 1 for other in range(values.ndim)])
        columns[column] = np.broadcast_to(shaped, values.shape).ravel()
    return {**columns, "value": values.ravel()}


def _coordinates(series: Series, axis: str, count: int) -> np.ndarray:
    """The coordinates along an axis; integers if all of them are whole numbers."""
    if axis in series.coordinates:
        stored = np.asarray(series.coordinates[axis])
        return stored.astype(np.int64) if np.equal(np.mod(stored, 1), 0).all() else stored
    if axis == "quantile":
        return np.asarray(QUANTILES)
    return np.arange(count, dtype=np.int32) + FIRST.get(axis, 0)


def _plain(value: Any) -> Any:
    """A list as text: tables are grouped by their columns, and lists cannot be group keys."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
