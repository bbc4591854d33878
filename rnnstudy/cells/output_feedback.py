"""The common base of networks that feed back their output."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Parameters, States
from rnnstudy.cells.elman import bounded_activation

FEEDBACK = {"linear": lambda o: o, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softmax": lambda o: o.softmax(-1)}
"""ψ: the function of the previous output that a step reads."""


class OutputFeedback(Cell):
    """A network that reads ψ(o_{t-1}), a function of its previous output; its output o_t is a state.

    `activation` is φ of the hidden layer, `feedback` is ψ. The output o_t is also the argument of the loss (logits, for
    classes). The feedback is the network's own output, never the target (teacher forcing would cut the path).
    """

    states: ClassVar[tuple[str, ...]] = ("h", "o")
    output: ClassVar[str] = "o"
    owns_readout: ClassVar[bool] = True

    activation: Literal["tanh", "relu", "sigmoid", "linear"] = "tanh"
    feedback: Literal["linear", "tanh", "sigmoid", "softmax"] = "linear"

    def state_width(self, state: str, outputs: int) -> int:
        return outputs if state == "o" else self.width

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        return bounded_activation(self.activation, after["h"])
