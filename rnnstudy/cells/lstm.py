"""Long short-term memory, with forget gate."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Bounded, Cell, Observe, Parameter, Parameters, State

GATES = ("f", "i", "o", "C̃")


class LSTM(Cell):
    """Long short-term memory: a cell state c that is carried on by a gate instead of a matrix.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h cut into four blocks in the order f, i, o, C̃:

        f_t = σ(a^f),  i_t = σ(a^i),  o_t = σ(a^o),  C̃_t = tanh(a^C̃)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ C̃_t
        h_t = o_t ⊙ tanh(c_t),      c_0 = h_0 = 0

    One recurrent matrix W_hh (width, 4·width) and one bias b_h (4·width). The same function as torch.nn.LSTM, whose
    blocks stand in the order i, f, C̃, o and whose two biases add up to ours.
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000; torch.nn.LSTM"
    states: ClassVar[tuple[str, ...]] = ("c", "h")

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, 4 * self.width), GATES),
            "W_hh": Parameter("recurrent", (self.width, 4 * self.width), GATES),
            "b_h": Parameter("bias", (4 * self.width,), GATES),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def step(self, parameters: Parameters, projected: Tensor, state: State, observe: Observe) -> dict[str, Tensor]:
        pre_activation = torch.baddbmm(projected, state["h"], parameters["W_hh"])
        gates, candidate = pre_activation.split([3 * self.width, self.width], dim=-1)
        forget, store, show = gates.sigmoid().chunk(3, dim=-1)
        c = observe("c", torch.addcmul(forget * state["c"], store, candidate.tanh()))
        h = observe("h", show * c.tanh())
        return {"c": c, "h": h}

    def bounded(self, parameters: Parameters, projected: Tensor, before: State, after: State) -> dict[str, Bounded]:
        pre_activation = torch.baddbmm(projected, before["h"], parameters["W_hh"])
        forget, store, show, candidate = pre_activation.split(self.width, dim=-1)
        gates = {"f": forget.sigmoid(), "i": store.sigmoid(), "o": show.sigmoid()}
        return {
            **{name: Bounded(values, 0.0, 1.0) for name, values in gates.items()},
            "candidate": Bounded(candidate.tanh(), -1.0, 1.0),
            "h": Bounded(after["h"], -1.0, 1.0),
        }
