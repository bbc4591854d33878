"""The coupled oscillatory network."""

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import uniform
from rnnstudy.spec import above, at_least


class CoRNN(Cell):
    """The coupled oscillatory network: each unit is a damped oscillator with position y and velocity z.

        z_t = z_{t-1} + Δt (tanh(x_t W_xh + y_{t-1} W_yh + z_{t-1} W_zh + b_h) − γ y_{t-1} − ε z_{t-1})
        y_t = y_{t-1} + Δt z_t,      y_0 = z_0 = 0

    with the step Δt (`step_size`), the frequency control γ (`frequency`) and the damping ε (`damping`); the defaults
    are those of the published code for the adding problem. The damping is explicit, as in the code. The output is y.

    Published initial weights: all U(−1/√n, 1/√n) with n = features + 2 width, as torch.nn.Linear draws them.
    """

    source: ClassVar[str] = "Rusch & Mishra 2021 (coRNN), equation 3 (code: tk-rusch/coRNN)"
    states: ClassVar[tuple[str, ...]] = ("z", "y")
    output: ClassVar[str] = "y"

    step_size: Annotated[float, above(0)] = 0.06
    frequency: Annotated[float, at_least(0)] = 66.0
    damping: Annotated[float, at_least(0)] = 15.0

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        bound = 1 / math.sqrt(features + 2 * self.width)
        draw = uniform(-bound, bound)
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)).drawn_by(draw),
            "W_yh": Parameter("recurrent", (self.width, self.width), ("h",)).drawn_by(draw),
            "W_zh": Parameter("recurrent", (self.width, self.width), ("h",)).drawn_by(draw),
            "b_h": Parameter("single bias", (self.width,), ("h",)).drawn_by(draw),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        y, z = state["y"], state["z"]
        driven = torch.baddbmm(torch.baddbmm(projected, y, parameters["W_yh"]), z, parameters["W_zh"]).tanh()
        z = observe("z", z + self.step_size * (driven - self.frequency * y - self.damping * z))
        return {"z": z, "y": observe("y", y + self.step_size * z)}
