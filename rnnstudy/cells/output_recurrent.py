"""Output recurrence into the output layer."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Observe, Parameter, Parameters, States
from rnnstudy.cells.elman import ACTIVATIONS
from rnnstudy.cells.output_feedback import FEEDBACK, OutputFeedback


class OutputRecurrent(OutputFeedback):
    """Output-to-output recurrence: the output reads the hidden layer and the previous output; h_t has no memory.

    h_t = φ(x_t W_xh + b_h),  o_t = h_t W_ho + ψ(o_{t-1}) W_oo + b_o,  with o_0 = 0, so that t = 1 reads ψ(0).

    φ (`activation`) is one of tanh, relu, sigmoid, linear; ψ (`feedback`) is one of linear, tanh, sigmoid, softmax. The
    loss is computed on o_t (logits, for classes). The network reads its own output, never the target.

    W_oo (outputs, outputs). The only path through time is ∂o_t/∂o_{t-1} = (∂ψ/∂o) W_oo, as wide as the output.
    """

    source: ClassVar[str] = "Raschka & Mirjalili, Python Machine Learning, chapter 16 (output recurrence, W_oo)"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
            "W_ho": Parameter("readout", (self.width, outputs), ("o",)),
            "W_oo": Parameter("recurrent", (outputs, outputs), ("o",)),
            "b_o": Parameter("readout bias", (outputs,), ("o",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        h = observe("h", ACTIVATIONS[self.activation](projected))
        from_hidden = torch.baddbmm(parameters["b_o"].unsqueeze(1), h, parameters["W_ho"])
        fed_back = FEEDBACK[self.feedback](state["o"])
        return {"h": h, "o": observe("o", torch.baddbmm(from_hidden, fed_back, parameters["W_oo"]))}
