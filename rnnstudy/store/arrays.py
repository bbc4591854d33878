"""The array artifacts of a run: all its readings at full resolution, and its weights, in files that explain themselves.

`readings.npz` is a zip archive that `numpy.load` opens without pickle. Its member `manifest.json` says what the run was
and, for each series, its axes, unit, spacing and coordinates; `steps/<name>.npy` holds (moment) and `values/<name>.npy`
(moment, *axes) in float32.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.spec import SpecError
from rnnstudy.training.records import Series

READINGS = "readings.npz"
WEIGHTS = "weights.npz"
MANIFEST = "manifest.json"
FORMAT = 1


def write_readings(path: Path, run: Mapping[str, Any], series: Mapping[str, Series]) -> None:
    """Write all `series` of one run; `run` is what the manifest says about it. The file appears whole or not at all."""
    manifest = {
        "format": FORMAT,
        "run": run,
        "axes": {
            "quantile": QUANTILES,
            "time": "counts from 1",
            "lag": "counts from 0",
            "index": "counts from 0",
            "length": "coordinates",
        },
        "series": {
            name: {
                "axes": one.axes,
                "unit": one.unit,
                "spacing": one.spacing,
                "coordinates": {axis: list(places) for axis, places in one.coordinates.items()},
            }
            for name, one in series.items()
        },
    }
    arrays = {}
    for name, one in series.items():
        arrays[f"steps/{name}"] = np.asarray(one.steps, dtype=np.int64)
        arrays[f"values/{name}"] = np.asarray(one.values, dtype=np.float32)
    _write(path, arrays, {MANIFEST: json.dumps(manifest, indent=1)})


def read_manifest(path: Path) -> dict[str, Any]:
    """What `readings.npz` says about itself. Raises `SpecError` when the file is missing or is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
    except FileNotFoundError:
        raise SpecError(f"{path} is gone; `rnnstudy forget` its run and sweep again") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise SpecError(f"{path} is not an array file of rnnstudy ({error}); forget its run and sweep again") from None
    if manifest.get("format") != FORMAT:
        raise SpecError(f"{path} has format {manifest.get('format')}; this version of rnnstudy reads format {FORMAT}")
    return manifest


def read_series(path: Path, name: str, manifest: Mapping[str, Any]) -> Series:
    """One series of `readings.npz`, values in float32. `manifest` is what `read_manifest` gave for the same file."""
    described = manifest["series"][name]
    try:
        with np.load(path, allow_pickle=False) as archive:
            steps, values = archive[f"steps/{name}"], archive[f"values/{name}"]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise SpecError(f"{path} cannot be read ({error}); forget its run and sweep again") from None
    return Series(
        steps=steps,
        values=values,
        axes=tuple(described["axes"]),
        unit=described["unit"],
        spacing=described["spacing"],
        coordinates={axis: tuple(places) for axis, places in described["coordinates"].items()},
    )


def write_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write parameters under their names, in their own type. The file appears whole or not at all."""
    _write(path, weights, {})


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The parameters in `weights.npz` by name. Raises `SpecError` when the file cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise SpecError(f"{path} cannot be read ({error}); forget its run and sweep again") from None


def _write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    # ZipInfo's fixed date makes equal contents equal bytes.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, text in texts.items():
                archive.writestr(zipfile.ZipInfo(name), text)
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
