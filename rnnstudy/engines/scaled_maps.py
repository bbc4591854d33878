"""What stands between the layers of the scaled engine: a gradient passes through it with its exponents."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.engine import Positionwise, as_rows, over_rows, steps_taken


class Receiver:
    """What a tensor of the scaled engine comes from: it takes the tensor's gradient with exponents.

    Autograd carries plain numbers. What reads the tensor therefore passes its gradient here, and a plain zero through
    autograd, which still decides the order: everything has been received when the backward pass arrives.
    """

    _received: BlockFloat | None = None

    def receive(self, gradient: BlockFloat) -> None:
        """Add a gradient: blocks (time, replica, batch), within (features)."""
        total = gradient if self._received is None else self._received.plus(gradient)
        self._received = total.normalised()

    def complete(self, at_outputs: Tensor) -> BlockFloat:
        """All that has been received and the plain gradient (time, replica, batch, features)."""
        gradient = BlockFloat.of(at_outputs, 3)
        if self._received is not None:
            gradient = gradient.plus(self._received).normalised()
            self._received = None
        return gradient


class ScaledMap(Receiver, ABC):
    """A function of tensors (time, replica, batch, features), some of which other parts of the scaled engine made.

    Attributes:
        below: for each input what it comes from, None for a plain tensor.
        gradient: the gradient of the result, after the backward pass.
    """

    gradient: BlockFloat

    def __init__(self, inputs: Sequence[Tensor], below: Sequence[Receiver | None], parameters: Parameters) -> None:
        self.inputs = [values.detach() for values in inputs]
        self.below = below
        self.parameters = {name: value.detach() for name, value in parameters.items()}

    @abstractmethod
    def result(self) -> Tensor:
        """What the function makes of its inputs."""

    @abstractmethod
    def at_inputs(self) -> list[BlockFloat]:
        """The gradient of each input."""

    def at_parameters(self) -> list[Tensor]:
        """The gradient of each parameter, as plain numbers."""
        return []

    def connected(self, inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
        """The result, connected to autograd."""
        # Connects the result even where nothing requires a gradient.
        anchor = torch.zeros((), device=inputs[0].device, requires_grad=True)
        return _Mapped.apply(self, anchor, *inputs, *parameters.values())


class Stream(ScaledMap):
    """The input itself: what layers read, as a tensor whose complete gradient is kept."""

    def result(self) -> Tensor:
        return self.inputs[0].view_as(self.inputs[0])

    def at_inputs(self) -> list[BlockFloat]:
        return [self.gradient]


class StepsTaken(ScaledMap):
    """The steps `index` of each sequence."""

    def __init__(self, values: Tensor, below: Receiver | None, index: Int[Tensor, "step #replica #batch"]) -> None:
        super().__init__([values], [below], {})
        self._index = index

    def result(self) -> Tensor:
        return steps_taken(self.inputs[0], self._index)

    def at_inputs(self) -> list[BlockFloat]:
        mantissa, exponent = self.gradient.mantissa, self.gradient.exponent
        index = self._index.expand(exponent.shape)
        shape = self.inputs[0].shape
        spread = mantissa.new_zeros(shape).scatter(0, index.unsqueeze(-1).expand(mantissa.shape), mantissa)
        exponents = torch.full(shape[:3], ZERO_EXPONENT, device=exponent.device).scatter(0, index, exponent)
        return [BlockFloat(spread, exponents)]


class PositionwiseMap(ScaledMap):
    """A function of every step of every sequence by itself: the gradients of a row have one exponent."""

    def __init__(
        self, function: Positionwise, inputs: Sequence[Tensor], below: Sequence[Receiver | None], parameters: Parameters
    ) -> None:
        super().__init__(inputs, below, parameters)
        self._function = function

    def result(self) -> Tensor:
        return over_rows(self._function, self.parameters, self.inputs)

    def at_inputs(self) -> list[BlockFloat]:
        leaves = [values.clone().requires_grad_() for values in self.inputs]
        with torch.enable_grad():
            found = over_rows(self._function, self.parameters, leaves)
        gradients = torch.autograd.grad(found, leaves, self.gradient.mantissa, materialize_grads=True)
        return [BlockFloat(values, self.gradient.exponent) for values in gradients]

    def at_parameters(self) -> list[Tensor]:
        if not self.parameters:
            return []
        leaves = {name: value.clone().requires_grad_() for name, value in self.parameters.items()}
        with torch.enable_grad():
            found = self._function(leaves, *map(as_rows, self.inputs))
        arriving, shared = self.gradient.aligned((0, 2))
        gradients = torch.autograd.grad(found, list(leaves.values()), as_rows(arriving), materialize_grads=True)
        return [BlockFloat(values, shared.view(-1)).values() for values in gradients]


class _Mapped(torch.autograd.Function):
    """Connects a `ScaledMap` to autograd: plain numbers, and zeros to what has received its gradient with exponents."""

    @staticmethod
    def forward(ctx: Any, mapped: ScaledMap, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.mapped = mapped
        return mapped.result()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        mapped: ScaledMap = ctx.mapped
        mapped.gradient = mapped.complete(at_outputs)
        count = len(mapped.inputs)
        needed = ctx.needs_input_grad[2:]
        at_inputs: list[Tensor | None] = [None] * count
        if any(needed[:count]):
            for index, gradient in enumerate(mapped.at_inputs()):
                source = mapped.below[index]
                if source is not None:
                    source.receive(gradient)
                    at_inputs[index] = torch.zeros_like(gradient.mantissa)
                elif needed[index]:
                    at_inputs[index] = gradient.values()
        at_parameters: list[Tensor | None] = [None] * len(needed[count:])
        if any(needed[count:]):
            at_parameters = list(mapped.at_parameters())
        return (None, None, *at_inputs, *at_parameters)
