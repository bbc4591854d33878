"""How the kernels are launched: by cell and padded width, found by compiling for sm_90."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["tf32x3", "ieee"]
"""How products take their factors: as three TF32 products that add up to float32's precision, or as float32."""

ROWS = 16
"""Sequences in a tile: the least that a matrix instruction takes."""


@dataclass(frozen=True)
class Launch:
    """Rows of the batch for each program, its warps, the precision of its products, and loads staged ahead."""

    rows: int
    warps: int
    precision: Precision
    stages: int = 1


TABLE: dict[tuple[str, int], Launch] = {
    ("Elman", 64): Launch(ROWS, 4, "tf32x3"),
    ("Elman", 128): Launch(ROWS, 8, "tf32x3"),
    ("LSTM", 64): Launch(ROWS, 8, "tf32x3"),
}
"""(cell, padded width) to launch. Plain TF32 never stands here."""


def padded(cell: str, width: int) -> int | None:
    """The width in memory of a cell's kernel; None where there is no kernel so wide."""
    return next((wide for name, wide in sorted(TABLE) if name == cell and width <= wide), None)
