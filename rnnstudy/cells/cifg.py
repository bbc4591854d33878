"""Long short-term memory with one gate for forgetting and storing."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import normal

GATES = ("f", "o", "C̃")


class CIFG(Cell):
    """The LSTM with coupled input and forget gate: what is stored is what is forgotten, i_t = 1 − f_t.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h split into three blocks in the order f, o, C̃:

        f_t = σ(a^f),  o_t = σ(a^o),  C̃_t = tanh(a^C̃)
        c_t = f_t ⊙ c_{t-1} + (1 − f_t) ⊙ C̃_t
        h_t = o_t ⊙ tanh(c_t),      c_0 = h_0 = 0

    c_t is a mean of candidates and so stays in (−1, 1). Without peepholes, as torch.nn.LSTM is. Published initial
    weights: all N(0, 0.1²), as in Greff et al. 2017, section IV.
    """

    source: ClassVar[str] = "Greff et al. 2017, sections II-A and III (CIFG)"
    states: ClassVar[tuple[str, ...]] = ("c", "h")

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide, draw = 3 * self.width, normal(0.1)
        return {
            "W_xh": Parameter("input", (features, wide), GATES).drawn_by(draw),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES).drawn_by(draw),
            "b_h": Parameter("single bias", (wide,), GATES, forget_gate="f").drawn_by(draw),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        forget, show, candidate = torch.baddbmm(projected, state["h"], parameters["W_hh"]).chunk(3, dim=-1)
        c = observe("c", torch.lerp(candidate.tanh(), state["c"], forget.sigmoid()))
        return {"c": c, "h": observe("h", show.sigmoid() * c.tanh())}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        forget, show, candidate = torch.baddbmm(projected, before["h"], parameters["W_hh"]).chunk(3, dim=-1)
        return {
            "f": BoundedUnits(forget.sigmoid(), 0.0, 1.0),
            "o": BoundedUnits(show.sigmoid(), 0.0, 1.0),
            "candidate": BoundedUnits(candidate.tanh(), -1.0, 1.0),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }
