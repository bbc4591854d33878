"""The selective state space model, the heart of Mamba."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rnnstudy.cells.cell import Parameter, Parameters
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.draws import constant, given, log_uniform, normal, uniform
from rnnstudy.spec import above, at_least

LEAST_STEP = 1e-4
"""The smallest initial step size, as in the published code."""


class S6(DiagonalCell):
    """The selective state space model: step size, input and output vector of the system depend on the input.

        u_t = x_t W_xu,  (δ_t, B_t, C_t) = u_t W_u,  Δ_t = softplus(δ_t W_dt + b_dt),  A = −exp(log_A)
        s_t = exp(Δ_t A) ⊙ s_{t-1} + (Δ_t u_t) B_t,  h_t = Σ_n C_{t,n} s_{t,n} + D ⊙ u_t,      s_0 = 0

    u_t and Δ_t have `width` channels, s_t has width × state_size numbers, B_t and C_t have state_size and are shared by
    the channels; δ_t has rank ⌈width/16⌉. As in the published code, the input is multiplied by Δ B (a Euler step) and
    the state by exp(Δ A) (zero-order hold). Convolution, gate and output layer of Mamba belong to a block, not to the
    cell.

    Published initial values: A_n = −n for n = 1 … state_size, by every initialisation; b_dt such that softplus(b_dt)
    is log-uniform between `dt_min` and `dt_max`, too; W_dt uniform within ±rank^−½; W_u as torch.nn.Linear; D = 1; and
    here W_xu from N(0, 1/features).
    """

    source: ClassVar[str] = "Gu & Dao 2023 (Mamba), algorithm 2 (code: state-spaces/mamba, mamba_simple.py)"
    states: ClassVar[tuple[str, ...]] = ("s", "h")

    state_size: Annotated[int, at_least(1)] = 16
    dt_min: Annotated[float, above(0)] = 0.001
    dt_max: Annotated[float, above(0)] = 0.1

    @property
    def rank(self) -> int:
        """Numbers from which the step sizes are made."""
        return math.ceil(self.width / 16)

    def state_width(self, state: str, outputs: int) -> int:
        return self.width * self.state_size if state == "s" else self.width

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        width, size = self.width, self.state_size
        drawn_step = log_uniform(self.dt_min, self.dt_max)

        def draw_bias(shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
            step = drawn_step(shape, generator, drawn).exp().clamp(min=LEAST_STEP)
            return torch.expm1(step).log()

        rates = torch.arange(1, size + 1).float().log().repeat(width)
        bound = self.rank**-0.5
        return {
            "W_xu": Parameter("input", (features, width), ("u",)).drawn_by(normal(1 / math.sqrt(features))),
            "W_u": Parameter("input", (width, self.rank + 2 * size), ("dt B C",)).drawn_by(
                uniform(-(width**-0.5), width**-0.5)
            ),
            "W_dt": Parameter("input", (self.rank, width), ("dt",)).drawn_by(uniform(-bound, bound)),
            "b_dt": Parameter("diagonal", (width,), ("dt",)).drawn_by(draw_bias),
            "log_A": Parameter("diagonal", (width * size,), ("s",)).drawn_by(given(rates)),
            "D": Parameter("scale", (width,), ("h",)).drawn_by(constant(1.0)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """u_t, the argument of softplus, B_t and C_t side by side."""
        u = torch.bmm(inputs, parameters["W_xu"])
        low, vectors = torch.bmm(u, parameters["W_u"]).split([self.rank, 2 * self.state_size], dim=-1)
        step = torch.baddbmm(parameters["b_dt"].unsqueeze(1), low, parameters["W_dt"])
        return torch.cat([u, step, vectors], dim=-1)

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        u, step, b, _ = self._split(projected)
        dt = softplus(step)
        rates = -parameters["log_A"].exp().unflatten(-1, (self.width, self.state_size))
        a = (dt.unsqueeze(-1) * rates.unsqueeze(1)).exp()
        driven = (dt * u).unsqueeze(-1) * b.unsqueeze(-2)
        return a.flatten(-2), driven.flatten(-2)

    def read(self, parameters: Parameters, projected: Tensor, state: Tensor) -> Tensor:
        u, _, _, c = self._split(projected)
        summed = (state.unflatten(-1, (self.width, self.state_size)) * c.unsqueeze(-2)).sum(-1)
        return summed + parameters["D"].unsqueeze(1) * u

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        return projected.split([self.width, self.width, self.state_size, self.state_size], dim=-1)
