"""h-detach."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.optimisers.gradient_cut import GradientCut
from rnnstudy.spec import PER_REPLICA, SpecError, at_least, between


class HDetach(GradientCut):
    """With `probability` at each step, the gates of an LSTM read h_{t-1} as a constant; the path through c stays whole.

    One draw for each step (and layer), the same for the whole batch, from a generator that the run's seed and the
    update's number alone decide. The last `whole_at_end` updates are made with the whole gradient. Published: 0.5 for
    copying, 0.25 for pixel-by-pixel digits; switched off for the last 40 of 600 epochs (copying).

    Source: Kanuparthi, Arpit et al. 2019, section 3.2 (code: copying.py).
    """

    source: ClassVar[str] = "Kanuparthi, Arpit et al. 2019, section 3.2 (code: copying.py)"

    probability: Annotated[float, between(0, 1), PER_REPLICA] = 0.5
    whole_at_end: Annotated[int, at_least(0)] = 0

    def suits(self, cell: Cell, steps: int) -> None:
        if not {"c", "h"} <= set(cell.states):
            raise SpecError(
                f"h-detach keeps the path through c and cuts that through h; {cell!r} has no c, use an LSTM"
            )
        if self.whole_at_end > steps:
            raise SpecError(
                f"HDetach.whole_at_end is {self.whole_at_end}; it must be at most the {steps} updates of training"
            )

    def states(self, cell: Cell) -> tuple[str, ...]:
        return ("h",)

    def applies(self, step: int, steps: int) -> bool:
        return step < steps - self.whole_at_end

    def places(
        self, layers: int, time: int, ends: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Bool[Tensor, "layer time batch"]:
        drawn = torch.rand(layers, time, 1, generator=generator, dtype=torch.float64)
        return (drawn < self.probability).expand(-1, -1, len(ends))
