"""Long expressive memory."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.spec import above

INPUTS = ("dt_y", "dt_z", "y", "z")


class LEM(Cell):
    """Long expressive memory: two coupled states, each with learned time steps between 0 and Δt.

        Δ^z_t = Δt σ(x_t W_xz1 + y_{t-1} W_yz1 + b_z1),   Δ^y_t = Δt σ(x_t W_xy1 + y_{t-1} W_yy1 + b_y1)
        z_t = (1 − Δ^z_t) ⊙ z_{t-1} + Δ^z_t ⊙ tanh(x_t W_xz + y_{t-1} W_yz + b_z)
        y_t = (1 − Δ^y_t) ⊙ y_{t-1} + Δ^y_t ⊙ tanh(x_t W_xy + z_t W_zy + b_y),      y_0 = z_0 = 0

    with Δt (`step_size`). The output is y. W_xh has the blocks dt_y, dt_z, y, z, and W_yh the blocks dt_y, dt_z, z.
    Every bias is the sum of two, as in the published code; published initial weights are therefore PyTorch's default,
    all U(−1/√width, 1/√width).
    """

    source: ClassVar[str] = "Rusch et al. 2022 (LEM), equation 3 (code: tk-rusch/LEM)"
    states: ClassVar[tuple[str, ...]] = ("z", "y")
    output: ClassVar[str] = "y"

    step_size: Annotated[float, above(0)] = 1.0

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        width = self.width
        return {
            "W_xh": Parameter("input", (features, 4 * width), INPUTS),
            "W_yh": Parameter("recurrent", (width, 3 * width), ("dt_y", "dt_z", "z")),
            "W_zy": Parameter("recurrent", (width, width), ("y",)),
            # Step sizes that are large forget, and those that are small keep: no gate in the sense of gate biases.
            "b_h": Parameter("bias", (4 * width,), INPUTS),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        steps_of_x, y_of_x, z_of_x = projected.split([2 * self.width, self.width, self.width], dim=-1)
        of_y = torch.bmm(state["y"], parameters["W_yh"])
        steps_of_y, z_of_y = of_y.split([2 * self.width, self.width], dim=-1)
        step_y, step_z = (self.step_size * (steps_of_x + steps_of_y).sigmoid()).chunk(2, dim=-1)
        z = observe("z", torch.lerp(state["z"], (z_of_x + z_of_y).tanh(), step_z))
        target = torch.baddbmm(y_of_x, z, parameters["W_zy"]).tanh()
        return {"z": z, "y": observe("y", torch.lerp(state["y"], target, step_y))}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        of_y = torch.bmm(before["y"], parameters["W_yh"])
        steps = self.step_size * (projected[..., : 2 * self.width] + of_y[..., : 2 * self.width]).sigmoid()
        step_y, step_z = steps.chunk(2, dim=-1)
        return {"dt_y": BoundedUnits(step_y, 0.0, self.step_size), "dt_z": BoundedUnits(step_z, 0.0, self.step_size)}
