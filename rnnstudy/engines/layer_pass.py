"""A layer's way forward and back as batched products, its gradient carried back with an exponent for each sequence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.engines.block_float import LOG10_2, ZERO_EXPONENT, BlockFloat, power_of_two
from rnnstudy.engines.explicit_backward import STEPS, Steps

_FORMAT = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}
"""Of each type: the integer of the same size, the bits of the fraction, and the exponent's offset."""


@dataclass(frozen=True)
class LayerGradients:
    """What a backward pass found.

    Attributes:
        inputs: dL/dx_t (time, replica, batch, features), where it was asked for.
        parameters: dL/dθ by name, plain numbers.
        log_norms: log10 ‖dL/ds_t‖ (state, time, replica, batch) in float64, where they were asked for.
    """

    inputs: Tensor | None
    parameters: dict[str, Tensor]
    log_norms: Tensor | None


class LayerPass(ABC):
    """One layer over one batch: `forward`, then `backward`, in calls that a CUDA graph can hold.

    No call looks at a number on the host, and none depends on another batch of the same shape.
    """

    def __init__(self, cell: Cell, wanted: Sequence[int], observed: bool, at_inputs: bool) -> None:
        self.cell = cell
        self.wanted = tuple(wanted)
        self.observed = observed
        self.at_inputs = at_inputs

    @abstractmethod
    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        """The outputs (step, replica, batch, width) at the wanted steps, from `inputs` (time, replica, batch, …)."""

    @abstractmethod
    def backward(self, at_outputs: Tensor) -> LayerGradients:
        """The gradients, given the one at the outputs (step, replica, batch, width)."""

    def values(self, state: str) -> Tensor:
        """s_t for t = 1..T (time, replica, batch, width). Raises `RuntimeError` where it is not kept."""
        raise RuntimeError(f"{type(self).__name__} does not keep the values of state '{state}'")

    def gradient(self, state: str) -> BlockFloat:
        """dL/ds_t: blocks (time, replica, batch), within (width). Raises `RuntimeError` where it is not kept."""
        raise RuntimeError(f"{type(self).__name__} does not keep the gradient of state '{state}'")


class BatchedProducts(LayerPass):
    """A batched product for each step and the elementwise maps of `Steps`, in float32 or float64.

    With s_t all states of the layer, the gradient that arrives at step t is

        G_t = ∂⁺L/∂s_t + (∂s_{t+1}/∂s_t)ᵀ G_{t+1} = m_t · 2^{e_t},

    where m_t has its largest entry in [1, 2) for each sequence: scaled by a power of two, hence without rounding.
    See `ScaledEngine`, which does the same for any cell through autograd.
    """

    steps: Steps
    exponents: Tensor
    _states: dict[str, Tensor]

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        time, replicas, batch, _ = inputs.shape
        self.rows = inputs.transpose(0, 1).reshape(replicas, time * batch, -1)
        self.steps = STEPS[type(self.cell)](self.cell, parameters)
        self._states = self.steps.forward(self.cell.project(parameters, self.rows).view(replicas, time, batch, -1))
        output = self._states[self.cell.output].transpose(0, 1)
        # A whole sequence as one copy instead of one for each step.
        return output.clone() if len(self.wanted) == time else torch.stack([output[step] for step in self.wanted])

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        self._carry_back(at_outputs)
        steps, hidden = self.steps, self._states[self.cell.output]
        # Before the gradients are aligned: the inputs' gradient has each sequence's own exponent.
        at_inputs = self._at_inputs() if self.at_inputs else None
        log_norms = self._log_norms() if self.observed else None
        exponents = align(steps.at_projected, self.exponents)
        if steps.at_product is not steps.at_projected:
            align(steps.at_product, self.exponents)
        at_rows = steps.at_projected.flatten(1, 2)
        found = {"W_xh": self.rows.transpose(1, 2) @ at_rows, "b_h": at_rows.sum(1)}
        found |= steps.recurrent_gradients(hidden[:, :-1].flatten(1, 2))
        plain = {name: BlockFloat(value, exponents).values() for name, value in found.items()}
        return LayerGradients(at_inputs, plain, log_norms)

    def _carry_back(self, at_outputs: Tensor) -> None:
        """Fill `totals`, `at_projected` and `at_product` of the steps with mantissas, and `exponents`."""
        steps, hidden, last = self.steps, self._states[self.cell.output], self.wanted[-1]
        replicas, time, batch, width = hidden.shape
        count, output = len(self.cell.states), self.cell.states.index(self.cell.output)
        integer, fraction, offset = _FORMAT[hidden.dtype]
        direct = BlockFloat.of(at_outputs, 3)
        place = {step: index for index, step in enumerate(self.wanted)}
        steps.begin_back()
        # Where nothing is asked of the gradients afterwards, every step writes to the same place.
        shape = (count, replicas, time if self.observed else 1, batch, width)
        steps.totals = hidden.new_empty(shape).expand(-1, -1, time, -1, -1)
        steps.clear_after(last)
        largest = hidden.new_zeros(replicas, time, batch)
        exponents = torch.zeros(replicas, time, batch, dtype=torch.int64, device=hidden.device)
        carried, exponent = hidden.new_zeros(count, replicas, batch, width), direct.exponent[-1]
        for t in range(last, -1, -1):
            # Of the exponents, the format's offset is left out of each step's account until all steps are done.
            left_out = offset * (last - t)
            if t == last:
                carried[output] = direct.mantissa[-1]
            elif t in place:
                own = direct.exponent[place[t]] + left_out
                exponent = _add(carried, exponent, direct.mantissa[place[t]], own, output)
            torch.linalg.vector_norm(carried, torch.inf, dim=(0, 3), out=largest[:, t])
            # The bits of a float's exponent alone are the largest power of two in it; 2^offset stands in for zero.
            bits = largest[:, t].view(integer) & (2 * offset + 1 << fraction)
            exponent = torch.add(exponent, bits >> fraction, out=exponents[:, t])
            inverse = ((2 * offset << fraction) - bits).view(hidden.dtype)
            torch.mul(carried, inverse.unsqueeze(-1), out=steps.totals[:, :, t])
            steps.back(t, carried)
        exponents -= offset * torch.arange(last + 1, last + 1 - time, -1, device=hidden.device)[:, None]
        self.exponents = torch.where(largest == 0, ZERO_EXPONENT, exponents)

    def values(self, state: str) -> Tensor:
        return self._states[state].transpose(0, 1)

    def gradient(self, state: str) -> BlockFloat:
        total = self.steps.totals[self.cell.states.index(state)]
        return BlockFloat(total.transpose(0, 1), self.exponents.transpose(0, 1))

    def _at_inputs(self) -> Tensor:
        at_rows = self.steps.at_projected.flatten(1, 2) @ self.steps.parameters["W_xh"].transpose(1, 2)
        rows = at_rows.view(*self.exponents.shape, -1)
        return BlockFloat(rows, self.exponents).values().transpose(0, 1)

    def _log_norms(self) -> Tensor:
        mantissas = torch.linalg.vector_norm(self.steps.totals, dim=-1, dtype=torch.float64)
        return (mantissas.log10() + LOG10_2 * self.exponents.double()).transpose(1, 2)


def _add(carried: Tensor, exponent: Tensor, direct: Tensor, own: Tensor, output: int) -> Tensor:
    """Add direct · 2^own to carried · 2^exponent at the output state; gives the exponent that both then have."""
    # A gradient of zero that came down from large numbers must not push aside what is added to it.
    zero = torch.linalg.vector_norm(carried, torch.inf, dim=(0, 3)) == 0
    exponent = torch.where(zero, ZERO_EXPONENT, exponent)
    shared = torch.maximum(exponent, own)
    carried *= power_of_two(exponent - shared, carried.dtype).unsqueeze(-1)
    carried[output].addcmul_(direct, power_of_two(own - shared, carried.dtype).unsqueeze(-1))
    return shared


def align(values: Tensor, exponents: Tensor) -> Tensor:
    """Bring values · 2^exponents (replica, time, batch, …) under one exponent for each replica, which is given back.

    In place. What falls below a float's range beside a replica's largest becomes zero.
    """
    shared = exponents.amax((1, 2))
    values *= power_of_two(exponents - shared[:, None, None], values.dtype).unsqueeze(-1)
    return shared
