"""Truncated backpropagation through time."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.optimisers.gradient_cut import GradientCut
from rnnstudy.spec import PER_REPLICA, at_least


class Truncation(GradientCut):
    """Backpropagation within chunks of `window` steps, aligned to the end of the sequence; one update per sequence.

    With τ_b the last supervised step, the chunks are τ_b − window + 1 … τ_b, the `window` steps before them, and so on;
    the first may be shorter. In every layer, states enter a chunk as constants, so no gradient flows from one chunk to
    the previous one. The gradients of all chunks are summed for one update. `window` ≥ τ_b is full backpropagation;
    with `window` = 1 no gradient flows through the recurrence.

    Source: Williams & Peng 1990, in the form with disjoint chunks (BPTT(n, n) in Sutskever 2013, section 2.8.6).
    """

    source: ClassVar[str] = "Williams & Peng 1990; Sutskever 2013, section 2.8.6"

    window: Annotated[int, at_least(1), PER_REPLICA]

    def states(self, cell: Cell) -> tuple[str, ...]:
        return cell.states

    def cut_mask(
        self, layers: int, time: int, ends: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Bool[Tensor, "layer time batch"]:
        steps = torch.arange(time)[:, None]
        return ((ends - steps) % self.window == 0).expand(layers, -1, -1)
