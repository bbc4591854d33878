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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnnstudy import home as homes
from rnnstudy.arrays import READINGS, read_manifest, read_series
from rnnstudy.home import Home
from rnnstudy.records import QUANTILES, Record, Series
from rnnstudy.run import Run, names
from rnnstudy.spec import SpecError, nearest
from rnnstudy.stored import COMPLETE, StoredRun, describe, run_header
from rnnstudy.tracking import Store

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


def load(
    keys: Iterable[str] | None = None,
    *,
    experiment: str | None = None,
    home: Home | None = None,
    archive: Path | None = None,
    asked: Listener | None = None,
) -> Results:
    """Complete runs (finished or diverged) from the store of `home` (that of the working directory when None).

    With `keys`, those, in that order; otherwise all of `experiment` (a name, or the path of its file); otherwise all.
    With `archive`, a folder that `rnnstudy.archive` wrote, from there instead. Raises `SpecError` naming the runs that
    are missing, and the sweep that makes them.
    """
    name = Path(experiment).stem if experiment else None
    if archive is not None:
        from rnnstudy.archive import Archive

        return Archive.open(archive).load(name, None if keys is None else list(keys), asked)
    store = Store(home or homes.find())
    known = store.runs()
    complete = _complete(known)
    if keys is None:
        wanted = [key for key, run in complete.items() if name in (None, run.experiment)]
    else:
        wanted = list(dict.fromkeys(keys))
    missing = [key for key in wanted if key not in complete]
    if missing or not wanted:
        raise SpecError(_missing(missing, len(wanted), known, name))
    return Results([_from_file(store.artifact(complete[key], READINGS)) for key in wanted], asked)


def complete_keys(*, home: Home | None = None, archive: Path | None = None) -> dict[str, str]:
    """Every complete run of the store, or of an archive: key to the experiment that made it."""
    if archive is not None:
        from rnnstudy.archive import Archive

        return {key: header["experiment"] for key, header in Archive.open(archive).headers.items()}
    return {key: run.experiment for key, run in _complete(Store(home or homes.find()).runs()).items()}


def from_files(paths: Iterable[Path]) -> Results:
    """The runs whose `readings.npz` these are. Raises `SpecError` for a file that is gone or is not one."""
    return Results([_from_file(path) for path in paths])


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


def runs_table(experiment: str | None = None, *, home: Home | None = None) -> pd.DataFrame:
    """Every run in the store, whatever its state: `key`, `name`, `experiment`, `state`; of one experiment if named."""
    name = Path(experiment).stem if experiment else None
    rows = [
        {"key": run.key, "name": run.name, "experiment": run.experiment, "state": run.state}
        for run in Store(home or homes.find()).runs()[::-1]
        if name in (None, run.experiment)
    ]
    return pd.DataFrame(rows, columns=["key", "name", "experiment", "state"])


def find(prefix: str, *, home: Home | None = None) -> str:
    """The key in the store that begins with `prefix`. Raises `SpecError` when there is none, or more than one."""
    known = {run.key: run.name for run in reversed(Store(home or homes.find()).runs())}
    matching = [key for key in known if key.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        shown = ", ".join(f"{key} ({known[key]})" for key in matching[:5])
        more = f" and {len(matching) - 5} more" if len(matching) > 5 else ""
        raise SpecError(f"'{prefix}' is the beginning of {len(matching)} keys: {shown}{more}; type more of it")
    hint = nearest(prefix, known) or "; `rnnstudy list` shows the keys of an experiment"
    raise SpecError(f"no run in the store has a key that begins with '{prefix}'{hint}")


def stored(key: str, *, home: Home | None = None) -> StoredRun:
    """How the run `key` (or a unique beginning of it) stands in the store: the complete one, else the newest."""
    home = home or homes.find()
    whole = find(key, home=home)
    of_key = Store(home).runs(whole)
    return next((run for run in of_key if run.state in COMPLETE), of_key[0])


def artifact(key: str, name: str, *, home: Home | None = None) -> Path:
    """A local file with the artifact `name` (`readings.npz`, `weights.npz`) of the complete run `key`.

    Raises `SpecError` when there is no such run, or its file is gone.
    """
    store = Store(home or homes.find())
    known = store.runs()
    complete = _complete(known)
    if key not in complete:
        raise SpecError(_missing([key], 1, known, None))
    return store.artifact(complete[key], name)


def _complete(newest_first: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """The newest complete run of each key, in the order in which they were begun."""
    return {run.key: run for run in reversed(newest_first) if run.state in COMPLETE}


def _missing(missing: Sequence[str], wanted: int, known: Sequence[StoredRun], experiment: str | None) -> str:
    """What to say about runs that are not complete in the store."""
    newest = {run.key: run for run in reversed(known)}
    described = [f"{key} ({newest[key].name}, {newest[key].state})" if key in newest else key for key in missing]
    shown = ", ".join(described[:5]) + (f" and {len(described) - 5} more" if len(described) > 5 else "")
    experiments = {experiment} if experiment else {newest[key].experiment for key in missing if key in newest}
    sweeps = " and ".join(f"`rnnstudy sweep experiments/{name}.py`" for name in sorted(experiments))
    remedy = f"run {sweeps or 'the sweep that holds them'} first"
    if not missing:
        return f"the store has no complete run{f' of {experiment}' if experiment else ''}; {remedy}"
    return f"{len(missing)} of {wanted} runs are not complete in the store: {shown}; {remedy}"


def _from_file(path: Path) -> RunReadings:
    manifest = read_manifest(path)
    return RunReadings(
        header=manifest["run"],
        units={name: described["unit"] for name, described in manifest["series"].items()},
        series=partial(_fetched, path, manifest),
    )


def _fetched(path: Path, manifest: Mapping[str, Any], name: str) -> Series:
    return read_series(path, name, manifest)


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
