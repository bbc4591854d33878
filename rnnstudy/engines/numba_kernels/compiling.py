"""How kernels are compiled, and where they are kept."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

settings: Any = config

DEFINED = {"contract", "arcp", "nsz"}
"""Liberties that leave rounding steps, infinities and not-a-number as they are written."""


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile for `signature`, without the interpreter's lock, and keep the result on disk.

    It is kept under a digest of all kernels' sources, since Numba looks only at the file of the function itself; beside
    them, in the folder NUMBA_CACHE_DIR, or where neither can be written, in the user's cache.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        before = settings.CACHE_DIR
        settings.CACHE_DIR = str(Path(before or Path(__file__).parent / "__pycache__") / _digest())
        try:
            return njit(signature, nogil=True, cache=True, error_model="numpy", fastmath=DEFINED)(function)
        finally:
            settings.CACHE_DIR = before

    return compiled


@functools.cache
def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
