"""h-detach."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.optimisers.gradient_cut import GradientCut
from rnnstudy.spec import PER_REPLICA, SpecError, at_least, between


class HDetach(GradientCut):
    """At each step, with `probability`, the gates of an LSTM treat h_{t-1} as a constant; the path through c remains.

    One draw per step and layer, the same for the whole batch, from a generator that depends only on the seed of the run
    and the number of the update. The last `whole_at_end` updates use the complete gradient. Published: 0.5 for copying,
    0.25 for pixel-by-pixel digits; switched off for the last 40 of 600 epochs (copying).

    Source: Kanuparthi, Arpit et al. 2019, section 3.2 (code: copying.py).
    """

    source: ClassVar[str] = "Kanuparthi, Arpit et al. 2019, section 3.2 (code: copying.py)"

    probability: Annotated[float, between(0, 1), PER_REPLICA] = 0.5
    whole_at_end: Annotated[int, at_least(0)] = 0

    def check_compatible(self, cell: Cell, steps: int) -> None:
        if not {"c", "h"} <= set(cell.states):
            raise SpecError(
                f"h-detach cuts the path through h and keeps the path through c; {cell!r} has no c, use an LSTM"
            )
        if self.whole_at_end > steps:
            raise SpecError(
                f"HDetach.whole_at_end is {self.whole_at_end}; it must be at most the {steps} updates of training"
            )

    def states(self, cell: Cell) -> tuple[str, ...]:
        return ("h",)

    def applies(self, step: int, steps: int) -> bool:
        return step < steps - self.whole_at_end

    def cut_mask(
        self, layers: int, time: int, ends: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Bool[Tensor, "layer time batch"]:
        drawn = torch.rand(layers, time, 1, generator=generator, dtype=torch.float64)
        return (drawn < self.probability).expand(-1, -1, len(ends))
