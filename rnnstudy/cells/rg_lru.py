"""The real-gated linear recurrent unit of Griffin."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rnnstudy.cells.cell import BoundedUnits, Parameter, Parameters, States
from rnnstudy.cells.diagonal import DiagonalCell, ring
from rnnstudy.cells.draws import constant, normal
from rnnstudy.spec import SpecError, above, between

GATES = ("r", "i")
STEEPEST = 1000.0
"""The largest slope of √(1 − a²) by 1 − a² that is passed back, as in the published code."""


class RGLRU(DiagonalCell):
    """The real-gated linear recurrent unit: the input decides how far each unit's own factor is applied.

        u_t = x_t W_xu,  r_t = σ(u_t W_ur + b_r),  i_t = σ(u_t W_ui + b_i)
        a_t = exp(−c r_t ⊙ softplus(Λ))
        h_t = a_t ⊙ h_{t-1} + √(1 − a_t²) ⊙ (i_t ⊙ u_t),      h_0 = 0

    with c (`sharpness`). u_t is the linear layer that stands before the unit in Griffin; the gate matrices are full.
    W_ug has the blocks r, i. r = 0 keeps the state (a = 1) and lets nothing in. The slope of √(1 − a²) by 1 − a² is
    passed back as at most 1000.

    Published initial weights: exp(−c softplus(Λ)), the factor at r = 1, has a square that is uniform between `r_min`²
    and `r_max`², by every initialisation; W_ug from N(0, 1/width), biases 0, and W_xu from N(0, 1/features).
    """

    source: ClassVar[str] = "De et al. 2024 (Griffin, RG-LRU), equations 1 to 4 (code: google-deepmind/recurrentgemma)"
    states: ClassVar[tuple[str, ...]] = ("h",)

    sharpness: Annotated[float, above(0)] = 8.0
    r_min: Annotated[float, between(0, 1)] = 0.9
    r_max: Annotated[float, between(0, 1)] = 0.999

    def check(self) -> None:
        if self.r_min > self.r_max:
            raise SpecError(f"RGLRU.r_min is {self.r_min:g} and r_max is {self.r_max:g}; r_min must be at most r_max")

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        width, modulus = self.width, ring(self.r_min, self.r_max)

        def draw_softplus(shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
            # The inverse of softplus: log(exp(v) − 1).
            return torch.expm1(-modulus(shape, generator, drawn) / self.sharpness).log()

        return {
            "W_xu": Parameter("input", (features, width), ("u",)).drawn_by(normal(1 / math.sqrt(features))),
            "W_ug": Parameter("input", (width, 2 * width), GATES).drawn_by(normal(1 / math.sqrt(width))),
            "b_g": Parameter("single bias", (2 * width,), GATES, input_gate="i").drawn_by(constant(0.0)),
            "Lambda": Parameter("diagonal", (width,), ("h",)).drawn_by(draw_softplus),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """u_t and the pre-activations of r_t and i_t side by side."""
        u = torch.bmm(inputs, parameters["W_xu"])
        return torch.cat([u, torch.baddbmm(parameters["b_g"].unsqueeze(1), u, parameters["W_ug"])], dim=-1)

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        u, gate, store = projected.chunk(3, dim=-1)
        log_a = -self.sharpness * softplus(parameters["Lambda"]).unsqueeze(1) * gate.sigmoid()
        return log_a.exp(), bounded_root(-torch.expm1(2 * log_a)) * (store.sigmoid() * u)

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        _, gate, store = projected.chunk(3, dim=-1)
        return {"r": BoundedUnits(gate.sigmoid(), 0.0, 1.0), "i": BoundedUnits(store.sigmoid(), 0.0, 1.0)}


def bounded_root(square: Tensor) -> Tensor:
    """√square, with a slope of at most `STEEPEST` in the backward pass."""
    root, least = square.detach().sqrt(), 1 / (2 * STEEPEST)
    # The second term is zero and has the slope.
    return root + (square - square.detach()) / (2 * root.clamp(min=least))
