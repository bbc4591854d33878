"""How the kernels are launched, by cell and padded width; the values were found by compiling for sm_90."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["tf32x3", "ieee"]
"""How matrix products are computed: as three TF32 products that together have float32's precision, or in float32."""

ROWS = 16
"""Sequences in a tile: the fewest that a matrix instruction accepts."""


@dataclass(frozen=True)
class Launch:
    """Rows of the batch per program, its warps, the precision of its products, and its pipeline stages."""

    rows: int
    warps: int
    precision: Precision
    stages: int = 1


TABLE: dict[tuple[str, int], Launch] = {
    ("Elman", 64): Launch(ROWS, 4, "tf32x3"),
    ("Elman", 128): Launch(ROWS, 8, "tf32x3"),
    ("LSTM", 64): Launch(ROWS, 8, "tf32x3"),
}
"""(cell, padded width) to launch. No entry may use plain TF32."""


def launch_of(cell: str, width: int) -> tuple[int, Launch] | None:
    """The width to which a cell's kernel pads, and its launch; None if there is no kernel for this width."""
    fitting = ((padded, TABLE[name, padded]) for name, padded in sorted(TABLE) if name == cell and width <= padded)
    return next(fitting, None)
