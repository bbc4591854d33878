"""Forward and backward pass of one layer as batched products, with one exponent per sequence for the gradient."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.one_hot import transposed_product, vectors
from rnnstudy.engines.block_float import FLOAT_FORMAT, LOG10_2, ZERO_EXPONENT, BlockFloat, power_of_two
from rnnstudy.engines.explicit_backward import STEPS, Steps


@dataclass(frozen=True)
class LayerGradients:
    """The result of a layer's backward pass.

    Attributes:
        inputs: dL/dx_t (time, replica, batch, features); None unless requested.
        parameters: dL/dθ by name, plain numbers.
        log_norms: log10 ‖dL/ds_t‖ (state, time, replica, batch) in float64; None unless requested.
    """

    inputs: Tensor | None
    parameters: dict[str, Tensor]
    log_norms: Tensor | None


@dataclass(eq=False)
class LayerPass(ABC):
    """One layer over one batch: `forward`, then `backward`, in calls that a CUDA graph can capture.

    No call reads a number on the host, and none depends on another batch of the same shape.

    Attributes:
        output_steps: indices of the steps whose output is returned.
        observed: whether log norms are computed.
        input_gradient: whether dL/dx_t is computed.
        vocabulary: how many symbols there are, where the inputs are symbols (time, replica, batch, 1).
        widths: units of each state.
    """

    cell: Cell
    output_steps: tuple[int, ...]
    observed: bool
    input_gradient: bool
    vocabulary: int | None = None
    widths: tuple[tuple[str, int], ...] = ()

    @abstractmethod
    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        """The outputs (step, replica, batch, width) at the output steps, from `inputs` (time, replica, batch, …)."""

    @abstractmethod
    def backward(self, at_outputs: Tensor) -> LayerGradients:
        """The gradients, given the one at the outputs (step, replica, batch, width)."""

    def outputs_alone(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        """As `forward`, where no backward pass follows."""
        return self.forward(inputs, parameters)

    def values(self, state: str) -> Tensor:
        """s_t for t = 1..T (time, replica, batch, width). Raises `RuntimeError` if it is not kept."""
        raise RuntimeError(f"{type(self).__name__} does not keep the values of state '{state}'")

    def gradient(self, state: str) -> BlockFloat:
        """dL/ds_t: blocks (time, replica, batch), within (width). Raises `RuntimeError` if it is not kept."""
        raise RuntimeError(f"{type(self).__name__} does not keep the gradient of state '{state}'")


class BatchedProducts(LayerPass):
    """A batched product for each step and the elementwise operations of `Steps`, in float32 or float64.

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
        rows = inputs.transpose(0, 1).reshape(replicas, time * batch, -1)
        self.rows = vectors(rows, self.vocabulary, parameters)
        self.steps = STEPS[type(self.cell)](self.cell, parameters)
        self._states = self.steps.forward(self.cell.project(parameters, self.rows).view(replicas, time, batch, -1))
        output = self._states[self.cell.output].transpose(0, 1)
        # A whole sequence as one copy instead of one for each step.
        if len(self.output_steps) == time:
            return output.clone()
        return torch.stack([output[step] for step in self.output_steps])

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        self._propagate_back(at_outputs)
        steps, hidden = self.steps, self._states[self.cell.output]
        # Computed before the gradients are aligned, since the inputs' gradient has each sequence's own exponent.
        at_inputs = None
        if self.input_gradient:
            at_inputs = gradient_of_inputs(steps.at_projected, self.exponents, steps.parameters["W_xh"])
        log_norms = self._log_norms() if self.observed else None
        exponents = align(steps.at_projected, self.exponents)
        if steps.at_product is not steps.at_projected:
            align(steps.at_product, self.exponents)
        at_rows = steps.at_projected.flatten(1, 2)
        mantissas = {"W_xh": transposed_product(self.rows, at_rows), "b_h": at_rows.sum(1)}
        mantissas |= steps.recurrent_gradients(hidden[:, :-1].flatten(1, 2))
        parameters = {name: BlockFloat(value, exponents).values() for name, value in mantissas.items()}
        return LayerGradients(at_inputs, parameters, log_norms)

    def _propagate_back(self, at_outputs: Tensor) -> None:
        """Fill `totals`, `at_projected` and `at_product` of the steps with mantissas, and `exponents`."""
        steps, hidden, last = self.steps, self._states[self.cell.output], self.output_steps[-1]
        replicas, time, batch, width = hidden.shape
        count, output = len(self.cell.states), self.cell.states.index(self.cell.output)
        bias, fraction, integer = FLOAT_FORMAT[hidden.dtype]
        direct = BlockFloat.of(at_outputs, 3)
        index_of = {step: index for index, step in enumerate(self.output_steps)}
        steps.prepare_backward()
        # If the gradients are not read afterwards, every step writes to the same memory.
        shape = (count, replicas, time if self.observed else 1, batch, width)
        steps.totals = hidden.new_empty(shape).expand(-1, -1, time, -1, -1)
        steps.clear_after(last)
        largest = hidden.new_zeros(replicas, time, batch)
        exponents = torch.zeros(replicas, time, batch, dtype=torch.int64, device=hidden.device)
        current, exponent = hidden.new_zeros(count, replicas, batch, width), direct.exponent[-1]
        for t in range(last, -1, -1):
            # Each step adds a biased exponent; the biases are subtracted once, after all steps.
            accumulated_bias = bias * (last - t)
            if t == last:
                current[output] = direct.mantissa[-1]
            elif t in index_of:
                added_exponent = direct.exponent[index_of[t]] + accumulated_bias
                exponent = _add(current, exponent, direct.mantissa[index_of[t]], added_exponent, output)
            torch.linalg.vector_norm(current, torch.inf, dim=(0, 3), out=largest[:, t])
            # A float's exponent bits alone are the largest power of two in it; the inverse is 2^bias for zero.
            bits = largest[:, t].view(integer) & (2 * bias + 1 << fraction)
            exponent = torch.add(exponent, bits >> fraction, out=exponents[:, t])
            inverse = ((2 * bias << fraction) - bits).view(hidden.dtype)
            torch.mul(current, inverse.unsqueeze(-1), out=steps.totals[:, :, t])
            steps.step_backward(t, current)
        exponents -= bias * torch.arange(last + 1, last + 1 - time, -1, device=hidden.device)[:, None]
        self.exponents = torch.where(largest == 0, ZERO_EXPONENT, exponents)

    def values(self, state: str) -> Tensor:
        return self._states[state].transpose(0, 1)

    def gradient(self, state: str) -> BlockFloat:
        total = self.steps.totals[self.cell.states.index(state)]
        return BlockFloat(total.transpose(0, 1), self.exponents.transpose(0, 1))

    def _log_norms(self) -> Tensor:
        mantissas = torch.linalg.vector_norm(self.steps.totals, dim=-1, dtype=torch.float64)
        return (mantissas.log10() + LOG10_2 * self.exponents.double()).transpose(1, 2)


def _add(current: Tensor, exponent: Tensor, added: Tensor, added_exponent: Tensor, output: int) -> Tensor:
    """Add added · 2^added_exponent to current · 2^exponent at the output state, in place; returns the new exponent."""
    # A gradient that has become zero must not keep a large exponent, beside which the added one would be lost.
    zero = torch.linalg.vector_norm(current, torch.inf, dim=(0, 3)) == 0
    exponent = torch.where(zero, ZERO_EXPONENT, exponent)
    shared = torch.maximum(exponent, added_exponent)
    current *= power_of_two(exponent - shared, current.dtype).unsqueeze(-1)
    current[output].addcmul_(added, power_of_two(added_exponent - shared, current.dtype).unsqueeze(-1))
    return shared


def gradient_of_inputs(at_projected: Tensor, exponents: Tensor, weights: Tensor) -> Tensor:
    """dL/dx_t (time, replica, batch, features) as plain numbers, from dL/dp_t · 2^exponents and W_xh."""
    at_rows = at_projected.flatten(1, 2) @ weights.transpose(1, 2)
    return BlockFloat(at_rows.view(*exponents.shape, -1), exponents).values().transpose(0, 1)


def align(values: Tensor, exponents: Tensor) -> Tensor:
    """Rescale values · 2^exponents (replica, time, batch, …) in place to one exponent per replica, which is returned.

    An entry so much smaller than the replica's largest that it leaves a float's range becomes zero.
    """
    shared = exponents.amax((1, 2))
    values *= power_of_two(exponents - shared[:, None, None], values.dtype).unsqueeze(-1)
    return shared
