"""What stands between the layers of the scaled engine: a gradient passes through it with its exponents."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.cells.one_hot import dense_vectors
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.engine import Positionwise, as_rows, over_rows, steps_taken


class Receiver:
    """What a tensor of the scaled engine comes from: it takes the tensor's gradient with exponents.

    Autograd carries plain numbers. What reads the tensor therefore passes its gradient here, and a plain zero through
    autograd, which still decides the order: everything has been received when the backward pass arrives.
    """

    _received: BlockFloat | None = None

    def read_by(self, reader: "Reader", steps: Int[Tensor, "time #replica #batch"]) -> None:
        """Told what reads the tensor, and at which of its own steps it reads each one of the tensor."""

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


class Reader(ABC):
    """What reads a tensor of inputs or symbols, and knows after the backward pass how the loss depends on it."""

    parameters: dict[str, Tensor]

    @abstractmethod
    def gradient_of(
        self, rows: Float[Tensor, "replica rows features"], steps: Int[Tensor, "step #replica #batch"]
    ) -> BlockFloat:
        """The gradient of what is read at the `steps`: of `rows`, one for each of these steps of each sequence."""


class Symbols(Receiver):
    """Symbols, of which the gradient is that of their one-hot vectors.

    Nothing is received here: all these vectors may be large. They are made when asked for, a step at a time.
    """

    def __init__(self, symbols: Int[Tensor, "time replica batch 1"], vocabulary: int) -> None:
        self._symbols, self._vocabulary = symbols, vocabulary
        self._readers: list[tuple[Reader, Tensor]] = []

    def read_by(self, reader: Reader, steps: Int[Tensor, "time #replica #batch"]) -> None:
        self._readers.append((reader, steps))

    def log_norms(self) -> Float[Tensor, "time replica batch"]:
        """log10 of the norm of the gradient of each one-hot vector."""
        return torch.cat([self._gradient(t).log_norms() for t in range(len(self._symbols))])

    def _gradient(self, t: int) -> BlockFloat:
        """At the step with index t: the sum over all that reads it."""
        rows = as_rows(self._symbols[t : t + 1])
        found = [
            reader.gradient_of(dense_vectors(rows, self._vocabulary, reader.parameters), steps[t : t + 1])
            for reader, steps in self._readers
        ]
        return functools.reduce(BlockFloat.plus, found)


class Reordered(Receiver):
    """Symbols in another order of steps: `index` is a permutation of the steps of each sequence."""

    def __init__(self, below: Receiver, index: Int[Tensor, "time #replica #batch"]) -> None:
        self._below, self._index = below, index

    def read_by(self, reader: Reader, steps: Int[Tensor, "time #replica #batch"]) -> None:
        # Step t of the symbols is step place[t] here.
        place = self._index.argsort(0)
        self._below.read_by(reader, steps_taken(steps.expand(-1, *place.shape[1:]), place))


def gradient_of_rows(
    function: Callable[[Tensor], Tensor],
    rows: Float[Tensor, "replica rows features"],
    gradient: BlockFloat,
    steps: Int[Tensor, "step #replica #batch"],
) -> BlockFloat:
    """The gradient of `rows`, one for each of the `steps` of each sequence, from that of their function at all."""
    rows = rows.requires_grad_()
    with torch.enable_grad():
        found = function(rows)
    arriving, exponent = steps_taken(gradient.mantissa, steps), steps_taken(gradient.exponent, steps)
    [at_rows] = torch.autograd.grad(found, rows, as_rows(arriving))
    count, replicas, batch = exponent.shape
    return BlockFloat(at_rows.view(replicas, count, batch, -1).transpose(0, 1), exponent)


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

    def log_norms(self) -> Float[Tensor, "time replica batch"]:
        """log10 of the norm of the gradient at each step."""
        return self.gradient.log_norms()


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


class PositionwiseMap(ScaledMap, Reader):
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

    def gradient_of(self, rows: Tensor, steps: Tensor) -> BlockFloat:
        return gradient_of_rows(functools.partial(self._function, self.parameters), rows, self.gradient, steps)

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
