"""Checkpoints of a population: written atomically, read without running code from the file, sliceable by key."""

import io
import os
import pickle
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnstudy.run import Run
from rnnstudy.spec import SpecError

FORMAT = 2

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError)
"""What torch.load and a look into its answer raise for a file that is damaged or something else."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that at any moment the file is either the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # First into memory: what torch's own writer says of a full disk is no OSError.
    content = io.BytesIO()
    torch.save({"format": FORMAT, **state}, content)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """The part of the checkpoint at `path` that belongs to `keys`, in their order.

    Every tensor under `replicas` and `optimiser` with a leading axis as long as the population is cut to those keys.
    Raises `SpecError` when the file is damaged or does not hold all keys.
    """
    try:
        state = _read(path)
        stored = state["keys"]
        known = state["format"] == FORMAT
    except UNREADABLE as error:
        raise SpecError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to train again"
        ) from None
    if not known:
        raise SpecError(f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}; delete it")
    missing = [key for key in keys if key not in stored]
    if missing:
        raise SpecError(f"{path} holds no run {', '.join(missing)}")
    place = torch.tensor([stored.index(key) for key in keys])

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == len(stored):
            return value[place]
        if isinstance(value, dict):
            return {name: cut(item) for name, item in value.items()}
        return value

    return {
        **state,
        "keys": list(keys),
        "place": place,
        "replicas": cut(state["replicas"]),
        "optimiser": cut(state["optimiser"]),
    }


def keys_in(path: Path) -> tuple[str, ...]:
    """The keys a checkpoint holds; empty when there is none that can be read."""
    return tuple(_header(path).get("keys", ()))


def set_damaged_aside(path: Path | None) -> Path | None:
    """Rename a checkpoint that cannot be read, so that its population begins anew; gives the new name, if any."""
    if path is None or not path.exists() or _header(path):
        return None
    return path.rename(path.with_name(f"{path.name}.damaged"))


def continues(path: Path, run: Run) -> bool:
    """Whether the checkpoint was made with the probes that `run` asks for: other readings cannot be continued."""
    return _header(path).get("structure") == run.structure


def _header(path: Path) -> dict[str, Any]:
    try:
        return _read(path, mmap=True)
    except UNREADABLE:
        # Whatever is wrong with the file, nothing in it can be used; `load` says so when it is asked for.
        return {}


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """The file's content, without running code from it."""
    with warnings.catch_warnings():
        # For a pickle that torch did not write it warns before it refuses: the refusal is what counts.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
