"""Long short-term memory with an exponential input gate."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import constant, given, normal

GATES = ("i", "f", "z", "o")


class SLSTM(Cell):
    """The scalar LSTM of xLSTM: an exponential input gate, a normaliser n, and a stabiliser m that keeps both in range.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h split into four blocks in the order i, f, z, o:

        m_t = max(a^i, m_{t-1} + log σ(a^f)),   i_t = exp(a^i − m_t),   f_t = exp(m_{t-1} + log σ(a^f) − m_t)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(a^z),   n_t = f_t ⊙ n_{t-1} + i_t
        h_t = σ(a^o) ⊙ c_t / n_t,      c_0 = n_0 = m_0 = h_0 = 0, and m_1 = a^i, since there is nothing to forget

    c_t/n_t is a weighted mean of the candidates, with weights exp(a^i) times the later gates f. h does not change when
    (c, n, m) becomes (c e^{−d}, n e^{−d}, m + d); the total derivative dL/dm_t is therefore 0, and m is a redundant
    state. One head: the recurrent matrix is full.

    Published initial weights: W_hh = 0; the bias of f falls from 5 to −7 over the units, 5 − 12 (k/(width − 1))^0.3,
    the other biases 0; W_xh from N(0, 2/(5 features)).
    """

    source: ClassVar[str] = "Beck et al. 2024 (xLSTM), section 2.2 (code: NX-AI/xlstm, vanilla/slstm.py)"
    states: ClassVar[tuple[str, ...]] = ("m", "c", "n", "h")
    redundant: ClassVar[tuple[str, ...]] = ("m",)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide = 4 * self.width
        falling = 5 - 12 * (torch.arange(self.width) / max(1, self.width - 1)) ** 0.3
        bias = Parameter("single bias", (wide,), GATES, forget_gate="f", input_gate="i")
        return {
            "W_xh": Parameter("input", (features, wide), GATES).drawn_by(normal(math.sqrt(2 / (5 * features)))),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES).drawn_by(constant(0.0)),
            "b_h": bias.drawn_by(constant(0.0)).drawn_by(given(falling), "f"),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        pre_activation = torch.baddbmm(projected, state["h"], parameters["W_hh"])
        store, forget, candidate, show = pre_activation.chunk(4, dim=-1)
        # Before the first step there is nothing to forget, and m_0 means nothing.
        kept = torch.where(state["n"] == 0, store, state["m"] + logsigmoid(forget))
        m = observe("m", torch.maximum(store, kept))
        stored, kept = (store - m).exp(), (kept - m).exp()
        c = observe("c", torch.addcmul(stored * candidate.tanh(), kept, state["c"]))
        n = observe("n", torch.addcmul(stored, kept, state["n"]))
        return {"m": m, "c": c, "n": n, "h": observe("h", show.sigmoid() * c / n)}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        pre_activation = torch.baddbmm(projected, before["h"], parameters["W_hh"])
        _, forget, candidate, show = pre_activation.chunk(4, dim=-1)
        return {
            "f": BoundedUnits(forget.sigmoid(), 0.0, 1.0),
            "o": BoundedUnits(show.sigmoid(), 0.0, 1.0),
            "candidate": BoundedUnits(candidate.tanh(), -1.0, 1.0),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }
