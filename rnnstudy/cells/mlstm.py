"""Long short-term memory with a matrix as its cell."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import constant, normal


class MLSTM(Cell):
    """The matrix LSTM of xLSTM: keys and values are added to a matrix C, and a query reads it; no recurrent matrix.

    With q_t, k_t, v_t, a^o_t (`width` numbers each) and a^i_t, a^f_t (one number each) affine in x_t; k_t = x_t W_k/√d
    + b_k with d = `width`:

        m_t = max(a^i, m_{t-1} + log σ(a^f)),   i_t = exp(a^i − m_t),   f_t = exp(m_{t-1} + log σ(a^f) − m_t)
        C_t = f_t C_{t-1} + i_t v_t k_tᵀ,   n_t = f_t n_{t-1} + i_t k_t
        h_t = σ(a^o) ⊙ C_t q_t / max(|n_t · q_t|, exp(−m_t)),      C_0 = n_0 = m_0 = h_0 = 0

    h_t is what it would be without the stabiliser (m = 0, i = exp(a^i), f = σ(a^f), and 1 in the place of exp(−m_t)):
    it does not change when (C, n, m) becomes (C e^{−δ}, n e^{−δ}, m + δ). dL/dm_t is therefore 0, and m is a redundant
    state. W_xh holds the blocks q, k, v, o, and W_xg the gates i, f. C has d² numbers in one row, C_t[v, k] at d·v + k;
    one head. Jacobians have (d² + 2d + 1)² numbers: probes that need them suit small widths, and are refused where
    memory lacks.

    Published initial weights: W_xh from N(0, 2/(5 features)), b_h = 0; W_xg = 0, b_f = 3 and b_i from N(0, 0.1²).
    """

    source: ClassVar[str] = "Beck et al. 2024 (xLSTM), equations 19 to 27 (code: NX-AI/xlstm, blocks/mlstm)"
    states: ClassVar[tuple[str, ...]] = ("m", "C", "n", "h")
    redundant: ClassVar[tuple[str, ...]] = ("m",)

    def state_width(self, state: str, outputs: int) -> int:
        return {"m": 1, "C": self.width**2}.get(state, self.width)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        wide, blocks, gates = 4 * self.width, ("q", "k", "v", "o"), ("i", "f")
        bias = Parameter("single bias", (2,), gates, forget_gate="f", input_gate="i")
        return {
            "W_xh": Parameter("input", (features, wide), blocks).drawn_by(normal(math.sqrt(2 / (5 * features)))),
            "b_h": Parameter("single bias", (wide,), blocks).drawn_by(constant(0.0)),
            "W_xg": Parameter("input", (features, 2), gates).drawn_by(constant(0.0)),
            "b_g": bias.drawn_by(normal(0.1), "i").drawn_by(constant(3.0), "f"),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """q_t, k_t, v_t, a^o_t, a^i_t and a^f_t side by side."""
        q, k, v, o = torch.bmm(inputs, parameters["W_xh"]).chunk(4, dim=-1)
        wide = torch.cat([q, k / math.sqrt(self.width), v, o], dim=-1) + parameters["b_h"].unsqueeze(1)
        return torch.cat([wide, torch.baddbmm(parameters["b_g"].unsqueeze(1), inputs, parameters["W_xg"])], dim=-1)

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        q, k, v, show, store, forget = self._split(projected)
        kept = state["m"] + logsigmoid(forget)
        m = observe("m", torch.maximum(store, kept))
        stored, kept = (store - m).exp(), (kept - m).exp()
        pairs = (v.unsqueeze(-1) * k.unsqueeze(-2)).flatten(-2)
        memory = observe("C", kept * state["C"] + stored * pairs)
        n = observe("n", kept * state["n"] + stored * k)
        read = (memory.unflatten(-1, (self.width, self.width)) @ q.unsqueeze(-1)).squeeze(-1)
        # exp(−m) beyond the range of floats would make the gradient 0 · ∞; up to there it is exact.
        least = (-m).clamp(max=math.log(torch.finfo(m.dtype).max)).exp()
        size = torch.maximum((n * q).sum(-1, keepdim=True).abs(), least)
        return {"m": m, "C": memory, "n": n, "h": observe("h", show.sigmoid() * read / size)}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        *_, show, _, forget = self._split(projected)
        return {"f": BoundedUnits(forget.sigmoid(), 0.0, 1.0), "o": BoundedUnits(show.sigmoid(), 0.0, 1.0)}

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        return projected.split([self.width] * 4 + [1, 1], dim=-1)
