"""The graph engine: a loop of batched products over time, on CUDA captured in a CUDA graph for each shape."""

import logging
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.engines.engine import Cuts, Engine, Need, Trajectory
from rnnstudy.engines.explicit_backward import written_out
from rnnstudy.engines.layer_pass import BatchedProducts, LayerGradients, LayerPass

logger = logging.getLogger("rnnstudy")

WARM_UPS = 2
"""Passes before a capture: libraries set themselves up in the first ones, which a graph cannot hold."""

MOST_SHAPES = 8
"""Captured shapes kept at once; each holds the memory of its passes, and the one unused for longest goes first."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes work on arrays that stay where they are and gives what does the work again."""


@dataclass(frozen=True)
class Shape:
    """What a capture is made for: all that the loop's operations depend on but the numbers."""

    kind: type[LayerPass]
    cell: Cell
    inputs: tuple[int, ...]
    wanted: tuple[int, ...]
    observed: bool
    at_inputs: bool
    dtype: torch.dtype
    device: torch.device


class Passes(ABC):
    """Forward and backward of a layer, as often as wanted; `uses` counts the forward passes."""

    def __init__(self, shape: Shape) -> None:
        self.layer = shape.kind(shape.cell, shape.wanted, shape.observed, shape.at_inputs)
        self.uses = 0

    @abstractmethod
    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor: ...

    @abstractmethod
    def backward(self, at_outputs: Tensor) -> LayerGradients: ...


class Plain(Passes):
    """A layer pass whose operations are started one by one."""

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        self.uses += 1
        return self.layer.forward(inputs, parameters)

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        return self.layer.backward(at_outputs)


class Captured(Passes):
    """A layer pass on arrays that stay where they are, forward and backward each recorded once and then replayed.

    What `forward` and `backward` give is copied out; what the layer pass itself holds is overwritten by the next call.
    """

    def __init__(self, shape: Shape, inputs: Tensor, parameters: Parameters, record: Capture) -> None:
        super().__init__(shape)
        self._inputs = inputs.clone()
        self._parameters = {name: value.clone() for name, value in parameters.items()}
        self._outputs: Tensor
        self._found: LayerGradients
        self._forward = record(self._work_forward)
        self._at_outputs = torch.zeros_like(self._outputs)
        self._backward = record(self._work_backward)

    def _work_forward(self) -> None:
        self._outputs = self.layer.forward(self._inputs, self._parameters)

    def _work_backward(self) -> None:
        self._found = self.layer.backward(self._at_outputs)

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        self.uses += 1
        self._inputs.copy_(inputs)
        for name, value in parameters.items():
            self._parameters[name].copy_(value)
        self._forward()
        return self._outputs.clone()

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        self._at_outputs.copy_(at_outputs)
        self._backward()
        inputs, norms = self._found.inputs, self._found.log_norms
        return LayerGradients(
            None if inputs is None else inputs.clone(),
            {name: value.clone() for name, value in self._found.parameters.items()},
            None if norms is None else norms.clone(),
        )


def in_a_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record `work` in a CUDA graph; raises `RuntimeError` when CUDA cannot."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on talking to the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


class PassesInUse:
    """The use of one `Passes` for one forward and one backward pass."""

    def __init__(self, passes: Passes, give_back: Callable[[Passes], None]) -> None:
        self.passes = passes
        # A forward pass whose backward pass never comes gives back too, when nobody can ask for it any more.
        self.end = weakref.finalize(self, give_back, passes)
        self.end.atexit = False


class Backward:
    """What a trajectory reads after the backward pass. Apart from it, since its outputs lead to who fills this in."""

    passes: Passes | None = None
    use: int = 0
    log_norms: Tensor | None = None


class GraphTrajectory(Trajectory):
    """Keeps log norms. States and their gradients can be read until the next forward pass of the same shape."""

    def __init__(self, outputs: Tensor, states: tuple[str, ...], went: Backward) -> None:
        self.outputs = outputs
        self._states = states
        self._went = went

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        self._require(state)
        assert self._went.log_norms is not None
        return self._went.log_norms[self._states.index(state)]

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_t for t = 1..T; after the backward pass."""
        return self._layer(state).values(state)

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t as plain numbers: infinite or zero where they leave a float's range."""
        return self._layer(state).gradient(state).values()

    def _layer(self, state: str) -> LayerPass:
        self._require(state)
        assert self._went.passes is not None
        if self._went.passes.uses != self._went.use:
            raise RuntimeError("a later forward pass of the same shape has overwritten this one's states and gradients")
        return self._went.passes.layer

    def _require(self, state: str) -> None:
        if state not in self._states:
            raise RuntimeError(f"state '{state}' was not observed; observed: {', '.join(self._states) or 'none'}")
        if self._went.passes is None:
            raise RuntimeError("the gradient through time exists only after the backward pass")


class CapturingEngine(Engine):
    """An engine whose layer passes are captured in a CUDA graph each, forward and backward, once for each shape.

    A step then costs the device's time and not the host's. Where the capture fails, the operations are started one by
    one, and that is said once. Passes without gradients are never captured. Products take no TF32 inputs.

    `record` stands in for the capture, in tests.
    """

    kind: ClassVar[type[LayerPass]]

    def __init__(self, record: Capture | None = None) -> None:
        self._record = record
        self._captures = True
        self._free: OrderedDict[Shape, list[Passes]] = OrderedDict()

    def unroll(
        self,
        cell: Cell,
        parameters: Parameters,
        inputs: Float[Tensor, "time replica batch features"],
        *,
        widths: dict[str, int],
        observed: bool,
        steps: Sequence[int] | None = None,
        cuts: Cuts | None = None,
    ) -> GraphTrajectory:
        """As for every engine. Raises `RuntimeError` for a cell that it does not serve."""
        if cuts or not self.serves(cell, frozenset()):
            raise RuntimeError(
                f"the {self.name} engine does not serve {cell!r}{' with cuts' if cuts else ''}; use ReferenceEngine"
            )
        wanted = tuple(range(len(inputs)) if steps is None else sorted(set(steps)))
        went = Backward()
        if torch.is_grad_enabled():
            at_inputs = inputs.requires_grad
            shape = Shape(
                self.kind, cell, tuple(inputs.shape), wanted, observed, at_inputs, inputs.dtype, inputs.device
            )
            # Makes the outputs differentiable where no weight's gradient is wanted.
            anchor = torch.zeros((), device=inputs.device, requires_grad=observed)
            names, values = tuple(parameters), tuple(parameters.values())
            outputs = _Unrolled.apply(self, shape, went, names, anchor, inputs, *values)
        else:
            with exact_products():
                outputs = self.kind(cell, wanted, False, False).forward(inputs, parameters)
        return GraphTrajectory(outputs, cell.states if observed else (), went)

    def lease(self, shape: Shape, inputs: Tensor, parameters: Parameters) -> PassesInUse:
        """The use of passes for this shape: of free ones, or of new ones."""
        free = self._free.setdefault(shape, [])
        self._free.move_to_end(shape)
        while len(self._free) > MOST_SHAPES:
            self._free.popitem(last=False)
        passes = free.pop() if free else self._new(shape, inputs, parameters)
        # A list that has been left out above takes back too, and goes with its last user.
        return PassesInUse(passes, free.append)

    def _new(self, shape: Shape, inputs: Tensor, parameters: Parameters) -> Passes:
        record = self._record or (in_a_cuda_graph if shape.device.type == "cuda" else None)
        if record is not None and self._captures:
            try:
                return Captured(shape, inputs, parameters, record)
            except RuntimeError as error:
                self._captures = False
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                logger.warning("no CUDA graph could be captured, so the loop runs slower without one: %s", reason)
        return Plain(shape)


class GraphEngine(CapturingEngine):
    """Elman, LSTM with its forget gate, and GRU, on any device, in float32 or float64, as batched products.

    The gradient carried back has an exponent for each sequence: `log_norms` are right beyond a float's range.
    """

    name = "graph"
    kind: ClassVar[type[LayerPass]] = BatchedProducts

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return "cuts" not in needs and written_out(cell)


class _Unrolled(torch.autograd.Function):
    """(inputs, parameters) to the outputs at the wanted steps."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: CapturingEngine,
        shape: Shape,
        went: Backward,
        names: tuple[str, ...],
        anchor: Tensor,
        inputs: Tensor,
        *values: Tensor,
    ) -> Tensor:
        inputs, parameters = inputs.detach(), dict(zip(names, (value.detach() for value in values), strict=True))
        with exact_products():
            ctx.lease = engine.lease(shape, inputs, parameters)
            outputs = ctx.lease.passes.forward(inputs, parameters)
        ctx.went, ctx.names, ctx.use = went, names, ctx.lease.passes.uses
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        passes: Passes = ctx.lease.passes
        if passes.uses != ctx.use:
            raise RuntimeError("a later forward pass of the same shape has overwritten this one; it goes back once")
        with exact_products():
            found = passes.backward(at_outputs)
        ctx.went.passes, ctx.went.use, ctx.went.log_norms = passes, ctx.use, found.log_norms
        ctx.lease.end()
        wanted = ctx.needs_input_grad[6:]
        at_values = [found.parameters[name] if one else None for name, one in zip(ctx.names, wanted, strict=True)]
        return None, None, None, None, None, found.inputs, *at_values


@contextmanager
def exact_products() -> Iterator[None]:
    """Meanwhile, CUDA's matrix products take no TF32 inputs.

    TF32 keeps ten bits of each factor: over 200 steps the norms of a gradient then err by a tenth of a decade, and by
    decades where the network is chaotic.
    """
    matmul = torch.backends.cuda.matmul
    try:
        allowed = matmul.allow_tf32
    except RuntimeError:
        # Set through torch's newer name alone, after which the older one cannot be read.
        before = matmul.fp32_precision
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before
        return
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = allowed
