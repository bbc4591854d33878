"""Elman, LSTM and GRU with an explicit backward pass: batched products and elementwise operations, no autograd.

All arrays have the replica first, (replica, time, batch, …), so that one step is a slice and all steps of a replica are
the rows of one matrix. With p_t = b_h + x_t W_xh and q_t = h_{t−1} W_hh, the backward pass of a step turns the gradient
that arrives at the states into dL/dp_t and dL/dq_t, which differ only for the GRU, and into ∂L/∂s_{t−1}. Factors that
do not depend on the gradient are computed for all steps at once.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.lstm import LSTM


class Steps(ABC):
    """A layer's steps, forward and back, for one batch.

    Attributes:
        totals: dL/ds_t as mantissas, without the exponent of its sequence: (state, replica, time, batch, width).
        at_projected: dL/dp_t likewise, (replica, time, batch, gates); allocated by `prepare_backward`.
        at_product: dL/dq_t likewise; the same tensor where both are equal.
    """

    totals: Tensor
    at_projected: Tensor
    at_product: Tensor

    def __init__(self, cell: Cell, parameters: Parameters) -> None:
        self.cell = cell
        self.parameters = parameters
        self.recurrent = parameters["W_hh"]
        self.transposed = self.recurrent.transpose(1, 2)

    @abstractmethod
    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        """All states s_1, …, s_T (replica, time, batch, width); p (replica, time, batch, gates) is overwritten."""

    @abstractmethod
    def prepare_backward(self) -> None:
        """Compute, for all steps at once, the factors that the backward pass needs from the forward pass."""

    @abstractmethod
    def step_backward(self, t: int, to_previous: Tensor) -> None:
        """Compute `to_previous`, the gradient at s_{t−1} (state, replica, batch, width), from `totals`, the one at s_t.

        Before the call `totals` treats the states of step t as independent of each other; afterwards it holds the total
        derivative.
        """

    def clear_after(self, last: int) -> None:
        """Set the gradients of the steps after `last` to zero: they do not affect the loss."""
        self.at_projected[:, last + 1 :] = 0
        if self.at_product is not self.at_projected:
            self.at_product[:, last + 1 :] = 0
        # Stride 0: only one step's totals are kept, and all steps share that memory.
        if self.totals.stride(2):
            self.totals[:, :, last + 1 :] = 0

    def recurrent_gradients(self, before: Tensor) -> dict[str, Tensor]:
        """dL/dθ of the parameters used in q_t; `before` holds h_1, …, h_{T−1} (replica, rows, width)."""
        later = self.at_product[:, 1:].flatten(1, 2)
        return {"W_hh": before.transpose(1, 2) @ later}

    def _allocate(self, like: Tensor, blocks: int) -> None:
        self.at_projected = self.at_product = like.new_empty(*like.shape[:-1], blocks * like.shape[-1])


IN_PLACE = {"tanh": torch.tanh_, "relu": torch.relu_, "sigmoid": torch.sigmoid_, "linear": None}


class ElmanSteps(Steps):
    """h_t = φ(p_t + h_{t−1} W_hh)."""

    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        assert isinstance(self.cell, Elman)
        activation = IN_PLACE[self.cell.activation]
        for t in range(projected.shape[1]):
            h = projected[:, t]
            if t:
                h.baddbmm_(projected[:, t - 1], self.recurrent)
            if activation is not None:
                activation(h)
        self._h = projected
        return {"h": projected}

    def prepare_backward(self) -> None:
        assert isinstance(self.cell, Elman)
        self._allocate(self._h, 1)
        self._slopes = self.cell.slope(self._h)

    def step_backward(self, t: int, to_previous: Tensor) -> None:
        torch.mul(self.totals[0, :, t], self._slopes[:, t], out=self.at_projected[:, t])
        torch.bmm(self.at_projected[:, t], self.transposed, out=to_previous[0])


class LSTMSteps(Steps):
    """The LSTM with its forget gate; gates in the order f, i, o, C̃; states in the order c, h."""

    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        replicas, time, batch, _ = projected.shape
        width = self.cell.width
        self._gates = projected.view(replicas, time, batch, 4, width)
        self._c, self._h, self._tanh_c = (projected.new_empty(replicas, time, batch, width) for _ in range(3))
        for t in range(time):
            if t:
                projected[:, t].baddbmm_(self._h[:, t - 1], self.recurrent)
            projected[:, t, :, : 3 * width].sigmoid_()
            projected[:, t, :, 3 * width :].tanh_()
            forget, input_gate, output_gate, candidate = self._gates[:, t].unbind(-2)
            torch.mul(input_gate, candidate, out=self._c[:, t])
            if t:
                self._c[:, t].addcmul_(forget, self._c[:, t - 1])
            torch.tanh(self._c[:, t], out=self._tanh_c[:, t])
            torch.mul(output_gate, self._tanh_c[:, t], out=self._h[:, t])
        return {"c": self._c, "h": self._h}

    def prepare_backward(self) -> None:
        self._allocate(self._h, 4)
        forget, input_gate, output_gate, candidate = self._gates.unbind(-2)
        # dh_t/dc_t, and for each gate the derivative of c_t (for the output gate: of h_t) by the gate's pre-activation.
        self._h_by_c = output_gate * (1 - self._tanh_c.square())
        self._slopes = torch.empty_like(self._gates)
        self._slopes[:, 0, :, 0] = 0
        torch.mul(self._c[:, :-1], (forget * (1 - forget))[:, 1:], out=self._slopes[:, 1:, :, 0])
        torch.mul(candidate, input_gate * (1 - input_gate), out=self._slopes[..., 1, :])
        torch.mul(self._tanh_c, output_gate * (1 - output_gate), out=self._slopes[..., 2, :])
        torch.mul(input_gate, 1 - candidate.square(), out=self._slopes[..., 3, :])
        self._at_gates = self.at_projected.view_as(self._gates)

    def step_backward(self, t: int, to_previous: Tensor) -> None:
        total, at_gates, slopes = self.totals[:, :, t], self._at_gates[:, t], self._slopes[:, t]
        total[0].addcmul_(total[1], self._h_by_c[:, t])
        torch.mul(total[0].unsqueeze(-2), slopes[..., :2, :], out=at_gates[..., :2, :])
        torch.mul(total[1], slopes[..., 2, :], out=at_gates[..., 2, :])
        torch.mul(total[0], slopes[..., 3, :], out=at_gates[..., 3, :])
        torch.mul(total[0], self._gates[:, t, :, 0], out=to_previous[0])
        torch.bmm(self.at_projected[:, t], self.transposed, out=to_previous[1])


class GRUSteps(Steps):
    """The GRU; gates in the order r, z, h̃. To the candidate's part of q_t, b_hn is added and then r_t multiplied."""

    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        replicas, time, batch, _ = projected.shape
        width = self.cell.width
        self._gates = projected.view(replicas, time, batch, 3, width)
        self._h, self._candidate_product = (projected.new_empty(replicas, time, batch, width) for _ in range(2))
        bias = self.parameters["b_hn"].unsqueeze(1)
        before = projected.new_zeros(replicas, batch, width)
        for t in range(time):
            product = before @ self.recurrent
            gates = projected[:, t, :, : 2 * width]
            gates.add_(product[..., : 2 * width]).sigmoid_()
            reset, update, candidate = self._gates[:, t].unbind(-2)
            torch.add(product[..., 2 * width :], bias, out=self._candidate_product[:, t])
            candidate.addcmul_(reset, self._candidate_product[:, t]).tanh_()
            # h̃ + z (h_{t−1} − h̃)
            torch.lerp(candidate, before, update, out=self._h[:, t])
            before = self._h[:, t]
        return {"h": self._h}

    def prepare_backward(self) -> None:
        self._allocate(self._h, 3)
        self.at_product = torch.empty_like(self.at_projected)
        reset, update, candidate = self._gates.unbind(-2)
        before = torch.cat([torch.zeros_like(self._h[:, :1]), self._h[:, :-1]], dim=1)
        self._update = update
        by_candidate = (1 - update) * (1 - candidate.square())
        by_reset = by_candidate * self._candidate_product * reset * (1 - reset)
        by_update = (before - candidate) * update * (1 - update)
        self._slopes = torch.stack([by_reset, by_update, by_candidate], dim=-2)
        self._slopes_of_product = torch.stack([by_reset, by_update, by_candidate * reset], dim=-2)

    def step_backward(self, t: int, to_previous: Tensor) -> None:
        total = self.totals[0, :, t].unsqueeze(-2)
        for gradient, slopes in ((self.at_projected, self._slopes), (self.at_product, self._slopes_of_product)):
            torch.mul(total, slopes[:, t], out=gradient[:, t].view_as(slopes[:, t]))
        torch.mul(self.totals[0, :, t], self._update[:, t], out=to_previous[0])
        to_previous[0].baddbmm_(self.at_product[:, t], self.transposed)

    def recurrent_gradients(self, before: Tensor) -> dict[str, Tensor]:
        return super().recurrent_gradients(before) | {"b_hn": self.at_product[..., 2 * self.cell.width :].sum((1, 2))}


STEPS: dict[type[Cell], type[Steps]] = {Elman: ElmanSteps, LSTM: LSTMSteps, GRU: GRUSteps}
"""The cells with an explicit backward pass."""


def has_explicit_backward(cell: Cell) -> bool:
    """Whether `cell` is one of `STEPS`, in the variant that they compute; a subclass may compute something else."""
    return type(cell) in STEPS and (not isinstance(cell, LSTM) or cell.variant == "forget gate")
