"""The gated recurrent unit."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States

GATES = ("r", "z", "h̃")


class GRU(Cell):
    """The gated recurrent unit: gate z decides how much of the hidden state is kept, gate r how much of it is read.

    With x_t W_xh + b_h and h_{t-1} W_hh split into three blocks each, in the order r, z, h̃:

        r_t = σ(x_t W_xr + h_{t-1} W_hr + b_r),  z_t = σ(x_t W_xz + h_{t-1} W_hz + b_z)
        h̃_t = tanh(x_t W_xh̃ + b_h̃ + r_t ⊙ (h_{t-1} W_hh̃ + b_hn))
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ h̃_t,      h_0 = 0

    One recurrent matrix W_hh (width, 3·width), one bias b_h (3·width), and b_hn (width), which r_t multiplies. The same
    function as torch.nn.GRU, with the blocks in the same order: for r and z, b_h is the sum of the two biases of
    torch.nn; for the candidate, b_h̃ = bias_ih and b_hn = bias_hh. The gate z corresponds to f of an LSTM.

    In Cho et al. 2014, r multiplies h_{t-1} before the matrix; this is the later form, with r after the matrix.
    """

    source: ClassVar[str] = "Cho et al. 2014; torch.nn.GRU"
    states: ClassVar[tuple[str, ...]] = ("h",)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide = 3 * self.width
        return {
            "W_xh": Parameter("input", (features, wide), GATES),
            "W_hh": Parameter("recurrent", (self.width, wide), GATES),
            "b_h": Parameter("bias", (wide,), GATES, single=("h̃",), forget_gate="z"),
            "b_hn": Parameter("single bias", (self.width,), ("h̃",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        widths = [2 * self.width, self.width]
        gates_of_x, candidate_of_x = projected.split(widths, dim=-1)
        gates_of_h, candidate_of_h = torch.bmm(state["h"], parameters["W_hh"]).split(widths, dim=-1)
        read, keep = (gates_of_x + gates_of_h).sigmoid().chunk(2, dim=-1)
        candidate = torch.addcmul(candidate_of_x, read, candidate_of_h + parameters["b_hn"].unsqueeze(1)).tanh()
        return {"h": observe("h", candidate + keep * (state["h"] - candidate))}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        read_x, keep_x, candidate_x = projected.chunk(3, dim=-1)
        read_h, keep_h, candidate_h = torch.bmm(before["h"], parameters["W_hh"]).chunk(3, dim=-1)
        read, keep = (read_x + read_h).sigmoid(), (keep_x + keep_h).sigmoid()
        candidate = (candidate_x + read * (candidate_h + parameters["b_hn"].unsqueeze(1))).tanh()
        return {
            "r": BoundedUnits(read, 0.0, 1.0),
            "z": BoundedUnits(keep, 0.0, 1.0),
            "candidate": BoundedUnits(candidate, -1.0, 1.0),
            "h": BoundedUnits(after["h"], -1.0, 1.0),
        }
