"""The recurrences of torch.nn: what each step's backward pass multiplies by, from inputs, states and weights.

Shapes: (time, batch, width), states h_0, …, h_T with h_0 first. Weights are those of torch.nn, (out, in), with the
gates in torch's order. Every class computes the factors of all steps at once, since the states are known; what is left
for the backward pass is one matrix product and a few products of vectors for each step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction.

    Attributes:
        weight_ih, weight_hh: (gates, inputs), (gates, output width).
        bias_ih, bias_hh: (gates), or None.
        weight_hr: (output width, width), the projection of an LSTM with `proj_size`, or None.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None

    def inputs_part(self, inputs: Tensor) -> Tensor:
        """x_t W_ih + b_ih for all steps."""
        return torch.nn.functional.linear(inputs, self.weight_ih, self.bias_ih)

    def states_part(self, states: Tensor) -> Tensor:
        """h_{t−1} W_hh + b_hh for all steps."""
        return torch.nn.functional.linear(states, self.weight_hh, self.bias_hh)


class Recurrence(ABC):
    """The backward pass of one step: from the total dL/dh_t and, for an LSTM, dL/dc_t to those of step t − 1.

    Attributes:
        gates: names of the blocks of the pre-activations, in torch's order.
        width: units of a block.
        has_cell: whether there is a cell state c beside h.
    """

    gates: tuple[str, ...]
    width: int
    has_cell = False

    @abstractmethod
    def step_back(self, t: int, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step back.

        Args:
            t: index of the step, from 0.
            grad_h: (batch, output width), the total dL/dh_t.
            grad_c: (batch, width), the part of dL/dc_t that comes from step t + 1 and from outside; for an LSTM.

        Returns the total dL/dc_t; the parts of dL/dh_{t−1} and dL/dc_{t−1} that come from step t; and δ_t = dL/da_t
        (batch, gates · width), with a_t the pre-activations (for a GRU those that the inputs enter).
        """


class Vanilla(Recurrence):
    """h_t = φ(a_t), a_t = x_t W_ih + h_{t−1} W_hh, φ = tanh or relu.

    δ_t = dL/dh_t ⊙ φ′(a_t), and dL/dh_{t−1} receives δ_t W_hhᵀ.
    """

    gates = ("h",)

    def __init__(self, weights: Weights, states: Tensor, nonlinearity: str) -> None:
        self.width, self.w_hh = states.shape[-1], weights.weight_hh
        after = states[1:]
        self.slope = 1 - after * after if nonlinearity == "tanh" else (after > 0).to(after.dtype)

    def step_back(self, t: int, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        delta = grad_h * self.slope[t]
        return grad_c, delta @ self.w_hh, grad_c, delta


class LongShortTermMemory(Recurrence):
    """c_t = f ⊙ c_{t−1} + i ⊙ g, m_t = o ⊙ tanh(c_t), h_t = m_t or its projection m_t W_hr.

    dL/dm_t = dL/dh_t W_hrᵀ; the total dL/dc_t adds dL/dm_t ⊙ o ⊙ (1 − tanh² c_t) to what comes from c_{t+1}; with
    δ of i, f, g and o from it, dL/dh_{t−1} = δ W_hhᵀ and dL/dc_{t−1} = dL/dc_t ⊙ f.
    """

    gates = ("i", "f", "g", "o")
    has_cell = True

    def __init__(self, weights: Weights, inputs: Tensor, states: Tensor, first_c: Tensor) -> None:
        self.w_hh, self.w_hr = weights.weight_hh, weights.weight_hr
        self.width = first_c.shape[-1]
        pre_activation = weights.inputs_part(inputs) + weights.states_part(states[:-1])
        i, f, g, o = pre_activation.unflatten(-1, (4, self.width)).unbind(-2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        self.cells = cells = i.new_empty(len(i) + 1, *first_c.shape)
        cells[0] = first_c
        added = i * g
        for t in range(len(i)):
            torch.addcmul(added[t], f[t], cells[t], out=cells[t + 1])
        squashed = cells[1:].tanh()
        self.forget = f
        self.to_cell = o * (1 - squashed * squashed)
        # δ of i, f and g are these times dL/dc_t; δ of o is `slope_o` times dL/dm_t.
        self.slopes = torch.stack([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g)], -2)
        self.slope_o = squashed * o * (1 - o)

    def step_back(self, t: int, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad_m = grad_h if self.w_hr is None else grad_h @ self.w_hr
        total = torch.addcmul(grad_c, grad_m, self.to_cell[t])
        through_c = (self.slopes[t] * total.unsqueeze(-2)).flatten(-2)
        delta = torch.cat([through_c, grad_m * self.slope_o[t]], -1)
        return total, delta @ self.w_hh, total * self.forget[t], delta


class GatedRecurrentUnit(Recurrence):
    """r, z = σ(…), n = tanh(x_t W_in + b_in + r ⊙ q), q = h_{t−1} W_hn + b_hn, h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.

    The reset gate multiplies after the product (torch.nn's form), so the candidate's δ reaches h_{t−1} as δ_n ⊙ r.
    """

    gates = ("r", "z", "n")

    def __init__(self, weights: Weights, inputs: Tensor, states: Tensor) -> None:
        self.w_hh, self.width = weights.weight_hh, states.shape[-1]
        before = states[:-1]
        r_in, z_in, n_in = weights.inputs_part(inputs).unflatten(-1, (3, self.width)).unbind(-2)
        r_rec, z_rec, q = weights.states_part(before).unflatten(-1, (3, self.width)).unbind(-2)
        r, z = (r_in + r_rec).sigmoid(), (z_in + z_rec).sigmoid()
        n = (n_in + r * q).tanh()
        slope_n = (1 - z) * (1 - n * n)
        self.update, self.reset = z, r
        # δ of r, z and n are these times dL/dh_t.
        self.slopes = torch.stack([slope_n * q * r * (1 - r), (before - n) * z * (1 - z), slope_n], -2)

    def step_back(self, t: int, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        blocks = self.slopes[t] * grad_h.unsqueeze(-2)
        delta = blocks.flatten(-2)
        recurrent = torch.cat([delta[..., : 2 * self.width], delta[..., 2 * self.width :] * self.reset[t]], -1)
        to_h = torch.addcmul(recurrent @ self.w_hh, grad_h, self.update[t])
        return grad_c, to_h, grad_c, delta
