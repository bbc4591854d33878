"""Output recurrence into the hidden layer."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Bounded, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.elman import ACTIVATIONS, BOUNDS

FEEDBACK = {
    "linear": lambda o: o,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda o: o.softmax(-1),
}
"""What a step reads of the last output."""


class Jordan(Cell):
    """The Jordan network: the hidden layer reads the input and the last output, not its own previous value.

    h_t = φ(x_t W_xh + ψ(o_{t-1}) W_oh + b_h),  o_t = h_t W_ho + b_o,  with o_0 = 0, and so ψ(0) read at t = 1.

    φ is one of tanh, relu, sigmoid, linear. The output o_t is what the loss is taken on (logits, for classes); ψ, the
    `feedback`, is what of it is fed back: the output itself (linear), or its tanh, sigmoid or softmax. What is fed back
    is the network's own output, never the target (no teacher forcing, which would cut the path).

    W_oh (outputs, width). The only way through time is ∂h_t/∂h_{t-1} = W_ho (∂ψ/∂o) W_oh diag(φ′_t), a matrix whose
    rank is at most the number of outputs.
    """

    source: ClassVar[str] = "Jordan 1986; Raschka & Mirjalili, Python Machine Learning, chapter 16 (output recurrence)"
    states: ClassVar[tuple[str, ...]] = ("h", "o")
    output: ClassVar[str] = "o"
    owns_readout: ClassVar[bool] = True

    activation: Literal["tanh", "relu", "sigmoid", "linear"] = "tanh"
    feedback: Literal["linear", "tanh", "sigmoid", "softmax"] = "linear"

    def state_width(self, state: str, outputs: int) -> int:
        return outputs if state == "o" else self.width

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_oh": Parameter("recurrent", (outputs, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
            "W_ho": Parameter("readout", (self.width, outputs), ("o",)),
            "b_o": Parameter("readout bias", (outputs,), ("o",)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        fed_back = FEEDBACK[self.feedback](state["o"])
        h = observe("h", ACTIVATIONS[self.activation](torch.baddbmm(projected, fed_back, parameters["W_oh"])))
        return {"h": h, "o": observe("o", torch.baddbmm(parameters["b_o"].unsqueeze(1), h, parameters["W_ho"]))}

    def bounded(self, parameters: Parameters, projected: Tensor, before: States, after: States) -> dict[str, Bounded]:
        return {"h": Bounded(after["h"], *BOUNDS[self.activation])} if self.activation in BOUNDS else {}
