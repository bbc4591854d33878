"""The independently recurrent network."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import uniform
from rnnstudy.cells.elman import ACTIVATIONS, bounded_activation


class IndRNN(Cell):
    """The independently recurrent network: each unit reads the input and its own previous value, through one weight.

    h_t = φ(x_t W_xh + u ⊙ h_{t-1} + b_h), with φ relu or tanh; h_0 = 0.

    Its Jacobian is diag(φ′_t ⊙ u): while a relu unit j is active, its gradient changes by u_j a step. Published initial
    weights: u from U(0, 1). The paper keeps |u_j| ≤ γ^{1/T} in training; that is not part of the cell.
    """

    source: ClassVar[str] = "Li et al. 2018 (IndRNN), section 3"
    states: ClassVar[tuple[str, ...]] = ("h",)

    activation: Literal["relu", "tanh"] = "relu"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "u": Parameter("diagonal", (self.width,), ("h",)).drawn_by(uniform(0.0, 1.0)),
            "b_h": Parameter("single bias", (self.width,), ("h",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        pre_activation = torch.addcmul(projected, parameters["u"].unsqueeze(1), state["h"])
        return {"h": observe("h", ACTIVATIONS[self.activation](pre_activation))}

    def fixed_moduli(self, parameters: Parameters) -> Tensor:
        """|u|: the factors of units whose activation has slope 1."""
        return parameters["u"].abs()

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        return bounded_activation(self.activation, after["h"])
