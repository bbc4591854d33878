"""The store as tidy tables: one row for each run, and long tables of readings, keyed by run.

    results = load(experiment="quickstart")
    results.runs                                     # one row for each run, indexed by key
    results.readings("through_time/h")               # key, step, quantile, time, value
    results.with_runs(frame, "cell", "length")       # the same, with columns of `runs` joined

What is read are the array files, which hold every reading at full resolution, never MLflow's decimated metrics.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.run import Run, names
from rnnstudy.spec import SpecError, nearest
from rnnstudy.store.open_run import run_header
from rnnstudy.store.run_description import describe
from rnnstudy.training.records import Record, Series

SHORT = ("task", "cell", "length", "width", "layers", "seed", "learning_rate")
"""Columns that every run has, beside the dotted paths of its specification."""

FIRST = {"time": 1, "lag": 0}
"""Where an axis begins that simply counts up."""


@dataclass(frozen=True)
class RunReadings:
    """One run's readings, fetched when they are asked for.

    Attributes:
        header: what `tracking.run_header` says about the run.
        units: name to unit, for every series.
        series: gives the series of a name.
    """

    header: Mapping[str, Any]
    units: Mapping[str, str]
    series: Callable[[str], Series]


Listener = Callable[[str, float | None, Sequence[str]], None]
"""Hears of a reading that is asked for: its name, the quantile (None: all of them) and the keys of the runs."""


class Results:
    """Runs and what was measured in them.

    Attributes:
        runs: one row for each run, indexed by `key`: `name`, `experiment`, the short parameters (`task`, `cell`,
            `length`, `width`, `layers`, `seed`, `learning_rate`), `status`, `solved` (missing unless judged), `step`
            (updates made), `steps_to_solve` (missing if unsolved), `seconds`, `engine`, the summary scalars, and each
            field of the specification under its dotted path.
        names: of all readings, in alphabetical order.
        units: name of a reading to its unit.
        sources: where the readings come from, run for run.

    `asked`, when given, hears of every reading that is asked for: its name, the quantile and the keys of the runs.
    """

    def __init__(self, sources: Sequence[RunReadings], asked: Listener | None = None) -> None:
        self.sources = sources
        self._asked = asked
        self.runs = _table(sources)
        self.units = {name: unit for source in sources for name, unit in sorted(source.units.items())}
        self.names = sorted(self.units)

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """All readings of one name, in long form; of the runs `keys` alone when given.

        Columns: `key` (categorical), `step` (updates made before the reading), one column for each axis (`quantile`;
        `time` from 1; `lag` from 0; `length`) and `value` (float32, in `units[name]`; NaN where nothing was measured).
        With `quantile`, only that one, and no such column. Runs without this reading have no rows.

        Raises `SpecError` for a name that no run has, or a quantile that was not kept.
        """
        if name not in self.units:
            hint = nearest(name, self.names) or ";"
            raise SpecError(f"no reading is called '{name}'{hint} There are: {', '.join(self.names) or 'none'}")
        blocks: dict[str, list[np.ndarray]] = defaultdict(list)
        codes = []
        wanted = None if keys is None else set(keys)
        chosen = [
            (code, source)
            for code, source in enumerate(self.sources)
            if name in source.units and (wanted is None or source.header["key"] in wanted)
        ]
        if self._asked is not None:
            self._asked(name, quantile, [source.header["key"] for _, source in chosen])
        for code, source in chosen:
            columns = _long(source.series(name), quantile)
            codes.append(np.full(len(columns["value"]), code, dtype=np.int32))
            for column, values in columns.items():
                blocks[column].append(values)
        if not chosen:
            return pd.DataFrame({"key": pd.Categorical([], categories=self.runs.index), "step": [], "value": []})
        whose = pd.Categorical.from_codes(np.concatenate(codes), categories=self.runs.index)
        return pd.DataFrame({"key": whose, **{column: np.concatenate(parts) for column, parts in blocks.items()}})

    def with_runs(self, frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """`frame`, which has a column `key`, with columns of `runs` joined to it.

        Raises `SpecError` for a column that `runs` has not, or that `frame` has itself.
        """
        for column in columns:
            if column not in self.runs.columns:
                raise SpecError(f"runs have no column '{column}'{nearest(column, self.runs.columns)}")
            if column in frame.columns:
                raise SpecError(
                    f"the frame has its own column '{column}'; rename it, or join a dotted one such as task.{column}"
                )
        rows = self.runs.index.get_indexer(pd.Index(frame["key"]))
        joined = {column: self.runs[column].array.take(rows) for column in columns}
        return pd.concat([frame, pd.DataFrame(joined, index=frame.index)], axis=1)


def from_records(records: Iterable[Record], runs: Sequence[Run]) -> Results:
    """The same from the records that training yields, without a store.

    A run whose last record is not among them is there as far as it went, with the status `running`.
    Raises `SpecError` when a run has no record.
    """
    pieces: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        pieces[record.key].append(record)
    without = [run.name for run in runs if run.key not in pieces]
    if without:
        raise SpecError(f"no record of {', '.join(without)}; give the records that training these runs yielded")
    named = names(runs)
    sources = []
    for run in runs:
        record = _joined(pieces[run.key])
        sources.append(
            RunReadings(
                header=run_header(describe(run, named[run.key], "", {}), record),
                units={name: series.unit for name, series in record.series.items()},
                series=record.series.__getitem__,
            )
        )
    return Results(sources)


def _joined(pieces: Sequence[Record]) -> Record:
    """The last record of a run, which holds all its series; else one with what the pieces hold together."""
    last = pieces[-1]
    if last.outcome is not None:
        return last
    parts: dict[str, list[Series]] = defaultdict(list)
    for piece in pieces:
        for name, series in piece.series.items():
            parts[name].append(series)
    whole = {
        name: Series(
            steps=np.concatenate([part.steps for part in of_name]),
            values=np.concatenate([part.values for part in of_name]),
            axes=of_name[0].axes,
            unit=of_name[0].unit,
            spacing=of_name[0].spacing,
            coordinates=of_name[0].coordinates,
        )
        for name, of_name in parts.items()
    }
    return Record(last.key, last.step, last.time, whole)


def _table(sources: Sequence[RunReadings]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    summaries: dict[str, None] = {}
    fields: dict[str, None] = {}
    leading: list[str] = []
    for source in sources:
        header = source.header
        parameters = {name: _plain(value) for name, value in header["parameters"].items()}
        outcome = header["outcome"]
        row = {
            "key": header["key"],
            "name": header["name"],
            "experiment": header["experiment"],
            **{name: parameters[name] for name in SHORT},
            **{name: outcome[name] for name in ("status", "solved", "step", "steps_to_solve", "seconds", "engine")},
        }
        summaries.update(dict.fromkeys(header["summary"]))
        fields.update(dict.fromkeys(parameters))
        leading = list(row)
        rows.append({**parameters, **header["summary"], **row})
    columns = list(dict.fromkeys([*leading, *summaries, *fields]))
    table = pd.DataFrame(rows, columns=columns).set_index("key")
    return table.astype({"solved": "boolean", "steps_to_solve": "Int64"})


def _long(series: Series, quantile: float | None) -> dict[str, np.ndarray]:
    """The columns `step`, one for each axis, and `value` of one series, every moment and place in a row of its own."""
    values, axes = series.values.astype(np.float32, copy=False), series.axes
    if quantile is not None and "quantile" in axes:
        kept = series.coordinates.get("quantile", QUANTILES)
        if quantile not in kept:
            raise SpecError(f"quantile {quantile} was not kept; there are {', '.join(map(str, kept))}")
        values = np.take(values, kept.index(quantile), axis=1 + axes.index("quantile"))
        axes = tuple(axis for axis in axes if axis != "quantile")
    places = [series.steps, *(_places(series, axis, values.shape[1 + at]) for at, axis in enumerate(axes))]
    columns = {}
    for at, (column, place) in enumerate(zip(("step", *axes), places, strict=True)):
        along = place.reshape([-1 if position == at else 1 for position in range(values.ndim)])
        columns[column] = np.broadcast_to(along, values.shape).ravel()
    return {**columns, "value": values.ravel()}


def _places(series: Series, axis: str, count: int) -> np.ndarray:
    """The coordinates along an axis; whole numbers where all of them are."""
    if axis in series.coordinates:
        places = np.asarray(series.coordinates[axis])
        return places.astype(np.int64) if np.equal(np.mod(places, 1), 0).all() else places
    if axis == "quantile":
        return np.asarray(QUANTILES)
    first = FIRST.get(axis, 0)
    return np.arange(first, first + count, dtype=np.int32)


def _plain(value: Any) -> Any:
    """A list becomes a text: tables are grouped by their columns, and a list cannot be."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
