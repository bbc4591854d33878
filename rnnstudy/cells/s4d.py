"""The diagonal state space model."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Parameter, Parameters
from rnnstudy.cells.diagonal import DiagonalCell, polar
from rnnstudy.cells.draws import constant, given, log_uniform, normal
from rnnstudy.spec import above, at_least


class S4D(DiagonalCell):
    """The diagonal state space model: each channel drives `state_size` complex numbers, a system in continuous time.

        A = −exp(log_A) + i A_im,  Δ = exp(log_dt),  ā = exp(Δ A),  b̄ = (ā − 1)/A     (zero-order hold, B = 1)
        u_t = x_t W_xu,  s_t = ā ⊙ s_{t-1} + b̄ u_t,  h_t = 2 Re(Σ_n C_n s_{t,n}) + D ⊙ u_t,      s_0 = 0

    u_t has `width` channels, with a step size Δ for each, and s_t has width × state_size complex numbers, of which
    each stands for itself and its conjugate. The linear layer and the activation around it belong to a block, not to
    the cell.

    `spectrum`: "lin" is A_n = −½ + iπn; "inv" is A_n = −½ + i (N/π)(N/(2n + 1) − 1) with N = 2·state_size. Published
    initial values: these, by every initialisation; Δ log-uniform between `dt_min` and `dt_max`; C complex normal of
    variance 1; D from N(0, 1); and here W_xu from N(0, 1/features).
    """

    source: ClassVar[str] = "Gu, Gupta, Goel & Ré 2022 (S4D-Lin, S4D-Inv), section 4 (code: state-spaces/s4, s4d.py)"
    states: ClassVar[tuple[str, ...]] = ("s", "h")
    complex_state: ClassVar[bool] = True

    spectrum: Literal["lin", "inv"] = "lin"
    state_size: Annotated[int, at_least(1)] = 16
    dt_min: Annotated[float, above(0)] = 0.001
    dt_max: Annotated[float, above(0)] = 0.1

    def state_width(self, state: str, outputs: int) -> int:
        return 2 * self.width * self.state_size if state == "s" else self.width

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        units, order = self.width * self.state_size, torch.arange(self.state_size)
        full = 2 * self.state_size
        imaginary = math.pi * order if self.spectrum == "lin" else full / math.pi * (full / (2 * order + 1) - 1)
        return {
            "W_xu": Parameter("input", (features, self.width), ("u",)).drawn_by(normal(1 / math.sqrt(features))),
            "log_A": Parameter("diagonal", (units,), ("s",)).drawn_by(constant(math.log(0.5))),
            "A_im": Parameter("diagonal", (units,), ("s",)).drawn_by(given(imaginary.float().repeat(self.width))),
            "log_dt": Parameter("diagonal", (self.width,), ("s",)).drawn_by(log_uniform(self.dt_min, self.dt_max)),
            "C": Parameter("scale", (2 * units,), ("re", "im")).drawn_by(normal(math.sqrt(0.5))),
            "D": Parameter("scale", (self.width,), ("h",)).drawn_by(normal(1.0)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """u_t."""
        return torch.bmm(inputs, parameters["W_xu"])

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary = -parameters["log_A"].exp(), parameters["A_im"]
        dt = self._per_unit(parameters["log_dt"].exp())
        a = polar(dt * real, dt * imaginary)
        # (ā − 1)/A = (ā − 1) A*/|A|², with Re(eˣ − 1) = (e^Re x − 1) cos Im x − 2 sin²(Im x/2): for small steps the
        # difference of ā and 1 would have few digits left.
        above = torch.expm1(dt * real) * (dt * imaginary).cos() - 2 * (dt * imaginary / 2).sin().square()
        _, beside = a.chunk(2, dim=-1)
        size = real.square() + imaginary.square()
        held = [(above * real + beside * imaginary) / size, (beside * real - above * imaginary) / size]
        driven = self._per_unit(projected)
        return a.unsqueeze(1), torch.cat([part.unsqueeze(1) * driven for part in held], dim=-1)

    def read(self, parameters: Parameters, projected: Tensor, state: Tensor) -> Tensor:
        (real, imaginary), (c_re, c_im) = state.chunk(2, dim=-1), parameters["C"].unsqueeze(1).chunk(2, dim=-1)
        summed = (c_re * real - c_im * imaginary).unflatten(-1, (self.width, self.state_size)).sum(-1)
        return 2 * summed + parameters["D"].unsqueeze(1) * projected

    def fixed_moduli(self, parameters: Parameters) -> Tensor:
        return (-parameters["log_A"].exp() * self._per_unit(parameters["log_dt"].exp())).exp()

    def _per_unit(self, per_channel: Tensor) -> Tensor:
        """(…, width) → (…, width · state_size)."""
        return per_channel.repeat_interleave(self.state_size, dim=-1)
