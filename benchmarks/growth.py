"""Time and memory of a training step as sequences grow: for each time step both should stay as they are."""

import statistics
import time
from typing import Any

from benchmarks.training_step import compiled
from rnnstudy.cells.cell import Cell
from rnnstudy.engines.compiled import buffer_shapes

LENGTHS = (200, 1000, 2000, 5000, 10_000)
BATCH, ROUNDS = 20, 5


def grow(cell: Cell) -> list[dict[str, Any]]:
    """Microseconds of a whole training step for each time step, and bytes kept for the backward pass."""
    steps = {length: compiled(cell, length, BATCH, 1) for length in LENGTHS}
    times: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for turn in range(ROUNDS + 1):
        for length, step in steps.items():
            began = time.perf_counter()
            step()
            if turn > 0:
                times[length].append(time.perf_counter() - began)
    found = []
    for length in LENGTHS:
        kept = 4 * sum(a * b * c * d for a, b, c, d in buffer_shapes(cell, 1, length, BATCH))
        found.append(
            {
                "cell": type(cell).__name__,
                "length": length,
                "microseconds_per_step": 1e6 * statistics.median(times[length]) / length,
                "bytes_per_unit": kept / (length * BATCH * cell.width),
            }
        )
    return found
