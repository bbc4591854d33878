"""Steps over time whose backward pass is written out: Elman, LSTM and GRU as batched products and elementwise maps.

All arrays have the replica first, (replica, time, batch, …), so that one step is a slice and all steps of a replica are
the rows of one matrix. With a_t what the step's nonlinearities read, p_t = b_h + x_t W_xh and q_t = h_{t−1} W_hh, the
backward pass of a step turns the gradient that arrives at the states into dL/dp_t and dL/dq_t, which are the same but
for the GRU, and hands on ∂L/∂s_{t−1}. What does not depend on the gradient is computed for all steps at once.
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
        totals: dL/ds_t up to the exponent of its sequence, (state, replica, time, batch, width).
        at_projected: dL/dp_t likewise, (replica, time, batch, gates); after `begin_back`.
        at_product: dL/dq_t likewise; the same tensor where both are equal.
    """

    totals: Tensor
    at_projected: Tensor
    at_product: Tensor

    def __init__(self, cell: Cell, parameters: Parameters) -> None:
        self.cell = cell
        self.parameters = parameters
        self.recurrent = parameters["W_hh"]

    @abstractmethod
    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        """All states s_1, …, s_T (replica, time, batch, width); p (replica, time, batch, gates) is overwritten."""

    @abstractmethod
    def begin_back(self) -> None:
        """What the backward pass needs of the forward pass, for all steps at once."""

    @abstractmethod
    def back(self, t: int, handed_on: Tensor) -> None:
        """One step back: from the gradient at s_t, in `totals`, to that at s_{t−1} (state, replica, batch, width).

        What arrives treats the states as independent of each other; what stays in `totals` is the total derivative.
        """

    def clear_after(self, last: int) -> None:
        """Steps after `last` have no part in the loss."""
        for found in {id(one): one for one in (self.at_projected, self.at_product)}.values():
            found[:, last + 1 :] = 0
        # One step's place stands for all where only one is kept.
        if self.totals.stride(2):
            self.totals[:, :, last + 1 :] = 0

    def recurrent_gradients(self, before: Tensor) -> dict[str, Tensor]:
        """dL/dθ of the parameters that the product with h_{t−1} holds; `before` (replica, rows, width), from step 2."""
        later = self.at_product[:, 1:].flatten(1, 2)
        return {"W_hh": before.transpose(1, 2) @ later}

    def _reserve(self, like: Tensor, blocks: int) -> None:
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

    def begin_back(self) -> None:
        assert isinstance(self.cell, Elman)
        self._reserve(self._h, 1)
        self._slopes = self.cell.slope(self._h)
        self._back = self.recurrent.transpose(1, 2)

    def back(self, t: int, handed_on: Tensor) -> None:
        torch.mul(self.totals[0, :, t], self._slopes[:, t], out=self.at_projected[:, t])
        torch.bmm(self.at_projected[:, t], self._back, out=handed_on[0])


class LSTMSteps(Steps):
    """With its forget gate; gates in the order f, i, o, C̃; states in the order c, h."""

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
            forget, store, show, candidate = self._gates[:, t].unbind(-2)
            torch.mul(store, candidate, out=self._c[:, t])
            if t:
                self._c[:, t].addcmul_(forget, self._c[:, t - 1])
            torch.tanh(self._c[:, t], out=self._tanh_c[:, t])
            torch.mul(show, self._tanh_c[:, t], out=self._h[:, t])
        return {"c": self._c, "h": self._h}

    def begin_back(self) -> None:
        self._reserve(self._h, 4)
        forget, store, show, candidate = self._gates.unbind(-2)
        # dh/dc, and how each gate's argument moves what it leads to: c, or for the output gate h.
        self._by_c = show * (1 - self._tanh_c.square())
        self._slopes = torch.empty_like(self._gates)
        self._slopes[:, 0, :, 0] = 0
        torch.mul(self._c[:, :-1], (forget * (1 - forget))[:, 1:], out=self._slopes[:, 1:, :, 0])
        torch.mul(candidate, store * (1 - store), out=self._slopes[..., 1, :])
        torch.mul(self._tanh_c, show * (1 - show), out=self._slopes[..., 2, :])
        torch.mul(store, 1 - candidate.square(), out=self._slopes[..., 3, :])
        self._at_gates = self.at_projected.view_as(self._gates)
        self._back = self.recurrent.transpose(1, 2)

    def back(self, t: int, handed_on: Tensor) -> None:
        total, at_gates, slopes = self.totals[:, :, t], self._at_gates[:, t], self._slopes[:, t]
        total[0].addcmul_(total[1], self._by_c[:, t])
        torch.mul(total[0].unsqueeze(-2), slopes[..., :2, :], out=at_gates[..., :2, :])
        torch.mul(total[1], slopes[..., 2, :], out=at_gates[..., 2, :])
        torch.mul(total[0], slopes[..., 3, :], out=at_gates[..., 3, :])
        torch.mul(total[0], self._gates[:, t, :, 0], out=handed_on[0])
        torch.bmm(self.at_projected[:, t], self._back, out=handed_on[1])


class GRUSteps(Steps):
    """Gates in the order r, z, h̃. The candidate's part of q_t is multiplied by r_t after its bias b_hn is added."""

    def forward(self, projected: Tensor) -> dict[str, Tensor]:
        replicas, time, batch, _ = projected.shape
        width = self.cell.width
        self._gates = projected.view(replicas, time, batch, 3, width)
        self._h, self._read_of = (projected.new_empty(replicas, time, batch, width) for _ in range(2))
        bias = self.parameters["b_hn"].unsqueeze(1)
        before = projected.new_zeros(replicas, batch, width)
        for t in range(time):
            product = before @ self.recurrent
            gates = projected[:, t, :, : 2 * width]
            gates.add_(product[..., : 2 * width]).sigmoid_()
            read, keep, candidate = self._gates[:, t].unbind(-2)
            torch.add(product[..., 2 * width :], bias, out=self._read_of[:, t])
            candidate.addcmul_(read, self._read_of[:, t]).tanh_()
            # h̃ + z (h_{t−1} − h̃)
            torch.lerp(candidate, before, keep, out=self._h[:, t])
            before = self._h[:, t]
        return {"h": self._h}

    def begin_back(self) -> None:
        self._reserve(self._h, 3)
        self.at_product = torch.empty_like(self.at_projected)
        read, keep, candidate = self._gates.unbind(-2)
        before = torch.cat([torch.zeros_like(self._h[:, :1]), self._h[:, :-1]], dim=1)
        self._keep = keep
        by_candidate = (1 - keep) * (1 - candidate.square())
        by_read = by_candidate * self._read_of * read * (1 - read)
        by_keep = (before - candidate) * keep * (1 - keep)
        self._slopes = torch.stack([by_read, by_keep, by_candidate], dim=-2)
        self._slopes_of_product = torch.stack([by_read, by_keep, by_candidate * read], dim=-2)
        self._back = self.recurrent.transpose(1, 2)

    def back(self, t: int, handed_on: Tensor) -> None:
        total = self.totals[0, :, t].unsqueeze(-2)
        for found, slopes in ((self.at_projected, self._slopes), (self.at_product, self._slopes_of_product)):
            torch.mul(total, slopes[:, t], out=found[:, t].view_as(slopes[:, t]))
        torch.mul(self.totals[0, :, t], self._keep[:, t], out=handed_on[0])
        handed_on[0].baddbmm_(self.at_product[:, t], self._back)

    def recurrent_gradients(self, before: Tensor) -> dict[str, Tensor]:
        bias = self.at_product[..., 2 * self.cell.width :].sum((1, 2))
        return {**super().recurrent_gradients(before), "b_hn": bias}


STEPS: dict[type[Cell], type[Steps]] = {Elman: ElmanSteps, LSTM: LSTMSteps, GRU: GRUSteps}
"""The cells whose backward pass is written out."""


def written_out(cell: Cell) -> bool:
    """Whether `cell` is one of `STEPS`, in a variant that they compute; a subclass may compute something else."""
    return type(cell) in STEPS and (not isinstance(cell, LSTM) or cell.variant == "forget gate")
