"""Output recurrence into the output layer."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Bounded, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.elman import ACTIVATIONS, BOUNDS
from rnnstudy.cells.jordan import FEEDBACK


class OutputRecurrent(Cell):
    """Output-to-output recurrence: the output reads the hidden layer and the last output; h_t has no memory.

    h_t = φ(x_t W_xh + b_h),  o_t = h_t W_ho + ψ(o_{t-1}) W_oo + b_o,  with o_0 = 0, and so ψ(0) read at t = 1.

    φ is one of tanh, relu, sigmoid, linear. The output o_t is what the loss is taken on (logits, for classes); ψ, the
    `feedback`, is what of it is fed back: the output itself (linear), or its tanh, sigmoid or softmax. What is fed back
    is the network's own output, never the target.

    W_oo (outputs, outputs). The only way through time is ∂o_t/∂o_{t-1} = (∂ψ/∂o) W_oo, as wide as the output.
    """

    source: ClassVar[str] = "Raschka & Mirjalili, Python Machine Learning, chapter 16 (output recurrence, W_oo)"
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
            "b_h": Parameter("bias", (self.width,), ("h",)),
            "W_ho": Parameter("readout", (self.width, outputs), ("o",)),
            "W_oo": Parameter("recurrent", (outputs, outputs), ("o",)),
            "b_o": Parameter("readout bias", (outputs,), ("o",)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        h = observe("h", ACTIVATIONS[self.activation](projected))
        from_hidden = torch.baddbmm(parameters["b_o"].unsqueeze(1), h, parameters["W_ho"])
        fed_back = FEEDBACK[self.feedback](state["o"])
        return {"h": h, "o": observe("o", torch.baddbmm(from_hidden, fed_back, parameters["W_oo"]))}

    def bounded(self, parameters: Parameters, projected: Tensor, before: States, after: States) -> dict[str, Bounded]:
        return {"h": Bounded(after["h"], *BOUNDS[self.activation])} if self.activation in BOUNDS else {}
