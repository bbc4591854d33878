"""How kernels are compiled, and where they are cached."""

import functools
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

settings: Any = config

FAST_MATH = {"contract", "arcp", "nsz"}
"""LLVM's fast-math flags that keep infinities, NaN and the order of operations as written."""


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile for `signature`, releasing the global interpreter lock, and cache the result on disk.

    The cache folder is named by a digest of all kernels' sources, since Numba checks only the file of the function
    itself. It lies beside them or in NUMBA_CACHE_DIR; if neither can be written, in the user's cache; and if there is
    none, as in a container with a read-only system, in a private temporary folder.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FAST_MATH}
        before = settings.CACHE_DIR
        beside = Path(before or Path(__file__).parent / "__pycache__")
        try:
            for folder in filter(None, (beside, _private_folder())):
                settings.CACHE_DIR = str(folder / _digest())
                try:
                    return njit(signature, cache=True, **options)(function)
                except RuntimeError as error:
                    if "cannot cache function" not in str(error):
                        raise
            _say_once()
            return njit(signature, **options)(function)
        finally:
            settings.CACHE_DIR = before

    return compiled


def cache_folder() -> Path:
    """Where compiled kernels are cached; a folder of its own for each state of their sources."""
    return Path(settings.CACHE_DIR or Path(__file__).parent / "__pycache__") / _digest()


@functools.cache
def _private_folder() -> Path | None:
    """A temporary folder for kernels that this user alone can write; None where there is none.

    What lies there is executed: a folder that another user has made or may write is not used.
    """
    user = getattr(os, "getuid", lambda: 0)()
    folder = Path(tempfile.gettempdir()) / f"rnnstudy-kernels-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022
    return folder if own else None


@functools.cache
def _say_once() -> None:
    """Tell in the log that compiling will be repeated."""
    print(
        "kernels are compiled anew in each process: no folder can hold them; NUMBA_CACHE_DIR names one", file=sys.stderr
    )


@functools.cache
def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
