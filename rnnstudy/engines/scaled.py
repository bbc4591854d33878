"""The scaled engine: any cell, and a gradient through time that may leave the range of floats."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Parameters
from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.engine import Engine, LayerRun, Need, Positionwise, Trajectory, steps_taken
from rnnstudy.engines.layer_unroll import LayerUnroll
from rnnstudy.engines.scaled_maps import PositionwiseMap, Receiver, Reordered, ScaledMap, StepsTaken, Stream, Symbols

MOST_NUMBERS_IN_JACOBIANS = 2**23
"""The most numbers held at once while Jacobians are computed. It affects memory, not results."""


class ScaledEngine(Engine):
    """The gradient is propagated back step by step as mantissa · 2^exponent, with one exponent per sequence.

    With s_t all states of a layer and ∂⁺L/∂s_t what the readout or the layer above adds at step t,

        G_t = ∂⁺L/∂s_t + (∂s_{t+1}/∂s_t)ᵀ G_{t+1},

    where every product is a vector-Jacobian product of one step by autograd, taken on mantissas whose largest entry
    lies in [½, 1), so that no denormal numbers arise and 10⁻³⁰⁰⁰ is a number like any other. Rescaling is by powers of
    two: results equal those of the reference engine up to rounding wherever the latter stays in range. A layer passes
    mantissas and exponents, not plain numbers, to the layer below.

    Parameter gradients come from one vector-Jacobian product over all steps, with one exponent per replica: they leave
    a float's range only where their true value does.

    Requires a cell whose step treats every sequence of the batch independently. Double backward is not supported.

    `layers` holds the trajectories of the network that the engine unrolled last, lowest layer first, and `streams` what
    its layers read, where the network asked for it (`Engine.stream`).

    Source: the idea is that of frexp-scaled forward-backward recursions (Rabiner 1989, section V.A), applied to
    backpropagation through time.
    """

    name = "scaled"

    def __init__(self) -> None:
        self.layers: list[ScaledTrajectory] = []
        self.streams: list[Stream | Symbols] = []
        self._made: list[tuple[Tensor, Receiver]] = []

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return needs <= {"states and their gradients"}

    def unroll_layer(self, run: LayerRun) -> "ScaledTrajectory":
        if run.changes_gradients:
            raise RuntimeError("the scaled engine does not change gradients; `serves` returns False for that")
        [below] = self._sources([run.inputs])
        unroll = LayerUnroll(run, below)
        if below is not None:
            below.read_by(unroll, all_steps(run.inputs))
        if torch.is_grad_enabled():
            # Connects the outputs to this unroll even where no parameter requires a gradient.
            anchor = torch.zeros((), device=run.inputs.device, requires_grad=run.observed)
            outputs = _Unroll.apply(unroll, anchor, run.inputs, *run.parameters.values())
        else:
            outputs = unroll.forward(recorded=False)
        trajectory = ScaledTrajectory(outputs, unroll)
        self.layers.append(trajectory)
        self._made.append((outputs, unroll))
        return trajectory

    def stream(self, values: Tensor) -> Tensor:
        stream = Stream([values], self._sources([values]), {})
        self.streams.append(stream)
        return self._result(stream, [values], {})

    def symbols(self, values: Tensor, vocabulary: int) -> Tensor:
        self._sources([values])
        symbols = Symbols(values, vocabulary)
        self.streams.append(symbols)
        # Another tensor than `values`, which a later network may read.
        self._made.append((values.view_as(values), symbols))
        return self._made[-1][0]

    def taken(self, values: Tensor, index: Int[Tensor, "step #replica #batch"]) -> Tensor:
        [below] = self._sources([values])
        if values.is_floating_point() or below is None:
            return self._result(StepsTaken(values, below, index), [values], {})
        self._made.append((steps_taken(values, index), Reordered(below, index)))
        return self._made[-1][0]

    def positionwise(self, function: Positionwise, parameters: Parameters, *inputs: Tensor) -> Tensor:
        below = self._sources(inputs)
        mapped = PositionwiseMap(function, inputs, below, parameters)
        for source, values in zip(below, inputs, strict=True):
            if source is not None:
                source.read_by(mapped, all_steps(values))
        return self._result(mapped, inputs, parameters)

    def _sources(self, inputs: Sequence[Tensor]) -> list[Receiver | None]:
        """What each input comes from; where none is this engine's, a new network begins."""
        found = [next((source for made, source in self._made if made is values), None) for values in inputs]
        if not any(found):
            self.layers, self.streams, self._made = [], [], []
        return found

    def _result(self, mapped: ScaledMap, inputs: Sequence[Tensor], parameters: Parameters) -> Tensor:
        result = mapped.connected(inputs, parameters) if torch.is_grad_enabled() else mapped.result()
        self._made.append((result, mapped))
        return result


class ScaledTrajectory(Trajectory):
    """Provides, besides log norms, the states, the gradient of the inputs and of the parameters, and the Jacobians."""

    def __init__(self, outputs: Tensor, unroll: LayerUnroll) -> None:
        self.outputs = outputs
        self.unroll = unroll

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        return self.scaled_gradient(state).log_norms()

    def scaled_gradient(self, state: str) -> BlockFloat:
        """dL/ds_t after the backward pass, the total derivative: blocks (time, replica, batch), within (width)."""
        self.unroll.require(state)
        return BlockFloat(self.unroll.total[state], self.unroll.exponent)

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t as plain numbers: infinite or zero where they leave a float's range."""
        return self.scaled_gradient(state).values()

    def input_log_norms(self) -> Float[Tensor, "time replica batch"]:
        """log10 ‖dL/dx_t‖, with x_t what the layer reads at step t."""
        self.unroll.require()
        return self.unroll.input_log_norms()

    def arriving(self) -> BlockFloat:
        """G_t: the gradient that arrives at the states of step t, taken as independent of each other.

        Blocks (time, replica, batch), within all states side by side. It differs from the total derivative where a
        state is read within its own step: dL/dc_t as `scaled_gradient` returns it includes the path through h_t.
        """
        self.unroll.require()
        return BlockFloat(self.unroll.arriving, self.unroll.exponent)

    def departing(self) -> BlockFloat:
        """(∂s_t/∂s_{t−1})ᵀ G_t: the gradient that step t passes to the previous step. Blocks as in `arriving`."""
        self.unroll.require()
        return BlockFloat(self.unroll.departing, self.unroll.exponent)

    def gate_gradient(self) -> BlockFloat:
        """dL/da_t, with a_t = x_t W_xh + b_h + … the pre-activations that `Cell.project` begins.

        Blocks (time, replica, batch), within all gates side by side. The input weights' gradient is Σ_t x_tᵀ dL/da_t.
        """
        self.unroll.require()
        return BlockFloat(self.unroll.projected_gradient, self.unroll.exponent)

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_1, …, s_T."""
        return self.states(state)[1:]

    def states(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_0, …, s_T: one more than there are steps."""
        return torch.stack([values[state] for values in self.unroll.states])

    @property
    def widths(self) -> dict[str, int]:
        """Units of each state, in the order in which Jacobians hold them."""
        return dict(self.unroll.widths)

    def bounded(self) -> dict[str, BoundedUnits]:
        """The bounded quantities of all steps, with values (time, replica, batch, width): see `Cell.bounded`."""
        unroll = self.unroll
        with torch.no_grad():
            projected = unroll.cell.project(unroll.parameters, unroll.vectors(unroll.inputs))
            before, after = unroll.rows_of(unroll.states[:-1]), unroll.rows_of(unroll.states[1:])
            bounded = unroll.cell.bounded(unroll.prepared, projected, before, after)
        return {name: BoundedUnits(unroll.by_time(item.values), item.low, item.high) for name, item in bounded.items()}

    def jacobians(self, backwards: bool = False) -> Iterator[Float[Tensor, "replica batch states states_before"]]:
        """∂s_t/∂s_{t−1} for t = 1..T, or T..1; all states of the layer side by side in the order of `widths`.

        The states of step t are functions of the previous states and of the layer's inputs, which are held fixed.
        """
        unroll, size = self.unroll, sum(self.unroll.widths.values())
        time, replicas, batch, _ = unroll.inputs.shape
        chunk = max(1, MOST_NUMBERS_IN_JACOBIANS // (replicas * batch * size * 4 * size))
        direction = -1 if backwards else 1
        for first in range(0, time, chunk)[::direction]:
            yield from unroll.jacobians(first, min(first + chunk, time))[::direction]

    def parameter_gradients(self) -> dict[str, BlockFloat]:
        """dL/dθ for every parameter θ of the layer. Blocks (replica), within the parameter's shape."""
        self.unroll.require()
        return self.unroll.parameter_gradients()

    def parameter_gradients_of(
        self, steps: Int[Tensor, "replica batch"], counted: Bool[Tensor, "replica batch"]
    ) -> dict[str, BlockFloat]:
        """What one step of each sequence adds to the parameters' gradients; blocks as in `parameter_gradients`.

        `steps` is that step, counted from 0, and `counted` is False for a sequence that adds nothing.
        """
        self.unroll.require()
        return self.unroll.parameter_gradients(steps.unsqueeze(0), counted.unsqueeze(0))

    def gradients_along(self, direction: Parameters, steps: Int[Tensor, "replica batch"]) -> BlockFloat:
        """What one step of each sequence adds to the derivative of its loss along a direction of the parameters.

        `steps` is that step, counted from 0. Blocks (replica, batch), without further axes.
        """
        self.unroll.require()
        found = self.unroll.gradients_along(direction, steps.unsqueeze(0))
        return BlockFloat(found.mantissa[0], found.exponent[0])


def all_steps(values: Shaped[Tensor, "time replica batch _"]) -> Int[Tensor, "time 1 1"]:
    """Their indices."""
    return torch.arange(len(values), device=values.device)[:, None, None]


class _Unroll(torch.autograd.Function):
    """Connects a `LayerUnroll` to autograd: plain outputs forward, plain gradients of inputs and parameters back."""

    @staticmethod
    def forward(ctx: Any, unroll: LayerUnroll, anchor: Tensor, inputs: Tensor, *parameters: Tensor) -> Tensor:
        ctx.unroll = unroll
        return unroll.forward(recorded=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        unroll: LayerUnroll = ctx.unroll
        unroll.backward(at_outputs)
        input_needed, *parameters_needed = ctx.needs_input_grad[2:]
        at_inputs = None
        if input_needed:
            # What the layer below has received with its exponents must not arrive a second time.
            passed = unroll.pass_to_layer_below()
            at_inputs = torch.zeros_like(unroll.inputs) if passed else unroll.input_gradient().values()
        at_parameters: Sequence[Tensor | None] = [None] * len(parameters_needed)
        if any(parameters_needed):
            gradients = zip(unroll.parameter_gradients().values(), parameters_needed, strict=True)
            at_parameters = [gradient.values() if needed else None for gradient, needed in gradients]
        return (None, None, at_inputs, *at_parameters)
