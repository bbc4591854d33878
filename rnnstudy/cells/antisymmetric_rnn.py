"""The antisymmetric network."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import constant, normal
from rnnstudy.spec import above, at_least


class AntisymmetricRNN(Cell):
    """The antisymmetric network: small steps along a differential equation that neither shrinks nor stretches states.

    With A = W_hh − W_hhᵀ, whose eigenvalues are imaginary, the step size ε (`step_size`) and the diffusion γ
    (`diffusion`):

        h_t = h_{t-1} + ε tanh(x_t W_xh + h_{t-1} (A − γ I) + b_h),      h_0 = 0

    ∂h_t/∂h_{t-1} = I + ε (A − γ I) diag(tanh′_t): eigenvalues near 1 where ε is small. The `variant` "gated" multiplies
    the step by an input gate σ(x_t W_xz + h_{t-1} (A − γ I) + b_z) with the same A; W_xh and b_h then have the blocks
    h, z.

    Published initial weights: W_hh from N(0, 1/width), W_xh from N(0, 1/features), biases 0.
    """

    source: ClassVar[str] = "Chang, Chen, Haber & Chi 2019 (AntisymmetricRNN), sections 3.2 and 3.3"
    states: ClassVar[tuple[str, ...]] = ("h",)

    variant: Literal["plain", "gated"] = "plain"
    step_size: Annotated[float, above(0)] = 0.01
    diffusion: Annotated[float, at_least(0)] = 0.01

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        blocks = ("h",) if self.variant == "plain" else ("h", "z")
        wide = len(blocks) * self.width
        recurrent = Parameter("recurrent", (self.width, self.width), ("h",))
        return {
            "W_xh": Parameter("input", (features, wide), blocks).drawn_by(normal(1 / math.sqrt(features))),
            "W_hh": recurrent.drawn_by(normal(1 / math.sqrt(self.width))),
            "b_h": Parameter("single bias", (wide,), blocks).drawn_by(constant(0.0)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        h, weights = state["h"], parameters["W_hh"]
        of_h = torch.baddbmm(h, h, weights - weights.mT, beta=-self.diffusion)
        if self.variant == "plain":
            return {"h": observe("h", h + self.step_size * (projected + of_h).tanh())}
        target, gate = projected.chunk(2, dim=-1)
        return {"h": observe("h", h + self.step_size * (gate + of_h).sigmoid() * (target + of_h).tanh())}
