"""The results of a study in a few files that are committed with the source, so that a clone can redraw every figure.

A folder holds `manifest.json` (commits, experiment files, commands, keys), `runs.parquet` (one row for each run:
specification and outcome) and, for each experiment, `<experiment>.parquet` (one row for each series of each run). For
an experiment that searches there are also `<experiment>.trials.parquet` and `<experiment>.importances.parquet` (see
`SearchTrials`). The folder holds the series and quantiles that the reports used when it was written, each of them
complete: figures drawn from the folder have the same bytes as figures drawn from the store.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from typing_extensions import TypedDict

from rnnstudy.errors import RequestError, shown
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.results.parquet import parquet, read_parquet
from rnnstudy.results.results import Listener, Results, RunReadings
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.run import key_of, runs_in_words
from rnnstudy.store import foreign
from rnnstudy.store.errors import DamagedFile
from rnnstudy.training.atomic import write_all
from rnnstudy.training.records import Series

MANIFEST = "manifest.json"
RUNS = "runs.parquet"
FORMAT = 1

_EXPORTED_TAGS = ("rnnstudy.spec", "mlflow.source.git.commit")
"""The other tags tell of the machine, the process, and the hashes of the source."""

_SEARCH_TABLES = ("trials", "importances")

_RUNS = pa.schema(
    {name: pa.string() for name in ("key", "name", "experiment", "status")}
    | {"solved": pa.bool_(), "header": pa.string()}
)
_SERIES = pa.schema(
    {"key": pa.string(), "name": pa.string(), "unit": pa.string(), "spacing": pa.int32(), "coordinates": pa.string()}
    | {"steps": pa.list_(pa.int32()), "shape": pa.list_(pa.int32())}
    | {"values": pa.list_(pa.float32()), "axes": pa.list_(pa.string())}
)


@foreign.OPEN
class _FormatShape(TypedDict):
    format: int


@foreign.OPEN
class _EntryShape(TypedDict):
    command: foreign.Line
    commits: list[foreign.Line]
    keys: list[foreign.Key]


@foreign.OPEN
class _ManifestShape(TypedDict):
    experiments: dict[foreign.FileName, _EntryShape]


class ReadingRequest(NamedTuple):
    """One reading that a report used, in the runs `keys`; a quantile of None stands for all of them."""

    experiment: str
    name: str
    quantile: float | None
    keys: Sequence[str]


@dataclass(frozen=True)
class ExportedExperiment:
    """What a folder holds of one experiment; `command` is the one that launches its runs."""

    command: str
    results: Results
    searches: SearchTrials | None = None


_Wanted = dict[str, dict[tuple[str, str], set[float | None]]]
"""Experiment to (key, name of a reading) to quantiles (None: all of them)."""


def write_archive(
    folder: Path, studies: Mapping[str, ExportedExperiment], requests: Iterable[ReadingRequest], *, add: bool = False
) -> list[Path]:
    """Write the runs of `studies` (by experiment) with the requested readings. All files are written, or none.

    With `add`, what the folder holds already is kept: other experiments stay as they are, and for those in `studies`
    the readings stored earlier are written again. Otherwise the earlier contents are removed.

    Only files that an earlier export wrote are overwritten or removed. Returns the files written. Raises `DamagedFile`
    when there are earlier contents and they cannot be read, `RequestError` when another file has one of their names.
    """
    wanted: _Wanted = defaultdict(lambda: defaultdict(set))
    for request in requests:
        for key in request.keys:
            wanted[request.experiment][(key, request.name)].add(request.quantile)
    before = Archive.open(folder) if add and (folder / MANIFEST).is_file() else None
    others = {name: entry for name, entry in before.experiments.items() if name not in studies} if before else {}
    headers: dict[str, Mapping[str, Any]] = {}
    if before:
        headers |= {key: before.headers[key] for entry in others.values() for key in entry["keys"]}
        for experiment in studies.keys() & before.experiments.keys():
            _add_stored_readings(wanted, experiment, before)
    contents: dict[Path, bytes] = {}
    entries = dict(others)
    for experiment, exported in sorted(studies.items()):
        runs = {run.header["key"]: run for run in exported.results.per_run}
        for key, run in runs.items():
            tags = {name: value for name, value in run.header["tags"].items() if name in _EXPORTED_TAGS}
            headers[key] = {**run.header, "tags": tags}
        rows = [
            _row(key, name, _only(runs[key].series(name), quantiles))
            for (key, name), quantiles in sorted(wanted[experiment].items())
            if key in runs and name in runs[key].units
        ]
        contents[folder / f"{experiment}.parquet"] = parquet(pa.Table.from_pylist(rows, schema=_SERIES))
        if exported.searches is not None:
            for name in _SEARCH_TABLES:
                table = pa.Table.from_pandas(getattr(exported.searches, name), preserve_index=False)
                # Without the metadata that pandas would add about itself.
                contents[folder / f"{experiment}.{name}.parquet"] = parquet(table.replace_schema_metadata(None))
        entries[experiment] = {
            "file": f"experiments/{experiment}.py",
            "command": exported.command,
            "commits": sorted({headers[key]["tags"].get("mlflow.source.git.commit", "") for key in runs} - {""}),
            "keys": sorted(runs),
        }
    runs_table = pa.Table.from_pylist([_run_row(headers[key]) for key in sorted(headers)], schema=_RUNS)
    contents[folder / RUNS] = parquet(runs_table)
    manifest = {
        "format": FORMAT,
        "written by": "rnnstudy report --export DIR",
        "redrawn by": "rnnstudy report --from DIR, this folder",
        "experiments": dict(sorted(entries.items())),
    }
    contents[folder / MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    own = require_own_files(folder, studies)
    written = write_all(contents)
    for name in own - {path.name for path in contents} - _files_of(others):
        (folder / name).unlink(missing_ok=True)
    return written


def require_own_files(folder: Path, experiments: Iterable[str]) -> set[str]:
    """The names of the files that an earlier export wrote into `folder`, as its manifest lists them.

    Raises `RequestError` when an export of `experiments` would overwrite another file, and `DamagedFile` when the
    manifest cannot be read.
    """
    own = _files_of(_manifest(folder)["experiments"]) if (folder / MANIFEST).exists() else set()
    for name in sorted(_files_of(experiments) - own):
        if os.path.lexists(folder / name):
            raise RequestError(f"{folder / name} was not written by an export; name another folder, or move it away")
    return own


def _files_of(experiments: Iterable[str]) -> set[str]:
    """The names of the files that a folder may hold with these experiments."""
    tables = {f"{one}.{name}" for one in experiments for name in ("parquet", *(f"{s}.parquet" for s in _SEARCH_TABLES))}
    return {MANIFEST, RUNS, *tables}


def _add_stored_readings(wanted: _Wanted, experiment: str, before: "Archive") -> None:
    """Add the readings of an experiment that the folder holds already: another report uses them."""
    for row in before.table(experiment).to_dict("records"):
        quantiles: Sequence[float] = json.loads(row["coordinates"]).get("quantile", QUANTILES)
        some = quantiles if len(quantiles) < len(QUANTILES) else [None]
        wanted[experiment][(row["key"], row["name"])].update(some)


@dataclass(frozen=True)
class Archive(ResultsSource):
    """Results read from a folder that `write_archive` wrote.

    Attributes:
        folder: its path.
        experiments: name to command, commits and keys.
        headers: key to the description and outcome of the run.
    """

    folder: Path
    experiments: Mapping[str, Mapping[str, Any]]
    headers: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def open(folder: Path) -> "Archive":
        """Raises `RequestError` when the folder holds no results, and `DamagedFile` when it cannot be read.

        The folder may come from other people: everything but the tables of readings is checked here, and each of those
        when it is read.
        """
        try:
            experiments = _manifest(folder)["experiments"]
            table = read_parquet(folder, RUNS, _RUNS.equals)
        except FileNotFoundError as error:
            raise RequestError(
                f"{folder} holds no results of a study ({Path(error.filename or MANIFEST).name} is not there); "
                "`rnnstudy report --export DIR` writes such a folder"
            ) from None
        headers = {}
        for number, text in enumerate(table["header"], 1):
            what = f"{folder / RUNS}, row {number} is damaged"
            header = foreign.parsed(text or "", foreign.HeaderShape, what)
            specification = foreign.parsed(
                header["tags"].get("rnnstudy.spec", ""), foreign.SpecificationShape, f"{what}: its specification"
            )
            if key_of(specification) != header["key"]:
                raise DamagedFile(f"{what}: its key {header['key']} is not the hash of its specification")
            headers[header["key"]] = header
        if absent := {key for entry in experiments.values() for key in entry["keys"]} - headers.keys():
            raise DamagedFile(f"{folder / MANIFEST} lists {runs_in_words(len(absent))} that {RUNS} does not hold")
        return Archive(folder, experiments, headers)

    def complete_keys(self) -> dict[str, str]:
        return {key: header["experiment"] for key, header in self.headers.items()}

    def load(
        self, keys: Iterable[str] | None = None, *, experiment: str | None = None, listener: Listener | None = None
    ) -> Results:
        if keys is None:
            keys = list(self.headers if experiment is None else self._entry(experiment)["keys"])
        wanted = list(keys)
        missing = [key for key in wanted if key not in self.headers]
        if missing:
            raise MissingRuns(
                f"{len(missing)} of {len(wanted)} runs are not in {self.folder}: {', '.join(missing[:5])}"
            )
        series: dict[str, dict[str, Series]] = defaultdict(dict)
        # Runs may belong to an experiment that the folder does not name: they were exported for another one.
        for name in [experiment] if experiment in self.experiments else self.experiments:
            for row in self.table(name).to_dict("records"):
                what = f"{self.folder / name}.parquet: {shown(row['name'])} of run {shown(row['key'])} is damaged"
                series[row["key"]][row["name"]] = _series(row, what)
        return Results([RunReadings.of(self.headers[key], series[key]) for key in wanted], listener)

    def search_trials(self, experiment: str, scale: str) -> SearchTrials:
        self._entry(experiment)
        trials = self.table(f"{experiment}.trials", _is_trials)
        importances = self.table(f"{experiment}.importances", _is_importances)
        if trials[["study", "keys", "fresh"]].isna().any(axis=None) or importances["study"].isna().any():
            raise DamagedFile(f"{self.folder / experiment}.trials.parquet has rows without a study")
        return SearchTrials(trials, importances).of_study(f"{experiment}/{scale}")

    def _entry(self, experiment: str) -> Mapping[str, Any]:
        """What the manifest says about an experiment. Raises `MissingRuns` when the folder has no run of it."""
        if experiment not in self.experiments:
            there = ", ".join(sorted(self.experiments)) or "nothing"
            raise MissingRuns(
                f"{self.folder} holds no run of {experiment} (it holds: {there}); "
                f"run `rnnstudy sweep experiments/{experiment}.py`, and report without --from"
            )
        return self.experiments[experiment]

    def table(
        self, name: str, expected: Callable[[pa.Schema], bool] = lambda found: found.equals(_SERIES)
    ) -> pd.DataFrame:
        """The table in `name`.parquet. Raises `DamagedFile` when the file cannot be read."""
        try:
            return read_parquet(self.folder, f"{name}.parquet", expected)
        except FileNotFoundError:
            path = self.folder / f"{name}.parquet"
            raise DamagedFile(f"{path} cannot be read (it is gone); restore it, or export it again") from None


def _manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a folder. Raises `FileNotFoundError` where there is none, `DamagedFile` for a damaged one."""
    path = foreign.regular_file(folder, MANIFEST, foreign.LARGEST_DOCUMENT)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read ({error.strerror}); restore it, or export it again") from None
    version = foreign.parsed(text, _FormatShape, f"{folder} cannot be read")["format"]
    if version != FORMAT:
        raise DamagedFile(f"{folder} has format {version}; this version reads format {FORMAT}")
    return foreign.parsed(text, _ManifestShape, f"{path} cannot be read")


def _is_trials(found: pa.Schema) -> bool:
    kinds = {name: str(found.field(name).type) for name in found.names}
    texts = {kinds.get(name, "").removeprefix("large_") for name in ("study", "state", "keys", "fresh")}
    return texts == {"string"} and kinds.get("trial") == "int64" and kinds.get("value") == "double"


def _is_importances(found: pa.Schema) -> bool:
    kinds = [str(kind).removeprefix("large_") for kind in found.types]
    return (found.names, kinds) == (["study", "parameter", "importance"], ["string", "string", "double"])


def _run_row(header: Mapping[str, Any]) -> dict[str, Any]:
    """A few plain columns for readers of the file, and the whole header as JSON."""
    described = {name: header[name] for name in ("key", "name", "experiment")}
    outcome = {name: header["outcome"][name] for name in ("status", "solved")}
    return described | outcome | {"header": json.dumps(header)}


def _only(series: Series, quantiles: set[float | None]) -> Series:
    """A series with the requested quantiles only; None stands for all."""
    if "quantile" not in series.axes or None in quantiles:
        return series
    axis, stored = 1 + series.axes.index("quantile"), series.coordinates.get("quantile", QUANTILES)
    positions = sorted(stored.index(quantile) for quantile in quantiles if quantile is not None)
    coordinates = {**series.coordinates, "quantile": tuple(stored[position] for position in positions)}
    return replace(series, values=np.take(series.values, positions, axis=axis), coordinates=coordinates)


def _row(key: str, name: str, series: Series) -> dict[str, Any]:
    return {
        **{"key": key, "name": name, "unit": series.unit, "spacing": series.spacing, "axes": list(series.axes)},
        "coordinates": json.dumps({axis: list(along) for axis, along in series.coordinates.items()}),
        "steps": np.asarray(series.steps, dtype=np.int32),
        "shape": np.asarray(series.values.shape, dtype=np.int32),
        "values": np.asarray(series.values, dtype=np.float32).ravel(),
    }


def _series(row: Mapping[str, Any], what: str) -> Series:
    """The series of a row. Raises `DamagedFile`, which begins with `what`, when its parts do not belong together."""
    try:
        labels = {"unit": row["unit"], "spacing": int(row["spacing"]), "axes": list(row["axes"])}
        known = foreign.parsed(row["coordinates"] or "", dict[foreign.Line, list[foreign.Number]], what)
        steps = np.asarray(row["steps"], dtype=np.int64)
        values = np.asarray(row["values"], dtype=np.float32).reshape(tuple(row["shape"]))
        series = Series.labelled({**labels, "coordinates": known}, steps, values)
        lengths = [
            len(known[axis]) if axis in known else size
            for axis, size in zip(series.axes, values.shape[1:], strict=True)
        ]
        sound = lengths == list(values.shape[1:]) and values.shape[:1] == steps.shape
        sound = sound and all(isinstance(text, str) for text in (row["key"], row["name"], series.unit, *series.axes))
    except (ValueError, TypeError, OverflowError) as error:
        raise DamagedFile(f"{what} ({error})") from None
    if not sound:
        raise DamagedFile(f"{what} (its shape {values.shape} does not belong to its steps and coordinates)")
    return series
