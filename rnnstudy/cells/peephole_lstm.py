"""Long short-term memory whose gates see the cell state."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import normal
from rnnstudy.cells.lstm import GATES


class PeepholeLSTM(Cell):
    """The LSTM with peepholes: each gate also reads the cell state, unit by unit.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h split into four blocks in the order f, i, o, C̃, and three vectors p:

        f_t = σ(a^f + p_f ⊙ c_{t-1}),  i_t = σ(a^i + p_i ⊙ c_{t-1}),  C̃_t = tanh(a^C̃)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ C̃_t
        o_t = σ(a^o + p_o ⊙ c_t),  h_t = o_t ⊙ tanh(c_t),      c_0 = h_0 = 0

    The path along the cell state is no longer the gate alone: with h_{t-1} held fixed,
    ∂c_t/∂c_{t-1} = f_t + p_f ⊙ f_t (1 − f_t) c_{t-1} + p_i ⊙ i_t (1 − i_t) C̃_t. The gradient is complete, without the
    truncation of the first papers. Published initial weights: all N(0, 0.1²), as in Greff et al. 2017, section IV.
    """

    source: ClassVar[str] = "Gers, Schraudolph & Schmidhuber 2002; Greff et al. 2017, section II-A"
    states: ClassVar[tuple[str, ...]] = ("c", "h")

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide, draw = 4 * self.width, normal(0.1)
        return {
            "W_xh": Parameter("input", (features, wide), GATES).drawn_by(draw),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES).drawn_by(draw),
            "p": Parameter("diagonal", (3 * self.width,), GATES[:3]).drawn_by(draw),
            "b_h": Parameter("single bias", (wide,), GATES, forget_gate="f", input_gate="i").drawn_by(draw),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        forget, store, show, candidate = torch.baddbmm(projected, state["h"], parameters["W_hh"]).chunk(4, dim=-1)
        to_forget, to_store, to_show = parameters["p"].unsqueeze(1).chunk(3, dim=-1)
        kept = (forget + to_forget * state["c"]).sigmoid() * state["c"]
        c = observe("c", kept + (store + to_store * state["c"]).sigmoid() * candidate.tanh())
        return {"c": c, "h": observe("h", (show + to_show * c).sigmoid() * c.tanh())}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        forget, store, show, candidate = torch.baddbmm(projected, before["h"], parameters["W_hh"]).chunk(4, dim=-1)
        to_forget, to_store, to_show = parameters["p"].unsqueeze(1).chunk(3, dim=-1)
        return {
            "f": BoundedUnits((forget + to_forget * before["c"]).sigmoid(), 0.0, 1.0),
            "i": BoundedUnits((store + to_store * before["c"]).sigmoid(), 0.0, 1.0),
            "o": BoundedUnits((show + to_show * after["c"]).sigmoid(), 0.0, 1.0),
            "candidate": BoundedUnits(candidate.tanh(), -1.0, 1.0),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }
