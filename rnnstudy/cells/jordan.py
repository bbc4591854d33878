"""Output recurrence into the hidden layer."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Observe, Parameter, Parameters, States
from rnnstudy.cells.elman import ACTIVATIONS
from rnnstudy.cells.output_feedback import FEEDBACK, OutputFeedback


class Jordan(OutputFeedback):
    """The Jordan network: the hidden layer reads the input and the previous output, not its own previous value.

    h_t = φ(x_t W_xh + ψ(o_{t-1}) W_oh + b_h),  o_t = h_t W_ho + b_o,  with o_0 = 0, so that t = 1 reads ψ(0).

    φ (`activation`) is one of tanh, relu, sigmoid, linear; ψ (`feedback`) is one of linear, tanh, sigmoid, softmax. The
    loss is computed on o_t (logits, for classes). The network reads its own output, never the target (teacher forcing
    would cut the path).

    W_oh (outputs, width). The only path through time is ∂h_t/∂h_{t-1} = W_ho (∂ψ/∂o) W_oh diag(φ′_t), a matrix whose
    rank is at most the number of outputs.
    """

    source: ClassVar[str] = "Jordan 1986; Raschka & Mirjalili, Python Machine Learning, chapter 16 (output recurrence)"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_oh": Parameter("recurrent", (outputs, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
            "W_ho": Parameter("readout", (self.width, outputs), ("o",)),
            "b_o": Parameter("readout bias", (outputs,), ("o",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        fed_back = FEEDBACK[self.feedback](state["o"])
        h = observe("h", ACTIVATIONS[self.activation](torch.baddbmm(projected, fed_back, parameters["W_oh"])))
        return {"h": h, "o": observe("o", torch.baddbmm(parameters["b_o"].unsqueeze(1), h, parameters["W_ho"]))}
