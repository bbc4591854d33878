"""The graph engine: a loop over time, on CUDA captured in one CUDA graph per shape."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.engines.autograd_pass import AutogradPass
from rnnstudy.engines.engine import Engine, LayerRun, Need, Trajectory, require_gradient
from rnnstudy.engines.explicit_backward import has_explicit_backward
from rnnstudy.engines.layer_pass import BatchedProducts, LayerGradients, LayerPass

logger = logging.getLogger("rnnstudy")

WARM_UPS = 2
"""Passes before a capture: libraries initialise themselves in the first ones, which a graph cannot capture."""

MOST_SHAPES = 8
"""The most shapes kept; each holds the memory of its passes, and the one unused for longest is dropped first."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Captures a function that works in place on fixed arrays, and returns its replay."""


@dataclass(frozen=True)
class Shape:
    """What a capture depends on: everything that decides which operations run, and none of the numbers."""

    kind: type[LayerPass]
    cell: Cell
    output_steps: tuple[int, ...]
    observed: bool
    inputs: tuple[int, ...]
    input_gradient: bool
    dtype: torch.dtype
    device: torch.device
    vocabulary: int | None
    widths: tuple[tuple[str, int], ...] = ()


class Passes:
    """The forward and backward pass of a layer, to be run repeatedly, here with operations launched one by one.

    `uses` counts the forward passes.
    """

    def __init__(self, shape: Shape) -> None:
        of_inputs = shape.input_gradient, shape.vocabulary
        self.layer = shape.kind(shape.cell, shape.output_steps, shape.observed, *of_inputs, shape.widths)
        self.uses = 0

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        self.uses += 1
        return self.layer.forward(inputs, parameters)

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        return self.layer.backward(at_outputs)


class Captured(Passes):
    """A layer pass on fixed arrays; forward and backward are each captured once and then replayed.

    `forward` and `backward` return copies; what the layer pass itself holds is overwritten by the next call.
    """

    def __init__(self, shape: Shape, inputs: Tensor, parameters: Parameters, capture: Capture) -> None:
        super().__init__(shape)
        self._inputs = inputs.clone()
        self._parameters = {name: value.clone() for name, value in parameters.items()}
        self._outputs: Tensor
        self._gradients: LayerGradients
        self._replay_forward = capture(self._run_forward)
        self._at_outputs = torch.zeros_like(self._outputs)
        self._replay_backward = capture(self._run_backward)

    def _run_forward(self) -> None:
        self._outputs = self.layer.forward(self._inputs, self._parameters)

    def _run_backward(self) -> None:
        self._gradients = self.layer.backward(self._at_outputs)

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        self.uses += 1
        self._inputs.copy_(inputs)
        for name, value in parameters.items():
            self._parameters[name].copy_(value)
        self._replay_forward()
        return self._outputs.clone()

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        self._at_outputs.copy_(at_outputs)
        self._replay_backward()
        inputs, norms = self._gradients.inputs, self._gradients.log_norms
        return LayerGradients(
            None if inputs is None else inputs.clone(),
            {name: value.clone() for name, value in self._gradients.parameters.items()},
            None if norms is None else norms.clone(),
        )


def capture_in_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture `work` in a CUDA graph; raises `RuntimeError` when CUDA cannot."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device during the capture.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


class PassesInUse:
    """A `Passes` reserved for one forward and one backward pass; `release` makes it free again."""

    def __init__(self, passes: Passes, release: Callable[[Passes], None]) -> None:
        self.passes = passes
        # If the backward pass never runs, the passes are released when this object is garbage-collected.
        self.release = weakref.finalize(self, release, passes)
        self.release.atexit = False


class BackwardResult:
    """What a trajectory reads after the backward pass.

    Separate from the trajectory, since autograd's graph refers to this object and the trajectory refers to the graph.
    """

    passes: Passes | None = None
    use: int = 0
    log_norms: Tensor | None = None


class GraphTrajectory(Trajectory):
    """Keeps log norms. States and their gradients can be read until the next forward pass of the same shape."""

    def __init__(self, outputs: Tensor, states: tuple[str, ...], backward_result: BackwardResult) -> None:
        self.outputs = outputs
        self._states = states
        self._result = backward_result

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        require_gradient(state, self._states, self._result.passes is not None)
        assert self._result.log_norms is not None
        return self._result.log_norms[self._states.index(state)]

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_t for t = 1..T; after the backward pass."""
        return self._layer(state).values(state)

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t as plain numbers: infinite or zero where they leave a float's range."""
        return self._layer(state).gradient(state).values()

    def _layer(self, state: str) -> LayerPass:
        require_gradient(state, self._states, self._result.passes is not None)
        assert self._result.passes is not None
        if self._result.passes.uses != self._result.use:
            raise RuntimeError("a later forward pass of the same shape has overwritten this one's states and gradients")
        return self._result.passes.layer


class CapturingEngine(Engine):
    """An engine that captures each layer's forward and backward pass in a CUDA graph, once per shape.

    A step then costs the device's time and not the host's. If the capture fails, the operations are launched one by
    one, and a warning is logged once. Passes without gradients are never captured. Products take no TF32 inputs.

    `capture` replaces the capture in a CUDA graph, for tests.
    """

    kind: ClassVar[type[LayerPass]]

    def __init__(self, capture: Capture | None = None) -> None:
        self._capture = capture
        self._can_capture = True
        self._free: OrderedDict[Shape, list[Passes]] = OrderedDict()

    def kind_of(self, cell: Cell) -> type[LayerPass]:
        """How the layer pass of a cell is computed."""
        return self.kind

    def unroll_layer(self, run: LayerRun) -> GraphTrajectory:
        """As for every engine. Raises `RuntimeError` for a cell that it does not serve."""
        cell, parameters, inputs, observed = run.cell, run.parameters, run.inputs, run.observed
        if run.changes_gradients or not self.serves(cell, frozenset()):
            what = f"{cell!r}{' with changed gradients' if run.changes_gradients else ''}"
            raise RuntimeError(f"the {self.name} engine does not serve {what}; use ReferenceEngine")
        backward_result = BackwardResult()
        widths = tuple((state, run.widths[state]) for state in cell.states)
        if torch.is_grad_enabled():
            dtype = next(iter(parameters.values())).dtype
            of_inputs = tuple(inputs.shape), inputs.requires_grad, dtype, inputs.device
            shape = Shape(self.kind_of(cell), cell, run.output_steps, observed, *of_inputs, run.vocabulary, widths)
            # Makes the outputs differentiable where no weight's gradient is needed.
            anchor = torch.zeros((), device=inputs.device, requires_grad=observed)
            names = tuple(parameters)
            outputs = _Unrolled.apply(self, shape, backward_result, names, anchor, inputs, *parameters.values())
        else:
            with exact_products():
                layer = self.kind_of(cell)(cell, run.output_steps, False, False, run.vocabulary, widths)
                outputs = layer.outputs_alone(inputs, parameters)
        return GraphTrajectory(outputs, cell.states if observed else (), backward_result)

    def reserve(self, shape: Shape, inputs: Tensor, parameters: Parameters) -> PassesInUse:
        """Passes for this shape: free ones, or else new ones."""
        free = self._free.setdefault(shape, [])
        self._free.move_to_end(shape)
        while len(self._free) > MOST_SHAPES:
            self._free.popitem(last=False)
        passes = free.pop() if free else self._new(shape, inputs, parameters)
        # A list dropped above still receives its passes, and is freed with the last of its users.
        return PassesInUse(passes, free.append)

    def _new(self, shape: Shape, inputs: Tensor, parameters: Parameters) -> Passes:
        capture = self._capture or (capture_in_cuda_graph if shape.device.type == "cuda" else None)
        if capture is not None and self._can_capture:
            try:
                return Captured(shape, inputs, parameters, capture)
            except RuntimeError as error:
                self._can_capture = False
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                logger.warning("no CUDA graph could be captured, so the loop runs slower without one: %s", reason)
        return Passes(shape)


class GraphEngine(CapturingEngine):
    """Every cell, on any device, in float32 or float64.

    Elman, LSTM with its forget gate, and GRU are batched products with an explicit backward pass; of every other cell,
    each step and its vector-Jacobian product by autograd is captured. A step that makes the host wait for the device,
    such as one that decides by the values of its tensors, cannot be captured.

    The gradient propagated back has one exponent per sequence: `log_norms` are right beyond a float's range.
    """

    name = "graph"
    kind: ClassVar[type[LayerPass]] = BatchedProducts

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return needs <= {"states and their gradients"}

    def kind_of(self, cell: Cell) -> type[LayerPass]:
        return self.kind if has_explicit_backward(cell) else AutogradPass


class _Unrolled(torch.autograd.Function):
    """From (inputs, parameters) to the outputs at the output steps."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: CapturingEngine,
        shape: Shape,
        backward_result: BackwardResult,
        names: tuple[str, ...],
        anchor: Tensor,
        inputs: Tensor,
        *values: Tensor,
    ) -> Tensor:
        inputs, parameters = inputs.detach(), dict(zip(names, (value.detach() for value in values), strict=True))
        with exact_products():
            ctx.in_use = engine.reserve(shape, inputs, parameters)
            outputs = ctx.in_use.passes.forward(inputs, parameters)
        ctx.backward_result, ctx.names, ctx.use = backward_result, names, ctx.in_use.passes.uses
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        passes: Passes = ctx.in_use.passes
        if passes.uses != ctx.use:
            raise RuntimeError(
                "a later forward pass of the same shape has overwritten this one; only one backward pass is possible"
            )
        with exact_products():
            gradients = passes.backward(at_outputs)
        result: BackwardResult = ctx.backward_result
        result.passes, result.use, result.log_norms = passes, ctx.use, gradients.log_norms
        ctx.in_use.release()
        needed = zip(ctx.names, ctx.needs_input_grad[6:], strict=True)
        at_values = [gradients.parameters[name] if wanted else None for name, wanted in needed]
        return None, None, None, None, None, gradients.inputs, *at_values


@contextmanager
def exact_products() -> Iterator[None]:
    """Within this context, CUDA's matrix products take no TF32 inputs.

    TF32 keeps ten bits of each factor: over 200 steps the norms of a gradient then err by a tenth of a decade, and by
    decades if the network is chaotic.
    """
    matmul = torch.backends.cuda.matmul
    try:
        attribute, exact, before = "allow_tf32", False, matmul.allow_tf32
    except RuntimeError:
        # Set through torch's newer attribute alone, after which the older one cannot be read.
        attribute, exact, before = "fp32_precision", "ieee", matmul.fp32_precision
    setattr(matmul, attribute, exact)
    try:
        yield
    finally:
        setattr(matmul, attribute, before)
