"""The gated recurrent unit."""

from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Bounded, Cell, Observe, Parameter, Parameters, States

GATES = ("r", "z", "h̃")


class GRU(Cell):
    """The gated recurrent unit: a gate z decides how much of the hidden state is kept, a gate r what of it is read.

    With x_t W_xh + b_h and h_{t-1} W_hh cut into three blocks each, in the order r, z, h̃:

        r_t = σ(x_t W_xr + h_{t-1} W_hr + b_r),  z_t = σ(x_t W_xz + h_{t-1} W_hz + b_z)
        h̃_t = tanh(x_t W_xh̃ + b_h̃ + r_t ⊙ (h_{t-1} W_hh̃ + b_hn))
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ h̃_t,      h_0 = 0

    One recurrent matrix W_hh (width, 3·width), one bias b_h (3·width), and b_hn (width), which r_t multiplies. The same
    function as torch.nn.GRU, whose blocks stand in the same order: its two biases add up to ours for r and z; for the
    candidate they are ours, bias_ih = b_h̃ and bias_hh = b_hn. The gate z keeps: it is what f is to an LSTM.

    Cho et al. 2014 let r multiply h_{t-1} before the matrix; this is the later form, r after the matrix.
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

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        widths = [2 * self.width, self.width]
        gates_of_x, candidate_of_x = projected.split(widths, dim=-1)
        gates_of_h, candidate_of_h = torch.bmm(state["h"], parameters["W_hh"]).split(widths, dim=-1)
        read, keep = (gates_of_x + gates_of_h).sigmoid().chunk(2, dim=-1)
        candidate = torch.addcmul(candidate_of_x, read, candidate_of_h + parameters["b_hn"].unsqueeze(1)).tanh()
        return {"h": observe("h", candidate + keep * (state["h"] - candidate))}

    def bounded(self, parameters: Parameters, projected: Tensor, before: States, after: States) -> dict[str, Bounded]:
        of_x, of_h = projected, torch.bmm(before["h"], parameters["W_hh"])
        (read_x, keep_x, candidate_x), (read_h, keep_h, candidate_h) = of_x.chunk(3, dim=-1), of_h.chunk(3, dim=-1)
        read, keep = (read_x + read_h).sigmoid(), (keep_x + keep_h).sigmoid()
        candidate = (candidate_x + read * (candidate_h + parameters["b_hn"].unsqueeze(1))).tanh()
        return {
            "r": Bounded(read, 0.0, 1.0),
            "z": Bounded(keep, 0.0, 1.0),
            "candidate": Bounded(candidate, -1.0, 1.0),
            "h": Bounded(after["h"], -1.0, 1.0),
        }
