"""The array files of a run: all its readings at full resolution, and its weights, in self-describing files.

`readings.npz` is a zip archive that `numpy.load` opens without pickle. Its member `manifest.json` describes the run
and, for each series, its axes, unit, spacing and coordinates; `steps/<name>.npy` holds (moment) and `values/<name>.npy`
(moment, *axes) in float32.
"""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnstudy.errors import message_of, shown
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.store import foreign
from rnnstudy.store.errors import DamagedFile
from rnnstudy.training.atomic import replacing
from rnnstudy.training.records import Series

READINGS = "readings.npz"
WEIGHTS = "weights.npz"
MANIFEST = "manifest.json"
FORMAT = 1


def write_readings(path: Path, run: Mapping[str, Any], series: Mapping[str, Series]) -> None:
    """Write all `series` of one run, whole or not at all; `run` describes the run in the manifest."""
    manifest = {
        "format": FORMAT,
        "run": run,
        "axes": {
            "quantile": QUANTILES,
            "time": "counts from 1",
            "lag": "counts from 0",
            "age": "counts from 0",
            "index": "counts from 0",
            "length": "coordinates",
        },
        "series": {name: reading.labels for name, reading in series.items()},
    }
    arrays = {}
    for name, reading in series.items():
        arrays[f"steps/{name}"] = np.asarray(reading.steps, dtype=np.int64)
        arrays[f"values/{name}"] = np.asarray(reading.values, dtype=np.float32)
    _write(path, arrays, {MANIFEST: json.dumps(manifest, indent=1)})


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of `readings.npz`. Raises `DamagedFile` when the file is missing or is not one."""
    with _members(path) as archive:
        text = archive.read(MANIFEST)
    what = f"{path} is not an array file of rnnstudy"
    manifest = foreign.parsed(text, foreign.ReadingsShape, what)
    if manifest.get("format") != FORMAT:
        found = shown(manifest.get("format"))
        raise DamagedFile(f"{path} has format {found}; this version of rnnstudy reads format {FORMAT}")
    return manifest


def read_series(path: Path, name: str, manifest: Mapping[str, Any]) -> Series:
    """One series of `readings.npz`, values in float32; `manifest` is that of the same file. Raises `DamagedFile`."""
    with _members(path) as archive:
        steps, values = (_array(archive, f"{kind}/{name}") for kind in ("steps", "values"))
    return Series.labelled(manifest["series"][name], steps, values)


def check_readings(path: Path, key: str, most_steps: int) -> None:
    """Raises `DamagedFile` unless this is a whole `readings.npz` of the run `key`, which makes `most_steps` updates.

    The headers of its arrays are read, not the arrays.
    """
    series, run = (manifest := read_manifest(path))["series"], manifest["run"]
    with _members(path) as archive:
        if run["key"] != key:
            raise ValueError(f"it holds the readings of the run {run['key']}")
        expected = {MANIFEST, *(f"{kind}/{name}.npy" for name in series for kind in ("steps", "values"))}
        if expected != set(archive.namelist()):
            raise ValueError("its members are not those that its manifest lists")
        for name, labels in series.items():
            steps, values = (_header(archive, f"{kind}/{name}") for kind in ("steps", "values"))
            along = [labels["coordinates"].get(axis) for axis in labels["axes"]]
            axes = zip(along, values.shape[1:], strict=True)
            sound = values.shape[:1] == steps.shape and (steps.type.kind, values.type.kind) == ("i", "f")
            if not sound or steps.shape[0] > most_steps + 1 or any(one and len(one) != size for one, size in axes):
                raise ValueError(f"{name} has the shape {values.shape}, which does not belong to this run")


def check_weights(path: Path) -> None:
    """Raises `DamagedFile` unless all members are arrays of numbers. Their headers are read, not the arrays."""
    with _members(path) as archive:
        for name in archive.namelist():
            _header(archive, name.removesuffix(".npy"))


def write_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write parameters under their names, in their own type, whole or not at all."""
    _write(path, weights, {})


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The parameters in `weights.npz` by name. Raises `DamagedFile`."""
    with _members(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        return {name: _array(archive, name) for name in names}


class _Header(NamedTuple):
    """What the header of a stored array says, and where its numbers begin."""

    shape: tuple[int, ...]
    type: np.dtype[Any]
    in_columns: bool
    begin: int


def _header(archive: zipfile.ZipFile, name: str) -> _Header:
    """The header of the array `name`. Raises `ValueError` where the array needs more memory than its file has bytes."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, in_columns, kind = read(file)
        except Exception as error:
            # It is a Python literal, and Python's parser raises errors of many kinds for a text that is none.
            raise ValueError(f"{name} has a damaged header: {message_of(error)}") from None
        header = _Header(shape, kind, in_columns, file.tell())
    if kind.kind not in "biuf" or min(shape, default=0) < 0:
        raise ValueError(f"{name} holds no plain numbers")
    if math.prod(shape) * kind.itemsize != member.file_size - header.begin:
        raise ValueError(f"{name} should have the shape {shape}, which is not its size")
    return header


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    header = _header(archive, name)
    numbers = bytearray(archive.read(f"{name}.npy")[header.begin :])
    return np.frombuffer(numbers, header.type).reshape(header.shape, order="F" if header.in_columns else "C")


@contextmanager
def _members(path: Path) -> Iterator[zipfile.ZipFile]:
    """An array file, opened, whose members need no more memory than it has bytes: none of them is compressed.

    What reading a damaged file raises is raised again as a one-line `DamagedFile`.
    """
    again = "forget its run (`rnnstudy forget`) and sweep again"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.file_size != member.compress_size or member.compress_type for member in members):
                raise ValueError("its members are compressed")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("its members overlap")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("two members have the same name")
            yield archive
    except FileNotFoundError:
        raise DamagedFile(f"{path} is gone; {again}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        # The last three: a version, an encryption or an end that the module does not expect.
        raise DamagedFile(f"{path} is not an array file of rnnstudy ({error}); {again}") from None


def _write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    # ZipInfo's fixed date makes equal contents equal bytes.
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
