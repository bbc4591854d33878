"""Long short-term memory with the forget gate alone."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import constant
from rnnstudy.spec import at_least

GATES = ("f", "C̃")


class JANET(Cell):
    """The forget-gate LSTM: one gate, no output gate, and a state that is its own output.

    With a_t = x_t W_xh + h_{t-1} W_hh + b_h split into two blocks in the order f, C̃:

        h_t = σ(a^f) ⊙ h_{t-1} + (1 − σ(a^f − β)) ⊙ tanh(a^C̃),      h_0 = 0

    with β = 1 (`beta`), so that a gate that forgets little still stores something; β = 0 couples the two. Published
    initial biases: b_C̃ = 0, and b_f by the chrono rule, `Published(gate_bias=Chrono(longest=T))`.
    """

    source: ClassVar[str] = "van der Westhuizen & Lasenby 2018 (JANET), section 3"
    states: ClassVar[tuple[str, ...]] = ("h",)

    beta: Annotated[float, at_least(0)] = 1.0

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide = 2 * self.width
        return {
            "W_xh": Parameter("input", (features, wide), GATES),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES),
            "b_h": Parameter("single bias", (wide,), GATES, forget_gate="f").drawn_by(constant(0.0), "C̃"),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        forget, candidate = torch.baddbmm(projected, state["h"], parameters["W_hh"]).chunk(2, dim=-1)
        # 1 − σ(a − β) = σ(β − a)
        stored = (self.beta - forget).sigmoid() * candidate.tanh()
        return {"h": observe("h", torch.addcmul(stored, forget.sigmoid(), state["h"]))}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        forget, candidate = torch.baddbmm(projected, before["h"], parameters["W_hh"]).chunk(2, dim=-1)
        return {"f": BoundedUnits(forget.sigmoid(), 0.0, 1.0), "candidate": BoundedUnits(candidate.tanh(), -1.0, 1.0)}
