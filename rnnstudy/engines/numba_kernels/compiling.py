"""How kernels are compiled, and where they are cached."""

import functools
import hashlib
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
    itself. It lies beside them or in NUMBA_CACHE_DIR, or if neither can be written, in the user's cache.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        before = settings.CACHE_DIR
        settings.CACHE_DIR = str(Path(before or Path(__file__).parent / "__pycache__") / _digest())
        try:
            return njit(signature, nogil=True, cache=True, error_model="numpy", fastmath=FAST_MATH)(function)
        finally:
            settings.CACHE_DIR = before

    return compiled


def cache_folder() -> Path:
    """Where compiled kernels are cached; a folder of its own for each state of their sources."""
    return Path(settings.CACHE_DIR or Path(__file__).parent / "__pycache__") / _digest()


@functools.cache
def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
