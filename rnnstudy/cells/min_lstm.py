"""The minimal LSTM, without a recurrent matrix."""

import math
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import softplus

from rnnstudy.cells.cell import BoundedUnits, Parameter, Parameters, States
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.draws import uniform
from rnnstudy.cells.min_gru import CANDIDATES

GATES = ("f", "i", "h̃")


class MinLSTM(DiagonalCell):
    """The minimal LSTM: two gates that depend on the input alone and are normalised to a sum of 1.

        f_t = σ(x_t W_xf + b_f),  i_t = σ(x_t W_xi + b_i),  h̃_t = g(x_t W_xh̃ + b_h̃)
        h_t = f_t/(f_t + i_t) ⊙ h_{t-1} + i_t/(f_t + i_t) ⊙ h̃_t,      h_0 = 0

    with g as in `MinGRU` (`candidate`). ∂h_T/∂h_t = ∏ f/(f + i) over the steps between.

    Published initial weights: all U(−1/√features, 1/√features), as torch.nn.Linear draws them.
    """

    source: ClassVar[str] = "Feng et al. 2024 (minLSTM), section 3.2 and appendix B"
    states: ClassVar[tuple[str, ...]] = ("h",)

    candidate: Literal["positive", "linear"] = "positive"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        bound = 1 / math.sqrt(features)
        draw, wide = uniform(-bound, bound), 3 * self.width
        return {
            "W_xh": Parameter("input", (features, wide), GATES).drawn_by(draw),
            "b_h": Parameter("single bias", (wide,), GATES, forget_gate="f", input_gate="i").drawn_by(draw),
        }

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        forget, store, candidate = projected.chunk(3, dim=-1)
        # f/(f + i) = σ(log f − log i), which is right where both gates are closed.
        kept = log_sigmoid_ratio(forget, store).sigmoid()
        return kept, (1 - kept) * CANDIDATES[self.candidate](candidate)

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        forget, store, _ = projected.chunk(3, dim=-1)
        return {
            "f": BoundedUnits(log_sigmoid_ratio(forget, store).sigmoid(), 0.0, 1.0),
            "i": BoundedUnits(log_sigmoid_ratio(store, forget).sigmoid(), 0.0, 1.0),
        }


def log_sigmoid_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log (σ(a)/σ(b)), finite wherever a and b are."""
    return softplus(-b) - softplus(-a)
