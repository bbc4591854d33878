"""The minimal gated unit."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States

GATES = ("f", "h̃")


class MGU(Cell):
    """The minimal gated unit: one gate decides what is read of the state and how much of it is replaced.

        f_t = σ(x_t W_xf + h_{t-1} W_hf + b_f)
        h̃_t = tanh(x_t W_xh̃ + (f_t ⊙ h_{t-1}) W_hh̃ + b_h̃)
        h_t = (1 − f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t,      h_0 = 0

    The paper calls f a forget gate, but f = 1 replaces the state: it is the input gate of `InputBias`, and keeping the
    state needs a negative bias. One input matrix, one recurrent matrix and one bias, with the blocks f, h̃. The paper
    does not say how its weights are drawn.
    """

    source: ClassVar[str] = "Zhou, Wu, Zhang & Zhou 2016 (arXiv 1603.09420), section 3"
    states: ClassVar[tuple[str, ...]] = ("h",)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide = 2 * self.width
        return {
            "W_xh": Parameter("input", (features, wide), GATES),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES),
            "b_h": Parameter("single bias", (wide,), GATES, input_gate="f"),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        gate, candidate = self._gate_and_candidate(parameters, projected, state["h"])
        return {"h": observe("h", torch.lerp(state["h"], candidate, gate))}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        gate, candidate = self._gate_and_candidate(parameters, projected, before["h"])
        return {
            "f": BoundedUnits(gate, 0.0, 1.0),
            "candidate": BoundedUnits(candidate, -1.0, 1.0),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }

    def _gate_and_candidate(self, parameters: Parameters, projected: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        gate_of_x, candidate_of_x = projected.chunk(2, dim=-1)
        to_gate, to_candidate = parameters["W_hh"].chunk(2, dim=-1)
        gate = torch.baddbmm(gate_of_x, h, to_gate).sigmoid()
        return gate, torch.baddbmm(candidate_of_x, gate * h, to_candidate).tanh()
