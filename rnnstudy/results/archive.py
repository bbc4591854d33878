"""The results of a study in a few files that are kept beside the source, so that a clone redraws every figure.

A folder holds `manifest.json` (commits, experiment files, commands, keys), `runs.parquet` (one row for each run: what
it was and how it ended) and, for each experiment, `<experiment>.parquet` (one row for each series of each run); where
it searches, also `<experiment>.trials.parquet` and `<experiment>.importances.parquet` (see `rnnstudy.search.trials`). A
series is there if a report asked for it when the folder was written, with the quantiles that were asked for, and at
every moment and place: what is drawn from the folder has the same bytes as what is drawn from the store.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.results.results import Listener, Results, RunReadings
from rnnstudy.search.trials import SearchTrials
from rnnstudy.spec import SpecError
from rnnstudy.store.atomic import write_all
from rnnstudy.training.records import Series

if TYPE_CHECKING:
    import pyarrow as pa


MANIFEST = "manifest.json"
RUNS = "runs.parquet"
FORMAT = 1

_TAGS_KEPT = ("rnnstudy.spec", "mlflow.source.git.commit")


@dataclass(frozen=True)
class ReadingRequest:
    """One reading that a report asked for.

    Attributes:
        experiment: of the study.
        name: of the reading.
        quantile: which one, or None for all of them.
        keys: of which runs.
    """

    experiment: str
    name: str
    quantile: float | None
    keys: tuple[str, ...]


@dataclass(frozen=True)
class ExportedExperiment:
    """The runs of one experiment that a folder holds.

    Attributes:
        command: what launches them.
        results: what they are read from.
        searched: how its searches went, where it searches.
    """

    command: str
    results: Results
    searched: SearchTrials | None = None


_Wanted = dict[str, dict[tuple[str, str], set[float | None]]]
"""Experiment to (key, name of a reading) to quantiles."""


def write_archive(
    folder: Path, studies: Mapping[str, ExportedExperiment], asked: Iterable[ReadingRequest], *, add: bool = False
) -> list[Path]:
    """Write the runs of `studies` (by experiment) with the readings that were `asked` for. All files appear, or none.

    Args:
        folder: where to.
        studies: the runs of each experiment.
        asked: which of their readings to keep.
        add: to what the folder holds: other experiments stay as they are, and of those in `studies` the readings that
            were asked for earlier are written again. Otherwise what was there before goes.

    Returns the files written. Raises `SpecError` when there is something to add to and it cannot be read.
    """
    wanted: _Wanted = defaultdict(lambda: defaultdict(set))
    for one in asked:
        for key in one.keys:
            wanted[one.experiment][(key, one.name)].add(one.quantile)
    before = Archive.open(folder) if add and (folder / MANIFEST).is_file() else None
    others = {name: told for name, told in before.experiments.items() if name not in studies} if before else {}
    headers: dict[str, Mapping[str, Any]] = {}
    if before:
        headers |= {key: before.headers[key] for told in others.values() for key in told["keys"]}
        for experiment in studies.keys() & before.experiments.keys():
            _want_again(wanted, experiment, before)
    contents: dict[Path, bytes] = {}
    described = dict(others)
    for experiment, kept in sorted(studies.items()):
        sources = {source.header["key"]: source for source in kept.results.sources}
        headers |= {key: _shortened(source.header) for key, source in sources.items()}
        rows = [
            _row(key, name, _only(sources[key].series(name), quantiles))
            for (key, name), quantiles in sorted(wanted[experiment].items())
            if key in sources and name in sources[key].units
        ]
        contents[folder / f"{experiment}.parquet"] = _parquet(rows, _SERIES)
        if kept.searched is not None:
            contents[folder / f"{experiment}.trials.parquet"] = _plain_parquet(kept.searched.trials)
            contents[folder / f"{experiment}.importances.parquet"] = _plain_parquet(kept.searched.importances)
        described[experiment] = {
            "file": f"experiments/{experiment}.py",
            "command": kept.command,
            "commits": sorted({headers[key]["tags"].get("mlflow.source.git.commit", "") for key in sources} - {""}),
            "keys": sorted(sources),
        }
    contents[folder / RUNS] = _parquet([_run_row(headers[key]) for key in sorted(headers)], None)
    manifest = {
        "format": FORMAT,
        "written by": "rnnstudy report --export DIR",
        "redrawn by": "rnnstudy report --from DIR, this folder",
        "experiments": dict(sorted(described.items())),
    }
    contents[folder / MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    written = write_all(contents)
    for path in folder.glob("*.parquet"):
        if path not in contents and path.name.partition(".")[0] not in others:
            path.unlink()
    return written


def _want_again(wanted: _Wanted, experiment: str, before: "Archive") -> None:
    """Ask once more for the readings of an experiment that the folder holds: another report asked for them."""
    for row in before.table(experiment).to_dict("records"):
        quantiles: Sequence[float] = json.loads(row["coordinates"]).get("quantile", QUANTILES)
        some = quantiles if len(quantiles) < len(QUANTILES) else [None]
        wanted[experiment][(row["key"], row["name"])].update(some)


@dataclass(frozen=True)
class Archive:
    """A folder that `write` wrote, opened.

    Attributes:
        folder: where it lies.
        experiments: name to its command, commits and keys.
        headers: key to what is said about the run.
    """

    folder: Path
    experiments: Mapping[str, Mapping[str, Any]]
    headers: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def open(folder: Path) -> "Archive":
        """Raises `SpecError` when the folder is none, or of another format."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            table = pd.read_parquet(folder / RUNS) if manifest.get("format") == FORMAT else pd.DataFrame()
        except FileNotFoundError as error:
            raise SpecError(
                f"{folder} holds no results of a study ({Path(error.filename or MANIFEST).name} is not there); "
                "`rnnstudy report --export DIR` writes such a folder"
            ) from None
        except (ValueError, OSError) as error:
            raise SpecError(f"{folder} cannot be read ({error}); restore it, or export it again") from None
        if manifest.get("format") != FORMAT:
            raise SpecError(f"{folder} has format {manifest.get('format')}; this version reads format {FORMAT}")
        headers = {key: json.loads(text) for key, text in zip(table["key"], table["header"], strict=True)}
        return Archive(folder, manifest["experiments"], headers)

    def keys(self, experiment: str | None = None) -> list[str]:
        """Of an experiment, or all. Raises `SpecError` when the folder has no run of it."""
        if experiment is None:
            return list(self.headers)
        if experiment not in self.experiments:
            there = ", ".join(sorted(self.experiments)) or "nothing"
            raise SpecError(
                f"{self.folder} holds no run of {experiment} (it holds: {there}); "
                f"run `rnnstudy sweep experiments/{experiment}.py`, and report without --from"
            )
        return list(self.experiments[experiment]["keys"])

    def load(
        self, experiment: str | None = None, keys: Sequence[str] | None = None, asked: Listener | None = None
    ) -> Results:
        """The runs `keys`, or all of an experiment, or all, in the form that every figure takes."""
        wanted = self.keys(experiment) if keys is None else list(keys)
        missing = [key for key in wanted if key not in self.headers]
        if missing:
            raise SpecError(f"{len(missing)} of {len(wanted)} runs are not in {self.folder}: {', '.join(missing[:5])}")
        series: dict[str, dict[str, Series]] = defaultdict(dict)
        for name in self.experiments if experiment is None else [experiment]:
            for row in self.table(name).to_dict("records"):
                series[row["key"]][row["name"]] = _series(row)
        return Results(
            [
                RunReadings(
                    header=self.headers[key],
                    units={name: one.unit for name, one in series[key].items()},
                    series=series[key].__getitem__,
                )
                for key in wanted
            ],
            asked,
        )

    def searched(self, experiment: str) -> SearchTrials:
        """How the searches of an experiment went. Raises `SpecError` when the folder has no run of it."""
        self.keys(experiment)
        return SearchTrials(self.table(f"{experiment}.trials"), self.table(f"{experiment}.importances"))

    def table(self, experiment: str) -> pd.DataFrame:
        """What the folder keeps of an experiment, as it is in the file."""
        path = self.folder / f"{experiment}.parquet"
        try:
            return pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise SpecError(f"{path} cannot be read ({error}); restore it, or export it again") from None


def _shortened(header: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept about a run: not the machine, the process, nor the source's hashes."""
    tags = {name: value for name, value in header["tags"].items() if name in _TAGS_KEPT}
    return {**header, "tags": tags}


def _run_row(header: Mapping[str, Any]) -> dict[str, Any]:
    """Plain columns for whoever opens the file, beside the whole header as JSON."""
    outcome = header["outcome"]
    return {
        "key": header["key"],
        "name": header["name"],
        "experiment": header["experiment"],
        "status": outcome["status"],
        "solved": outcome["solved"],
        "header": json.dumps(header, sort_keys=False),
    }


def _only(series: Series, quantiles: set[float | None]) -> Series:
    """The quantiles that were asked for; all where someone asked for all."""
    if "quantile" not in series.axes or None in quantiles:
        return series
    axis = 1 + series.axes.index("quantile")
    places = sorted(QUANTILES.index(one) for one in quantiles if one is not None)
    coordinates = {**series.coordinates, "quantile": tuple(QUANTILES[place] for place in places)}
    return replace(series, values=np.take(series.values, places, axis=axis), coordinates=coordinates)


_SERIES = {"steps": "list<int32>", "shape": "list<int32>", "values": "list<float32>", "axes": "list<string>"}


def _row(key: str, name: str, series: Series) -> dict[str, Any]:
    return {
        "key": key,
        "name": name,
        "unit": series.unit,
        "spacing": series.spacing,
        "axes": list(series.axes),
        "coordinates": json.dumps({axis: list(places) for axis, places in series.coordinates.items()}),
        "steps": np.asarray(series.steps, dtype=np.int32),
        "shape": np.asarray(series.values.shape, dtype=np.int32),
        "values": np.asarray(series.values, dtype=np.float32).ravel(),
    }


def _series(row: Mapping[str, Any]) -> Series:
    return Series(
        steps=np.asarray(row["steps"], dtype=np.int64),
        values=np.asarray(row["values"], dtype=np.float32).reshape(tuple(row["shape"])),
        axes=tuple(row["axes"]),
        unit=row["unit"],
        spacing=int(row["spacing"]),
        coordinates={axis: tuple(places) for axis, places in json.loads(row["coordinates"]).items()},
    )


def _plain_parquet(table: pd.DataFrame) -> bytes:
    """A table as it is; without what pandas would add about itself."""
    import pyarrow as pa

    return _file(pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None))


def _parquet(rows: Sequence[Mapping[str, Any]], lists: Mapping[str, str] | None) -> bytes:
    """Rows as a Parquet file; the same rows give the same bytes."""
    import pyarrow as pa

    texts = pa.string()
    if lists is None:
        schema = pa.schema([(name, texts) for name in ("key", "name", "experiment", "status")])
        schema = schema.append(pa.field("solved", pa.bool_())).append(pa.field("header", texts))
    else:
        kinds = {"list<int32>": pa.int32(), "list<float32>": pa.float32(), "list<string>": texts}
        schema = pa.schema(
            [("key", texts), ("name", texts), ("unit", texts), ("spacing", pa.int32()), ("coordinates", texts)]
            + [(name, pa.list_(kinds[kind])) for name, kind in lists.items()]
        )
    return _file(pa.Table.from_pylist(list(rows), schema=schema))


def _file(table: "pa.Table") -> bytes:
    import pyarrow.parquet as pq

    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=9)
    return buffer.getvalue()
