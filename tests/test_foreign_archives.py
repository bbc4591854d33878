"""Folders of results of other people: checked whole, read within bounds; an export touches its own files alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnstudy.cells import Elman
from rnnstudy.probes import GradientThroughTime
from rnnstudy.results import Results, from_records, load
from rnnstudy.results.archive import ExportedExperiment, ReadingRequest, write_archive
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store.errors import DamagedFile
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train


@pytest.fixture(scope="module")
def results() -> Results:
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=2, sequences=3),)
    run = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=probes)
    return from_records(train(run, device="cpu", engine="reference"), [run])


def export(results: Results, folder: Path, name: str = "toy", add: bool = False) -> None:
    asked = [ReadingRequest(name, reading, None, tuple(results.runs.index)) for reading in results.names]
    write_archive(folder, {name: ExportedExperiment(f"rnnstudy sweep experiments/{name}.py", results)}, asked, add=add)


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    export(results, tmp_path / "data")
    return tmp_path / "data"


def in_manifest(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        change(content)
        (folder / "manifest.json").write_text(json.dumps(content))

    return spoil


def in_rows(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change each row of a table."""

    def spoil(folder: Path) -> None:
        table = pq.read_table(folder / name)
        rows = table.to_pylist()
        for row in rows:
            change(row)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / name)

    return spoil


def in_header(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(row: dict[str, Any]) -> None:
        header = json.loads(row["header"])
        change(header)
        row["header"] = json.dumps(header)

    return in_rows("runs.parquet", spoil)


def holding(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def linked(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return spoil


def bomb(folder: Path) -> None:
    """A file of some thousand bytes that needs 80 MB."""
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10**6, np.float32)), 10**6).cast(pa.list_(pa.float32()))
    schema = pq.read_schema(folder / "toy.parquet")
    with pq.ParquetWriter(folder / "toy.parquet", schema, compression="zstd") as writer:
        columns = {"values": zeros}
        row = [columns.get(name, pa.nulls(1, schema.field(name).type)) for name in schema.names]
        for _ in range(20):
            writer.write_batch(pa.record_batch(row, schema=schema))


SPOILT = {
    "the manifest is a number": (holding("manifest.json", b"3"), "should be an object"),
    "the manifest is half a file": (holding("manifest.json", b'{"format": 1, '), "Invalid JSON"),
    "the manifest nests deeply": (holding("manifest.json", b"[" * 10**5), "recursion limit"),
    "the manifest is of another encoding": (holding("manifest.json", '{"é": 1}'.encode("utf-16")), "Invalid JSON"),
    "experiments are a list": (in_manifest(lambda content: content.update(experiments=[])), "should be an object"),
    "an experiment that is a path": (
        in_manifest(lambda content: content.update(experiments={"../x": content["experiments"]["toy"]})),
        "a text of another form",
    ),
    "keys that are no keys": (
        in_manifest(lambda content: content["experiments"]["toy"].update(keys=["<script>"])),
        "a text of another form",
    ),
    "keys of no run": (
        in_manifest(lambda content: content["experiments"]["toy"].update(keys=["0" * 12])),
        "lists 1 run that runs.parquet does not hold",
    ),
    "the manifest is a link": (linked("manifest.json"), "is not a regular file"),
    "the runs are a link": (linked("runs.parquet"), "is not a regular file"),
    "the readings are a link": (linked("toy.parquet"), "is not a regular file"),
    "the runs are no table": (holding("runs.parquet", b"PAR1"), "cannot be read"),
    "the readings are no table": (holding("toy.parquet", b""), "cannot be read"),
    "runs with other columns": (
        lambda folder: pd.DataFrame({"key": ["x"]}).to_parquet(folder / "runs.parquet"),
        "has other columns",
    ),
    "a header that is no JSON": (in_rows("runs.parquet", lambda row: row.update(header="{")), "row 1 is damaged"),
    "a header that is missing": (in_rows("runs.parquet", lambda row: row.update(header=None)), "row 1 is damaged"),
    "a status that is a script": (
        in_header(lambda header: header["outcome"].update(status="<script>alert(1)</script>")),
        "Input should be 'finished'",
    ),
    "a width that is a text": (in_header(lambda header: header["parameters"].update(width="wide")), "valid integer"),
    "a parameter that is a mapping": (
        in_header(lambda header: header["parameters"].update(more={})),
        "row 1 is damaged",
    ),
    "a summary that is a text": (in_header(lambda header: header["summary"].update(error="x")), "valid number"),
    "a name with escape sequences": (in_header(lambda header: header.update(name="\x1b[2J")), "a text of another form"),
    "another run's specification": (
        in_header(lambda header: header["tags"].update({"rnnstudy.spec": '{"class": "os:system", "fields": {}}'})),
        "is not the hash of its specification",
    ),
    "a shape beyond the values": (in_rows("toy.parquet", lambda row: row.update(shape=[10**9, 10**9])), "is damaged"),
    "a negative shape": (in_rows("toy.parquet", lambda row: row.update(shape=[-1, -1, -1])), "is damaged"),
    "axes of another number": (in_rows("toy.parquet", lambda row: row.update(axes=["lag"] * 9)), "is damaged"),
    "coordinates that are a list": (in_rows("toy.parquet", lambda row: row.update(coordinates="[]")), "is damaged"),
    "missing steps": (in_rows("toy.parquet", lambda row: row.update(steps=None)), "is damaged"),
    "no unit": (in_rows("toy.parquet", lambda row: row.update(unit=None)), "is damaged"),
    "a bomb": (bomb, "would need"),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_folder_is_refused_in_one_line(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(folder)
    with pytest.raises(RnnstudyError) as caught:
        load(experiment="toy", archive=folder)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


FOREIGN = ("notes.parquet", "toy.parquet", "manifest.json", "toy.trials.parquet")


@pytest.mark.parametrize("name", FOREIGN[1:])
def test_an_export_overwrites_no_file_that_is_not_its_own(results: Results, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises((RequestError, DamagedFile)):
        export(results, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "{}"}


def test_an_export_removes_what_its_manifest_lists_and_nothing_else(results: Results, folder: Path) -> None:
    for name in ("notes.parquet", "notes.txt", "toy.notes.parquet"):
        (folder / name).write_text("mine")
    export(results, folder, "other", add=True)
    assert {"toy.parquet", "other.parquet"} <= {path.name for path in folder.iterdir()}
    export(results, folder, "other")
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "runs.parquet", "other.parquet", "notes.parquet", "notes.txt", "toy.notes.parquet",
    }  # fmt: skip
    assert all((folder / name).read_text() == "mine" for name in ("notes.parquet", "notes.txt", "toy.notes.parquet"))
