"""Arrays that are used again: fresh memory costs a page fault for every 4 KiB, as much time as a forward pass."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

MOST_BYTES = 2**29
"""Bytes kept while nobody uses them; the ones unused for longest go first."""


class Buffers:
    """float32 arrays in use; they go back to the shelf when this object is gone."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        self.arrays = arrays


class BufferPool:
    """Free arrays, found by shape."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._free: list[np.ndarray] = []
        # Objects may end at any moment, in the middle of `take` too: what they give back waits here for the next one.
        self._returned: deque[tuple[np.ndarray, ...]] = deque()
        self._lock = threading.Lock()

    def take(self, shapes: Sequence[tuple[int, ...]]) -> Buffers:
        """Arrays of these shapes, with anything in them."""
        with self._lock:
            while self._returned:
                self._free.extend(self._returned.popleft())
            kept = Buffers(tuple(self._take(shape) for shape in shapes))
            while sum(array.nbytes for array in self._free) > self._most_bytes:
                self._free.pop(0)
        weakref.finalize(kept, self._returned.append, kept.arrays).atexit = False
        return kept

    def _take(self, shape: tuple[int, ...]) -> np.ndarray:
        for place in range(len(self._free) - 1, -1, -1):
            if self._free[place].shape == shape:
                return self._free.pop(place)
        return np.empty(shape, np.float32)
