"""The minimal GRU, without a recurrent matrix."""

import math
from typing import ClassVar, Literal

from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Parameter, Parameters, States
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.draws import uniform

GATES = ("z", "h̃")


def positive(a: Tensor) -> Tensor:
    """g(a) = a + ½ for a ≥ 0, and σ(a) below: positive and continuous."""
    # max(a, 0) + σ(min(a, 0))
    return a.relu() + (-(-a).relu()).sigmoid()


CANDIDATES = {"positive": positive, "linear": lambda a: a}


class MinGRU(DiagonalCell):
    """The minimal GRU: gate and candidate depend on the input alone, so that the recurrence is linear.

        z_t = σ(x_t W_xz + b_z),  h̃_t = g(x_t W_xh̃ + b_h̃)
        h_t = (1 − z_t) ⊙ h_{t-1} + z_t ⊙ h̃_t,      h_0 = 0

    `candidate`: "positive" is g(a) = a + ½ for a ≥ 0, σ(a) below; "linear" is g(a) = a. ∂h_T/∂h_t = ∏ (1 − z) over the
    steps between: no gradient explodes, and how fast it vanishes is what the gate says. z = 1 replaces the state.

    Published initial weights: all U(−1/√features, 1/√features), as torch.nn.Linear draws them.
    """

    source: ClassVar[str] = "Feng et al. 2024 (minGRU), section 3.1 and appendix B"
    states: ClassVar[tuple[str, ...]] = ("h",)

    candidate: Literal["positive", "linear"] = "positive"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        bound = 1 / math.sqrt(features)
        draw, wide = uniform(-bound, bound), 2 * self.width
        return {
            "W_xh": Parameter("input", (features, wide), GATES).drawn_by(draw),
            "b_h": Parameter("single bias", (wide,), GATES, input_gate="z").drawn_by(draw),
        }

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        gate, candidate = projected.chunk(2, dim=-1)
        store = gate.sigmoid()
        return 1 - store, store * CANDIDATES[self.candidate](candidate)

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        return {"z": BoundedUnits(projected.chunk(2, dim=-1)[0].sigmoid(), 0.0, 1.0)}
