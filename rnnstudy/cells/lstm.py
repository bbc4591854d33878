"""Long short-term memory, with or without forget gate."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States

GATES = ("f", "i", "o", "C̃")


class LSTM(Cell):
    """Long short-term memory: a cell state c that passes from step to step through a gate instead of a matrix.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h split into four blocks in the order f, i, o, C̃:

        f_t = σ(a^f),  i_t = σ(a^i),  o_t = σ(a^o),  C̃_t = tanh(a^C̃)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ C̃_t
        h_t = o_t ⊙ tanh(c_t),      c_0 = h_0 = 0

    One recurrent matrix W_hh (width, 4·width) and one bias b_h (4·width). The same function as torch.nn.LSTM, which has
    the blocks in the order i, f, C̃, o and two biases whose sum is b_h.

    `variant`: "forget gate" is the cell above. "no forget gate" sets f_t = 1: c_t = c_{t-1} + i_t ⊙ C̃_t, with three
    blocks i, o, C̃. "1997" also has no forget gate, and the squashing functions of Hochreiter & Schmidhuber 1997,
    appendix: C̃_t = 4σ(a^C̃) − 2 = 2 tanh(a^C̃/2), in (−2, 2), and h_t = o_t ⊙ (2σ(c_t) − 1) = o_t ⊙ tanh(c_t/2). Its
    gradient is complete: the truncation of the original paper is not part of the cell.
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000; torch.nn.LSTM"
    states: ClassVar[tuple[str, ...]] = ("c", "h")

    variant: Literal["forget gate", "no forget gate", "1997"] = "forget gate"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        has_forget_gate = self.variant == "forget gate"
        gates = GATES if has_forget_gate else GATES[1:]
        wide = len(gates) * self.width
        return {
            "W_xh": Parameter("input", (features, wide), gates),
            "W_hh": Parameter("recurrent", (self.width, wide), gates),
            "b_h": Parameter("bias", (wide,), gates, forget_gate="f" if has_forget_gate else None, input_gate="i"),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        pre_activation = torch.baddbmm(projected, state["h"], parameters["W_hh"])
        gates, candidate = pre_activation.split([pre_activation.shape[-1] - self.width, self.width], dim=-1)
        if self.variant == "forget gate":
            forget, store, show = gates.sigmoid().chunk(3, dim=-1)
            c = observe("c", torch.addcmul(forget * state["c"], store, candidate.tanh()))
            return {"c": c, "h": observe("h", show * c.tanh())}
        store, show = gates.sigmoid().chunk(2, dim=-1)
        # 4σ(a) − 2 = 2 tanh(a/2), and 2σ(c) − 1 = tanh(c/2).
        scale = 2.0 if self.variant == "1997" else 1.0
        c = observe("c", torch.addcmul(state["c"], store, scale * (candidate / scale).tanh()))
        return {"c": c, "h": observe("h", show * (c / scale).tanh())}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        pre_activation = torch.baddbmm(projected, before["h"], parameters["W_hh"])
        *gates, candidate = pre_activation.split(self.width, dim=-1)
        names = ("f", "i", "o") if self.variant == "forget gate" else ("i", "o")
        scale = 2.0 if self.variant == "1997" else 1.0
        return {
            **{name: BoundedUnits(gate.sigmoid(), 0.0, 1.0) for name, gate in zip(names, gates, strict=True)},
            "candidate": BoundedUnits(scale * (candidate / scale).tanh(), -scale, scale),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }
