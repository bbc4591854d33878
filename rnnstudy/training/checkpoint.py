"""Checkpoints of a population: written atomically, checked by checksum, read without running code from the file,
sliceable by key.

A checkpoint is the zip archive that torch writes. It holds a CRC-32 of everything in it, which torch does not check.
"""

import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnstudy.errors import RnnstudyError, shown
from rnnstudy.run import Run
from rnnstudy.training.atomic import write_all

FORMAT = 2

CONTENT = {
    **{"step": int, "complete": bool, "handed_on": int, "seconds": float, "seconds_each": float},
    **dict.fromkeys(("replicas", "optimiser", "history"), dict),
}
"""What every checkpoint holds, beside its format and keys."""


class CheckpointError(RnnstudyError):
    """A checkpoint that cannot be read, has another format, or lacks a run that was asked for.

    Attributes:
        unusable: the file, where it is of no use for any run; None where it only lacks the runs that were asked for.
    """

    def __init__(self, message: str, unusable: Path | None = None) -> None:
        super().__init__(message)
        self.unusable = unusable


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` atomically: at any moment the file is either the complete old one or the complete new one."""
    # First into memory: on a full disk, torch's own writer raises something else than OSError.
    content = io.BytesIO()
    torch.save({"format": FORMAT, **state}, content)
    write_all({path: content.getbuffer()}, durable=True)


def load_checkpoint(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The part of the checkpoint at `path` that belongs to `keys`, in their order.

    Every tensor under `replicas` and `optimiser` whose leading axis is as long as the population is cut to those keys;
    `positions` holds where the keys are in the whole. Raises `CheckpointError` when the file is damaged, has another
    format or lacks a key.
    """
    state = _read(path)
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {shown(state['format'])}, this version reads {FORMAT}; delete it", path
        )
    stored = state["keys"]
    if not isinstance(stored, list):
        raise incomplete(path, "its keys are no list")
    missing = [key for key in keys if key not in stored]
    if missing:
        raise CheckpointError(f"{path} holds no run {', '.join(missing)}")
    for name, kind in CONTENT.items():
        if not isinstance(state.get(name), kind):
            raise incomplete(path, f"its {name} is no {kind.__name__}")
    positions = torch.tensor([stored.index(key) for key in keys])

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == len(stored):
            return value[positions]
        if isinstance(value, dict):
            return {name: cut(item) for name, item in value.items()}
        return value

    parts = {name: cut(state[name]) for name in ("replicas", "optimiser")}
    return {**state, **parts, "keys": list(keys), "positions": positions}


def incomplete(path: Path, what: str) -> CheckpointError:
    """The error for a sound file whose content does not continue a training."""
    return CheckpointError(f"{path} is not a complete checkpoint ({what}); delete it to train again", path)


def require_form(found: Any, expected: Any, what: str) -> None:
    """Raises `ValueError` unless `found` has the entries of `expected`, each of the same type, tensors of the same
    shape: another file's numbers would end the training in its middle, or never."""
    if isinstance(expected, Mapping):
        sound = isinstance(found, Mapping) and found.keys() == expected.keys()
    elif isinstance(expected, Tensor):
        sound = isinstance(found, Tensor) and (found.shape, found.dtype) == (expected.shape, expected.dtype)
    else:
        sound = type(found) is type(expected)
    if not sound:
        raise ValueError(f"its {what} have other shapes, types or names")
    for name, part in expected.items() if isinstance(expected, Mapping) else ():
        require_form(found[name], part, what)


def checkpoint_keys(path: Path) -> tuple[str, ...]:
    """The keys of the runs in a checkpoint; empty when there is no readable file."""
    keys = _header(path).get("keys")
    return tuple(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else ()


def can_resume(path: Path, run: Run) -> bool:
    """Whether the checkpoint was made with the probes of `run`: otherwise its readings cannot be continued."""
    return _header(path).get("structure") == run.structure


def _header(path: Path) -> dict[str, Any]:
    """The content of a checkpoint whose numbers are neither read nor checked; empty when it cannot be read."""
    try:
        return _read(path, whole=False)
    except CheckpointError:
        # `load_checkpoint` reports what is wrong with the file.
        return {}


def _read(path: Path, whole: bool = True) -> dict[str, Any]:
    """The file's content, without running code from it. Raises `CheckpointError` when it is damaged.

    Not the `whole`: numbers are neither read nor checked, since they are mapped into memory, not loaded.
    """
    try:
        _check(path, whole)
        with warnings.catch_warnings():
            # torch warns before it refuses a pickle that it did not write; the refusal is enough.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, weights_only=True, map_location="cpu", mmap=not whole)
        _ = state["format"], state["keys"]
    except MemoryError:
        raise
    except Exception as error:
        # zipfile, torch and its unpickler raise errors of many kinds for a file that is damaged or none of theirs.
        reason = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({reason}); delete it to train again", path
        ) from None
    return state


def _check(path: Path, whole: bool) -> None:
    """Raises `zipfile.BadZipFile` when a checksum is wrong: of anything, or only of what is not numbers."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            # In reading a part to its end, its checksum is compared.
            with archive.open(name) as part:
                while (whole or name.endswith("/data.pkl")) and part.read(2**20):
                    pass
