"""The vanilla recurrent network."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda a: a}

SLOPES = {
    "tanh": lambda h: 1 - h.square(),
    "relu": lambda h: (h > 0).to(h.dtype),
    "sigmoid": lambda h: h * (1 - h),
    "linear": torch.ones_like,
}
"""φ′(a) as a function of h = φ(a)."""

BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
"""Lower and upper bound of the activations that have them."""


def bounded_activation(activation: str, h: Tensor) -> dict[str, BoundedUnits]:
    """The hidden units h = φ(a) with the bounds of φ; empty where φ has none."""
    return {"h": BoundedUnits(h, *BOUNDS[activation])} if activation in BOUNDS else {}


class Elman(Cell):
    """The vanilla RNN: the hidden layer reads the input and its own previous value.

    h_t = φ(x_t W_xh + h_{t-1} W_hh + b_h), with φ one of tanh, relu, sigmoid, linear; h_0 = 0.

    Its Jacobian ∂h_t/∂h_{t-1} = W_hh diag(φ′_t) has norm at most σ_max(W_hh)·max φ′ (Pascanu et al. 2013, section 2.1),
    with max φ′ = 1 (tanh, relu, linear) or 1/4 (sigmoid): below 1, gradients through time must vanish.
    """

    source: ClassVar[str] = "Elman 1990; torch.nn.RNN"
    states: ClassVar[tuple[str, ...]] = ("h",)

    activation: Literal["tanh", "relu", "sigmoid", "linear"] = "tanh"

    @property
    def largest_slope(self) -> float:
        """max φ′."""
        return 0.25 if self.activation == "sigmoid" else 1.0

    def slope(self, h: Tensor) -> Tensor:
        """φ′(a) at each unit, computed from h = φ(a)."""
        return SLOPES[self.activation](h)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_hh": Parameter("recurrent", (self.width, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        activation = ACTIVATIONS[self.activation]
        return {"h": observe("h", activation(torch.baddbmm(projected, state["h"], parameters["W_hh"])))}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        return bounded_activation(self.activation, after["h"])
