"""One step of a cell and its vector-Jacobian product, traced into a graph of operations.

The graph has one replica and a batch whose size no other axis has. An operation is of one of three kinds: it depends on
the parameters alone (`CONSTANT`: computed once for a pass over time), it has one result for each sequence (`ROW`:
computed at every step), or it is a sum over sequences (`SUM`: the gradient of a parameter, which is linear in the
gradient that arrives and therefore computed once for all steps).
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from rnnstudy.cells.cell import Cell

Kind = Literal["CONSTANT", "ROW", "SUM"]

BATCHES = (1009, 1013)
"""Batch sizes for tracing, prime and larger than most axes; the tensors are fake and take no memory. Two, since a step
that computes with the size of its batch gives two graphs."""

FEATURES, OUTPUTS = 3, 5
"""Sizes for asking whether a cell can be traced, before those of its network are known."""

RANDOM = ("rand", "bernoulli", "dropout", "normal", "multinomial", "uniform")
"""What the names of operations that draw random numbers contain."""


class UntraceableError(Exception):
    """The reason, in words, why no kernel can be made of a step."""


@dataclass(frozen=True)
class StepSizes:
    """What a traced step depends on beside its cell.

    Attributes:
        parameters, prepared: the shapes of the parameters, and of what `Cell.prepared` makes of them, without the
            replica axis.
        read: numbers that a step reads: of x_t, or of p_t where `projects` is false.
        projects: whether p_t = `Cell.project` of x_t is a part of the step.
        differentiates: whether the gradient of what a step reads is computed.
        widths: units of each state.
    """

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    prepared: tuple[tuple[str, tuple[int, ...]], ...]
    read: int
    projects: bool
    differentiates: bool
    widths: tuple[tuple[str, int], ...]

    @staticmethod
    def of(
        parameters: Mapping[str, Tensor], prepared: Mapping[str, Tensor], widths: Mapping[str, int], read: int,
        projects: bool = True, differentiates: bool = False,
    ) -> "StepSizes":  # fmt: skip
        """Raises `UntraceableError` where something prepared is not of one replica, or the same for all."""
        replicas = len(next(iter(parameters.values())))
        for name, value in prepared.items():
            if value.dtype != torch.float32:
                raise UntraceableError(f"'{name}', as the cell prepares it, is of {value.dtype}")
            if value.ndim == 0 or (len(value) != replicas and (len(value) != 1 or value.requires_grad)):
                raise UntraceableError(f"'{name}', as the cell prepares it, has no replica axis")
        raw, made = (
            tuple((name, tuple(one.shape[1:])) for name, one in values.items()) for values in (parameters, prepared)
        )
        return StepSizes(raw, made, read, projects, differentiates, tuple(widths.items()))

    @staticmethod
    def example(cell: Cell, features: int = FEATURES, outputs: int = OUTPUTS) -> "StepSizes":
        """Those of a network with so many features and outputs."""
        parameters = {name: torch.zeros(2, *one.shape) for name, one in cell.parameters(features, outputs).items()}
        widths = {state: cell.state_width(state, outputs) for state in cell.states}
        return StepSizes.of(parameters, cell.prepared(parameters), widths, features)


@dataclass(frozen=True)
class TracedStep:
    """The graph of a step and of its vector-Jacobian product.

    Attributes:
        module: the graph; `module.graph` has the nodes in order.
        batch: the size of the batch in it.
        kinds: of each node that computes something.
        of_gradient: the nodes that depend on the gradient that arrives.
        parameters, prepared, read, before, arriving: the inputs: what `project` and `step` read, x_t or p_t, the states
            s_{t−1}, and dL/ds_t of each state.
        after: s_t of each state.
        at_before: dL/ds_{t−1} through this step, of each state; None where it is zero, as in the following.
        at_read: dL/dx_t or dL/dp_t; None too where it is not wanted.
        totals: the total derivative dL/ds_t of each state, taken where it is computed.
        at_parameters, at_prepared: the gradient of each parameter, and of what was prepared, of this step.
    """

    module: GraphModule
    batch: int
    kinds: Mapping[Node, Kind]
    of_gradient: frozenset[Node]
    parameters: Mapping[str, Node]
    prepared: Mapping[str, Node]
    read: Node
    before: Mapping[str, Node]
    arriving: Mapping[str, Node]
    after: Mapping[str, Node]
    at_before: Mapping[str, Node | None]
    at_read: Node | None
    totals: Mapping[str, Node | None]
    at_parameters: Mapping[str, Node | None]
    at_prepared: Mapping[str, Node | None]


@functools.lru_cache(maxsize=64)
def traced_step(cell: Cell, sizes: StepSizes) -> TracedStep:
    """The graph of a step. Raises `UntraceableError` where there is none that serves for all batches and values."""
    first, second = (_traced(cell, sizes, batch) for batch in BATCHES)
    texts = [_text(one) for one in (first, second)]
    if texts[0] != texts[1]:
        raise UntraceableError("its step computes with the size of the batch")
    return first


def _text(step: TracedStep) -> list[str]:
    """The graph in words, the same for each size of batch unless it is computed with."""
    found = []
    for node in step.module.graph.nodes:
        where = [str(one).replace(str(step.batch), "batch") for one in (node.args, node.kwargs)]
        # A number that is not a size must not become the word.
        numbers = [one for one in _numbers(node.args) if isinstance(one, float)]
        found.append(f"{node.op} {node.target} {where} {numbers}")
    return found


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [number for one in value for number in _numbers(one)]
    return [value]


def _traced(cell: Cell, sizes: StepSizes, batch: int) -> TracedStep:
    # Here and not above: importing them takes seconds, which only who traces spends.
    from torch._decomp import core_aten_decompositions, get_decompositions
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode(allow_non_fake_inputs=True):
        parameters, prepared = (
            {name: torch.empty(1, *shape) for name, shape in shapes} for shapes in (sizes.parameters, sizes.prepared)
        )
        read = torch.empty(1, batch, sizes.read)
        before, arriving = ({name: torch.empty(1, batch, width) for name, width in sizes.widths} for _ in range(2))
        try:
            trace = make_fx(
                functools.partial(_step_and_product, cell, sizes),
                decomposition_table={**core_aten_decompositions(), **get_decompositions(_composite()), **_own()},
                _allow_non_fake_inputs=True,
            )
            module = trace(parameters, prepared, read, before, arriving)
        except UntraceableError:
            raise
        except Exception as error:
            raise UntraceableError(_why_not(error)) from error
    return _sorted_out(module, cell, sizes, batch)


def _composite() -> list[Any]:
    """Operations that torch regards as elementary, though they are made of others for which there is code."""
    names = ("gelu", "_softmax", "_log_softmax", "native_layer_norm", "elu", "leaky_relu", "hardtanh")
    return [getattr(torch.ops.aten, name) for name in names]


def _own() -> dict[Any, Callable[..., Any]]:
    """The variance by sums, which torch regards as elementary."""
    lerp = torch.ops.aten.lerp
    return {
        # Torch chooses between two formulas by the weight, which keeps compilers from vector code.
        **dict.fromkeys((lerp.Tensor, lerp.Scalar), lambda start, end, weight: start + weight * (end - start)),
        torch.ops.aten.var.correction: lambda *given, **options: _variance(*given, **options)[0],
        torch.ops.aten.var_mean.correction: _variance,
    }


def _variance(
    values: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(values.ndim)) if dim is None else dim
    mean = values.mean(axes, keepdim=True)
    count = math.prod(values.shape[axis] for axis in axes) - (1 if correction is None else correction)
    variance = (values - mean).square().sum(axes, keepdim=keepdim) / count
    return variance, mean if keepdim else values.mean(axes)


def _why_not(error: Exception) -> str:
    """Why a step could not be traced, in words."""
    kind = type(error).__name__
    if "DataDependent" in kind or "_local_scalar_dense" in str(error):
        return "its step decides by the values of its tensors"
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"its step cannot be traced ({kind}: {said})"[:300]


def _step_and_product(
    cell: Cell, sizes: StepSizes, parameters: dict[str, Tensor], prepared: dict[str, Tensor], read: Tensor,
    before: dict[str, Tensor], arriving: dict[str, Tensor],
) -> list[Tensor | None]:  # fmt: skip
    """New states; then the gradients at the previous states, at what was read, at the observed states, and at the
    parameters, raw and prepared."""
    parameters, prepared, before = (
        {name: value.detach().requires_grad_() for name, value in one.items()} for one in (parameters, prepared, before)
    )
    read = read.detach().requires_grad_()
    observed: dict[str, Tensor] = {}

    def observe(name: str, value: Tensor) -> Tensor:
        # A separate node, so that the gradient taken here includes every use of the state and nothing else.
        observed[name] = value.view_as(value)
        return observed[name]

    with torch.enable_grad():
        projected = cell.project(parameters, read) if sizes.projects else read
        after = cell.step(prepared, projected, before, observe)
    for name, value in before.items():
        if after[name].shape != value.shape:
            raise UntraceableError(f"its state '{name}' changes its shape")
    sources = [*before.values(), read, *(observed[name] for name in before), *parameters.values(), *prepared.values()]
    results = {name: value for name, value in after.items() if value.requires_grad}
    gradients: list[Tensor | None] = [None] * len(sources)
    if results:
        at_results = [arriving[name] for name in results]
        gradients = list(torch.autograd.grad(list(results.values()), sources, at_results, allow_unused=True))
    if not sizes.differentiates:
        gradients[len(before)] = None
    return [*(after[name] for name in before), *gradients]


def _sorted_out(module: GraphModule, cell: Cell, sizes: StepSizes, batch: int) -> TracedStep:
    """The graph without what nothing needs, with the kind of each node."""
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or changes_its_argument(node))
    _require_fixed_operations(module)
    inputs = iter(node for node in module.graph.nodes if node.op == "placeholder")
    raw, made, states = ([name for name, _ in one] for one in (sizes.parameters, sizes.prepared, sizes.widths))
    parameters, prepared = ({name: next(inputs) for name in names} for names in (raw, made))
    read = next(inputs)
    before, arriving = ({name: next(inputs) for name in states} for _ in range(2))
    results = iter(next(node for node in module.graph.nodes if node.op == "output").args[0])
    kinds, of_gradient = _kinds(module, {read, *before.values(), *arriving.values()}, set(arriving.values()), batch)
    return TracedStep(
        module, batch, kinds, of_gradient, parameters, prepared, read, before, arriving,
        after={name: next(results) for name in states},
        at_before={name: next(results) for name in states},
        at_read=next(results),
        totals={name: next(results) for name in states},
        at_parameters={name: next(results) for name in raw},
        at_prepared={name: next(results) for name in made},
    )  # fmt: skip


def _require_fixed_operations(module: GraphModule) -> None:
    for node in module.graph.nodes:
        name = str(node.target)
        if node.op == "call_function" and any(word in name for word in RANDOM):
            raise UntraceableError(f"its step draws random numbers ({name})")
        if node.op == "get_attr" and not isinstance(getattr(module, name, None), Tensor):
            raise UntraceableError(f"its step uses {name}, which is no tensor")


def _kinds(
    module: GraphModule, rows: set[Node], gradients: set[Node], batch: int
) -> tuple[dict[Node, Kind], frozenset[Node]]:
    kinds: dict[Node, Kind] = {}
    of_gradient = set(gradients)
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        below = node.all_input_nodes
        if of_gradient & set(below):
            of_gradient.add(node)
        if node not in rows and all(kinds[one] == "CONSTANT" for one in below):
            kinds[node] = "CONSTANT"
            continue
        if any(kinds[one] == "SUM" for one in below) and any(kinds[one] == "ROW" for one in below):
            raise UntraceableError("its step mixes the sequences of a batch")
        axes = batch_axes(node, batch)
        if len(axes) > 1 or (not axes and _holds(node, batch)):
            raise UntraceableError("its step mixes the sequences of a batch")
        kinds[node] = "ROW" if axes else "SUM"
        if not axes and node not in of_gradient:
            raise UntraceableError("its step mixes the sequences of a batch")
    return kinds, frozenset(of_gradient)


def _values(node: Node) -> list[Tensor]:
    value = node.meta.get("val")
    return [one for one in (value if isinstance(value, tuple | list) else [value]) if isinstance(one, Tensor)]


def batch_axes(node: Node, batch: int) -> list[int]:
    """The axes of a node's value (of its first value, if there are several) that are as long as the batch."""
    values = _values(node)
    return [axis for axis, size in enumerate(values[0].shape) if size == batch] if values else []


def _holds(node: Node, batch: int) -> bool:
    """Whether the batch is a part of an axis."""
    return any(size % batch == 0 and size for value in _values(node) for size in value.shape)


class Evaluation:
    """Computes nodes of a traced graph by torch that have no batch axis."""

    def __init__(self, step: TracedStep, known: Mapping[Node, Tensor]) -> None:
        self._step = step
        self._found: dict[Node, Any] = dict(known)

    def extended(self, known: Mapping[Node, Tensor]) -> "Evaluation":
        """With more nodes known, and what was computed."""
        return Evaluation(self._step, {**self._found, **known})

    def value(self, node: Node) -> Any:
        """The node's value, with those of the nodes it needs."""
        if node not in self._found:
            arguments, options = (torch.fx.node.map_aggregate(one, self._resolved) for one in (node.args, node.kwargs))
            if node.op == "get_attr":
                self._found[node] = getattr(self._step.module, str(node.target))
            else:
                function: Callable[..., Any] = node.target  # type: ignore[assignment]
                self._found[node] = function(*arguments, **options)
        return self._found[node]

    def _resolved(self, argument: Any) -> Any:
        return self.value(argument) if isinstance(argument, Node) else argument


def is_item(node: Node) -> bool:
    """Whether a node takes one of several results of an operation."""
    return node.target is operator.getitem


def changes_its_argument(node: Node) -> bool:
    """Whether the operation writes its result into its first argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
