"""Reuse of arrays: fresh memory costs a page fault for every 4 KiB, as much time as a forward pass."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

MOST_BYTES = 2**29
"""The most bytes of free arrays that are kept; the arrays unused for longest are dropped first."""


class Buffers:
    """float32 arrays in use; they return to the pool when this object is garbage-collected."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        self.arrays = arrays


class BufferPool:
    """Free arrays, looked up by shape."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._free: list[np.ndarray] = []
        # Buffers may be collected at any moment, even during `acquire`: their arrays wait here for the next call.
        self._returned: deque[tuple[np.ndarray, ...]] = deque()
        self._lock = threading.Lock()

    def acquire(self, shapes: Sequence[tuple[int, ...]]) -> Buffers:
        """Arrays of these shapes, with undefined contents."""
        with self._lock:
            while self._returned:
                self._free.extend(self._returned.popleft())
            buffers = Buffers(tuple(self._array(shape) for shape in shapes))
            while sum(array.nbytes for array in self._free) > self._most_bytes:
                self._free.pop(0)
        weakref.finalize(buffers, self._returned.append, buffers.arrays).atexit = False
        return buffers

    def _array(self, shape: tuple[int, ...]) -> np.ndarray:
        for index in range(len(self._free) - 1, -1, -1):
            if self._free[index].shape == shape:
                return self._free.pop(index)
        return np.empty(shape, np.float32)
