"""The linear recurrent unit: complex, diagonal, and the same at every step."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Parameter, Parameters
from rnnstudy.cells.diagonal import DiagonalCell, polar, ring
from rnnstudy.cells.draws import normal
from rnnstudy.spec import SpecError, above, between


class LRU(DiagonalCell):
    """The linear recurrent unit: `width` complex numbers, each turned and shrunk by a factor λ of its own.

        λ = exp(−exp(ν) + i exp(θ))
        s_t = λ ⊙ s_{t-1} + γ ⊙ (x_t B),   h_t = Re(s_t C) + x_t D,      s_0 = 0

    B, C and D are W_B, W_C and W_D: W_B has the blocks re, im, and W_C (2·width, width) holds Re C above −Im C. D
    is a matrix and not a diagonal, since inputs and outputs may differ in number. γ keeps the state's size independent
    of |λ|; `normalisation`: "learned" is γ = exp(log_gamma), which begins at √(1 − |λ|²), as published; "exact" is γ =
    √(1 − |λ|²) throughout; "none" is γ = 1.

    Published initial weights: λ uniform in the ring `r_min` ≤ |λ| ≤ `r_max` with angles in [0, `max_phase`], by every
    initialisation; Re B and Im B from N(0, 1/(2 features)), Re C and Im C from N(0, 1/width), and here D from
    N(0, 1/features).
    """

    source: ClassVar[str] = "Orvieto et al. 2023 (LRU), section 3 (code: NicolasZucchet/minimal-LRU)"
    states: ClassVar[tuple[str, ...]] = ("s", "h")
    complex_state: ClassVar[bool] = True

    normalisation: Literal["learned", "exact", "none"] = "learned"
    r_min: Annotated[float, between(0, 1)] = 0.0
    r_max: Annotated[float, between(0, 1)] = 1.0
    max_phase: Annotated[float, above(0)] = 2 * math.pi

    def check(self) -> None:
        if self.r_min > self.r_max:
            raise SpecError(f"LRU.r_min is {self.r_min:g} and r_max is {self.r_max:g}; r_min must be at most r_max")

    def state_width(self, state: str, outputs: int) -> int:
        return 2 * self.width if state == "s" else self.width

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        width, modulus = self.width, ring(self.r_min, self.r_max)

        def draw_nu(shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
            return (-modulus(shape, generator, drawn)).log()

        def draw_theta(shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
            return (self.max_phase * torch.rand(shape, generator=generator).clamp(min=1e-7)).log()

        def draw_gamma(shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
            return _log_gamma(drawn["nu"])

        found = {
            "W_B": Parameter("input", (features, 2 * width), ("re", "im")).drawn_by(normal((2 * features) ** -0.5)),
            "nu": Parameter("diagonal", (width,), ("s",)).drawn_by(draw_nu),
            "theta": Parameter("diagonal", (width,), ("s",)).drawn_by(draw_theta),
            "log_gamma": Parameter("diagonal", (width,), ("s",)).drawn_by(draw_gamma),
            "W_C": Parameter("output", (2 * width, width), ("h",)).drawn_by(normal(width**-0.5)),
            "W_D": Parameter("input", (features, width), ("h",)).drawn_by(normal(features**-0.5)),
        }
        return {name: item for name, item in found.items() if name != "log_gamma" or self.normalisation == "learned"}

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """x_t B and x_t D side by side."""
        return torch.bmm(inputs, torch.cat([parameters["W_B"], parameters["W_D"]], dim=-1))

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        nu, theta = parameters["nu"], parameters["theta"]
        # In float64: rounded in float32, an angle of some radians is 2e-7 off, and t steps turn by t times that.
        a = polar(-nu.double().exp(), theta.double().exp()).to(nu.dtype).unsqueeze(1)
        driven = projected[..., : 2 * self.width]
        if self.normalisation == "none":
            return a, driven
        gamma = (parameters["log_gamma"] if self.normalisation == "learned" else _log_gamma(nu)).exp()
        return a, driven * torch.cat([gamma, gamma], dim=-1).unsqueeze(1)

    def read(self, parameters: Parameters, projected: Tensor, state: Tensor) -> Tensor:
        return torch.baddbmm(projected[..., 2 * self.width :], state, parameters["W_C"])

    def fixed_moduli(self, parameters: Parameters) -> Tensor:
        return (-parameters["nu"].exp()).exp()


def _log_gamma(nu: Tensor) -> Tensor:
    """log √(1 − |λ|²), with |λ|² = exp(−2 exp(ν))."""
    return 0.5 * (-torch.expm1(-2 * nu.exp())).log()
