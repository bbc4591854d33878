"""The array files of a run: all its readings at full resolution, and its weights, in self-describing files.

`readings.npz` is a zip archive that `numpy.load` opens without pickle. Its member `manifest.json` describes the run
and, for each series, its axes, unit, spacing and coordinates; `steps/<name>.npy` holds (moment) and `values/<name>.npy`
(moment, *axes) in float32.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rnnstudy.probes.reading import QUANTILES
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
    with _as_damaged_file(path), zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    if manifest.get("format") != FORMAT:
        raise DamagedFile(f"{path} has format {manifest.get('format')}; this version of rnnstudy reads format {FORMAT}")
    return manifest


def read_series(path: Path, name: str, manifest: Mapping[str, Any]) -> Series:
    """One series of `readings.npz`, values in float32; `manifest` is that of the same file. Raises `DamagedFile`."""
    labels = manifest["series"][name]
    with _as_damaged_file(path), np.load(path, allow_pickle=False) as archive:
        steps, values = archive[f"steps/{name}"], archive[f"values/{name}"]
    return Series.labelled(labels, steps, values)


def write_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write parameters under their names, in their own type, whole or not at all."""
    _write(path, weights, {})


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The parameters in `weights.npz` by name. Raises `DamagedFile`."""
    with _as_damaged_file(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    # ZipInfo's fixed date makes equal contents equal bytes.
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


@contextmanager
def _as_damaged_file(path: Path) -> Iterator[None]:
    """Re-raise what reading a damaged file raises as a one-line `DamagedFile`."""
    again = "forget its run (`rnnstudy forget`) and sweep again"
    try:
        yield
    except FileNotFoundError:
        raise DamagedFile(f"{path} is gone; {again}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DamagedFile(f"{path} is not an array file of rnnstudy ({error}); {again}") from None
