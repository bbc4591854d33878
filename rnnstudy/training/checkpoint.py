"""Checkpoints of a population: written atomically, read without running code from the file, sliceable by key."""

import io
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnstudy.run import Run
from rnnstudy.spec import RnnstudyError
from rnnstudy.training.atomic import write_all

FORMAT = 2

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError)
"""What torch.load, or reading a key of its result, raises for a file that is damaged or not a checkpoint."""


class CheckpointError(RnnstudyError):
    """A checkpoint that cannot be read, has another format, or lacks a run that was asked for."""


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
    try:
        state = _read(path)
        stored, known = state["keys"], state["format"] == FORMAT
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to train again"
        ) from None
    if not known:
        raise CheckpointError(f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}; delete it")
    missing = [key for key in keys if key not in stored]
    if missing:
        raise CheckpointError(f"{path} holds no run {', '.join(missing)}")
    positions = torch.tensor([stored.index(key) for key in keys])

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == len(stored):
            return value[positions]
        if isinstance(value, dict):
            return {name: cut(item) for name, item in value.items()}
        return value

    parts = {name: cut(state[name]) for name in ("replicas", "optimiser")}
    return {**state, **parts, "keys": list(keys), "positions": positions}


def checkpoint_keys(path: Path) -> tuple[str, ...]:
    """The keys of the runs in a checkpoint; empty when there is no readable file."""
    return tuple(_header(path).get("keys", ()))


def rename_damaged(path: Path | None) -> Path | None:
    """Rename a checkpoint that cannot be read, so that its population starts again; returns the new path, if any."""
    if path is None or not path.exists() or _header(path):
        return None
    return path.rename(path.with_name(f"{path.name}.damaged"))


def can_resume(path: Path, run: Run) -> bool:
    """Whether the checkpoint was made with the probes of `run`: otherwise its readings cannot be continued."""
    return _header(path).get("structure") == run.structure


def _header(path: Path) -> dict[str, Any]:
    try:
        return _read(path, mmap=True)
    except UNREADABLE:
        # `load_checkpoint` reports what is wrong with the file.
        return {}


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """The file's content, without running code from it."""
    with warnings.catch_warnings():
        # torch warns before it refuses a pickle that it did not write; the refusal is enough.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
