"""The scaled engine: any cell, and a gradient through time that no float's range ends."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Bounded, Cell, Parameters, States
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.engine import Cuts, Engine, Need, Trajectory

MOST_NUMBERS_IN_JACOBIANS = 2**23
"""Bound on the numbers held at once while Jacobians are computed: memory, not results, depends on it."""


class ScaledEngine(Engine):
    """The gradient is carried back step by step as mantissa · 2^exponent, with an exponent for each sequence.

    With s_t all states of a layer and ∂⁺L/∂s_t what the readout or the layer above adds at step t,

        G_t = ∂⁺L/∂s_t + (∂s_{t+1}/∂s_t)ᵀ G_{t+1},

    where every product is a vector-Jacobian product of one step by autograd, taken on mantissas whose largest entry
    lies in [½, 1), so that no denormal numbers arise and 10⁻³⁰⁰⁰ is a number like any other. Rescaling is by powers of
    two: results equal those of the reference engine up to rounding wherever that one stays in range. A layer hands
    mantissas and exponents, not plain numbers, to the layer below.

    Parameter gradients come from one vector-Jacobian product over all steps, with an exponent for each replica: they
    leave a float's range only where their true value does.

    Needs a cell whose step treats every sequence of the batch on its own. Gradients of gradients are not to be had.

    `made` holds the layers of the network that the engine unrolled last, lowest first.

    Source: the idea is that of frexp-scaled forward-backward recursions (Rabiner 1989, section V.A), applied to
    backpropagation through time.
    """

    name = "scaled"

    def __init__(self) -> None:
        self.made: list[ScaledTrajectory] = []

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return "cuts" not in needs

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
    ) -> "ScaledTrajectory":
        if cuts:
            raise RuntimeError("the scaled engine does not cut gradients; `serves` says so")
        wanted = tuple(range(len(inputs))) if steps is None else tuple(sorted(set(steps)))
        below = next((one.way for one in self.made if one.outputs is inputs), None)
        way = LayerUnroll(cell, parameters, inputs, widths, wanted, observed, below)
        if torch.is_grad_enabled():
            # Without a parameter to be differentiated, this keeps the outputs connected to the way.
            anchor = torch.zeros((), device=inputs.device, requires_grad=observed)
            outputs = _Unroll.apply(way, anchor, inputs, *parameters.values())
        else:
            outputs = way.forward(recorded=False)
        # Only a layer below needs to be found again: a layer that reads anything else begins a new network.
        trajectory = ScaledTrajectory(outputs, way)
        self.made = [*self.made, trajectory] if below is not None else [trajectory]
        return trajectory


class ScaledTrajectory(Trajectory):
    """What the scaled engine gives back; besides norms, the states, the inputs' gradient and the steps' Jacobians."""

    def __init__(self, outputs: Tensor, way: "LayerUnroll") -> None:
        self.outputs = outputs
        self.way = way

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        return self.extended(state).log_norms()

    def extended(self, state: str) -> BlockFloat:
        """dL/ds_t after the backward pass, the total derivative: blocks (time, replica, batch), within (width)."""
        self.way.require(state)
        return BlockFloat(self.way.total[state], self.way.exponent)

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t as plain numbers: infinite or zero where they leave a float's range."""
        return self.extended(state).values()

    def initial_log_norms(self, state: str) -> Float[Tensor, "replica batch"]:
        """log10 ‖dL/ds_0‖: after as many Jacobians as there are steps."""
        self.way.require(state)
        return BlockFloat(self.way.split(self.way.initial.mantissa)[state], self.way.initial.exponent).log_norms()

    def input_log_norms(self) -> Float[Tensor, "time replica batch"]:
        """log10 ‖dL/dx_t‖, with x_t what the layer reads at step t."""
        self.way.require()
        return self.way.input_gradient().log_norms()

    def arriving(self) -> BlockFloat:
        """G_t: the gradient that arrives at the states of step t, taken as independent of each other.

        Blocks (time, replica, batch), within all states side by side. It differs from the total derivative where a
        state is read within its own step: dL/dc_t as `extended` gives it includes the path through h_t.
        """
        self.way.require()
        return BlockFloat(self.way.arriving, self.way.exponent)

    def departing(self) -> BlockFloat:
        """(∂s_t/∂s_{t−1})ᵀ G_t: what step t hands on to the step before it. Blocks as in `arriving`."""
        self.way.require()
        return BlockFloat(self.way.departing, self.way.exponent)

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_1, …, s_T."""
        return self.states(state)[1:]

    def states(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_0, …, s_T: one more than there are steps."""
        return torch.stack([values[state] for values in self.way.states])

    @property
    def widths(self) -> dict[str, int]:
        """Units of each state, in the order in which Jacobians hold them."""
        return dict(self.way.widths)

    def bounded(self) -> dict[str, Bounded]:
        """What saturates, at all steps, with values (time, replica, batch, width): see `Cell.bounded`."""
        way = self.way
        with torch.no_grad():
            projected = way.cell.project(way.parameters, way.input_rows())
            before, after = way.rows_of(way.states[:-1]), way.rows_of(way.states[1:])
            found = way.cell.bounded(way.parameters, projected, before, after)
        return {name: Bounded(way.by_time(one.values), one.low, one.high) for name, one in found.items()}

    def jacobians(self, backwards: bool = False) -> Iterator[Float[Tensor, "replica batch states states_before"]]:
        """∂s_t/∂s_{t−1} for t = 1..T, or T..1; all states of the layer side by side in the order of `widths`.

        The states of step t are functions of those of the step before and of the layer's inputs, which are held fixed.
        """
        way, size = self.way, sum(self.way.widths.values())
        replicas, batch = way.inputs.shape[1:3]
        chunk = max(1, MOST_NUMBERS_IN_JACOBIANS // (replicas * batch * size * 4 * size))
        chunks = range(0, len(way.inputs), chunk)
        for first in reversed(chunks) if backwards else chunks:
            found = way.jacobians(first, min(first + chunk, len(way.inputs)))
            yield from reversed(found) if backwards else found

    def parameter_gradients(self) -> dict[str, BlockFloat]:
        """dL/dθ for every parameter θ of the layer. Blocks (replica), within the parameter's shape."""
        self.way.require()
        return self.way.parameter_gradients()

    def parameter_gradients_of(
        self, steps: Int[Tensor, "replica batch"], counted: Bool[Tensor, "replica batch"]
    ) -> dict[str, BlockFloat]:
        """What one step of each sequence adds to the parameters' gradients; blocks as in `parameter_gradients`.

        `steps` says which step, counted from 0, and `counted` where there is one.
        """
        self.way.require()
        return self.way.parameter_gradients(steps.unsqueeze(0), counted.unsqueeze(0))


def _unobserved(name: str, value: Tensor) -> Tensor:
    return value


class LayerUnroll:
    """One layer's steps, forward with a graph for each step, and back with an exponent for each sequence."""

    def __init__(
        self,
        cell: Cell,
        parameters: Parameters,
        inputs: Tensor,
        widths: dict[str, int],
        wanted: tuple[int, ...],
        observed: bool,
        below: "LayerUnroll | None",
    ) -> None:
        self.cell = cell
        self.parameters = {name: value.detach() for name, value in parameters.items()}
        self.inputs = inputs.detach()
        self.widths = {name: widths[name] for name in cell.states}
        self.observed = observed
        self.states: list[dict[str, Tensor]] = []
        self.total: dict[str, Tensor] = {}
        self.exponent: Tensor
        self.arriving: Tensor
        self.departing: Tensor
        self.initial: BlockFloat
        self._projected_gradient: Tensor
        self._wanted = wanted
        self._below = below
        self._handed: BlockFloat | None = None
        self._graphs: list[tuple[dict[str, Tensor], Tensor, dict[str, Tensor], dict[str, Tensor]]] = []
        self._went_back = False

    def require(self, state: str | None = None) -> None:
        """Raises `RuntimeError` when the gradient of `state` cannot be had."""
        if not self.observed or (state is not None and state not in self.widths):
            known = ", ".join(self.widths) if self.observed else "none"
            raise RuntimeError(f"state '{state or 'any'}' was not observed; observed: {known}")
        if not self._went_back:
            raise RuntimeError("the gradient through time exists only after the backward pass")

    def forward(self, recorded: bool) -> Tensor:
        """The outputs (step, replica, batch, width) at the wanted steps."""
        _, replicas, batch, _ = self.inputs.shape
        projected = self.by_time(self.cell.project(self.parameters, self.input_rows())).unbind(0)
        state = {name: self.inputs.new_zeros(replicas, batch, width) for name, width in self.widths.items()}
        wanted, outputs = set(self._wanted), []
        self.states = [state]
        for t, gates in enumerate(projected):
            if recorded:
                state = self._recorded_step(state, gates)
            else:
                state = self.cell.step(self.parameters, gates, state, _unobserved)
            if t in wanted:
                outputs.append(state[self.cell.output])
            if self.observed or recorded:
                self.states.append(state)
        return torch.stack(outputs)

    def _recorded_step(self, state: States, gates: Tensor) -> dict[str, Tensor]:
        """One step in a graph of its own, from fresh leaves to new states that are cut off from it."""
        before = {name: value.detach().requires_grad_() for name, value in state.items()}
        gates = gates.detach().requires_grad_()
        seen: dict[str, Tensor] = {}

        def observe(name: str, value: Tensor) -> Tensor:
            # A node of its own, so that the gradient taken here holds every use of the state and nothing else.
            seen[name] = value.view_as(value)
            return seen[name]

        with torch.enable_grad():
            after = self.cell.step(self.parameters, gates, before, observe)
        self._graphs.append((before, gates, seen, after))
        return {name: value.detach() for name, value in after.items()}

    def backward(self, at_outputs: Tensor) -> None:
        """Carry the gradient back, given the one at the outputs (step, replica, batch, width)."""
        direct = BlockFloat.of(at_outputs, 3)
        if self._handed is not None:
            direct = direct.plus(self._handed).normalised()
            self._handed = None
        place = {step: index for index, step in enumerate(self._wanted)}
        steps = len(self._graphs)
        _, replicas, batch, _ = self.inputs.shape
        size = sum(self.widths.values())
        carried = BlockFloat(
            self.inputs.new_zeros(replicas, batch, size),
            torch.full((replicas, batch), ZERO_EXPONENT, device=self.inputs.device),
        )
        total, exponents, arriving, departing, gates_gradients = [], [], [], [], []
        for t in reversed(range(steps)):
            if t in place:
                own = BlockFloat(self._in_output_place(direct.mantissa[place[t]]), direct.exponent[place[t]])
                carried = own.plus(carried)
            carried = carried.normalised()
            seen, handed_on, gates_gradient = self._back_one_step(self._graphs[t], carried.mantissa)
            total.append(seen)
            exponents.append(carried.exponent)
            arriving.append(carried.mantissa)
            gates_gradients.append(gates_gradient)
            carried = BlockFloat(handed_on, carried.exponent)
            departing.append(handed_on)
        self.initial = carried
        self.exponent, self.arriving, self.departing, self._projected_gradient = (
            torch.stack(parts[::-1]) for parts in (exponents, arriving, departing, gates_gradients)
        )
        if self.observed:
            self.total = {name: torch.stack([one[name] for one in total[::-1]]) for name in self.widths}
        self._graphs = []
        self._went_back = True

    def _back_one_step(
        self, graph: tuple[dict[str, Tensor], Tensor, dict[str, Tensor], dict[str, Tensor]], arriving: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One vector-Jacobian product: gradients at the observed states, at all states before, and at the gates."""
        before, gates, seen, after = graph
        at_states = self.split(arriving)
        sources = [*before.values(), gates, *seen.values()]
        whole = _vector_jacobian(after, sources, at_states)
        gradients = dict(zip(before, whole, strict=False))
        at_seen = dict(zip(seen, whole[len(before) + 1 :], strict=True))
        return at_seen, self.joined(gradients), whole[len(before)]

    def hand_down(self) -> bool:
        """Give the layer below its gradient with its exponents; False where below is no layer of this engine."""
        if self._below is None:
            return False
        self._below._handed = self.input_gradient().normalised()
        return True

    def input_gradient(self) -> BlockFloat:
        """dL/dx_t. Blocks (time, replica, batch), within (features)."""
        rows = self.input_rows().requires_grad_()
        with torch.enable_grad():
            projected = self.cell.project(self.parameters, rows)
        [gradient] = torch.autograd.grad(projected, rows, self._as_rows(self._projected_gradient))
        return BlockFloat(self.by_time(gradient), self.exponent)

    def parameter_gradients(self, steps: Tensor | None = None, counted: Tensor | None = None) -> dict[str, BlockFloat]:
        """dL/dθ for every parameter θ, over all steps or over the chosen `steps` (step, replica, batch) alone."""

        def chosen(values: Tensor) -> Tensor:
            if steps is None:
                return values
            index = steps.view(*steps.shape, *(1,) * (values.ndim - 3)).expand(*steps.shape, *values.shape[3:])
            return values.gather(0, index)

        exponent = chosen(self.exponent)
        if counted is not None:
            exponent = torch.where(counted, exponent, ZERO_EXPONENT)
        arriving, shared = BlockFloat(chosen(self.arriving), exponent).aligned((0, 2))
        before = {name: chosen(torch.stack([one[name] for one in self.states[:-1]])) for name in self.widths}
        leaves = {name: value.clone().requires_grad_() for name, value in self.parameters.items()}
        with torch.enable_grad():
            projected = self.cell.project(leaves, self._as_rows(chosen(self.inputs)))
            rows = {name: self._as_rows(value) for name, value in before.items()}
            after = self.cell.step(leaves, projected, rows, _unobserved)
        at_states = self.split(self._as_rows(arriving))
        found = _vector_jacobian(after, list(leaves.values()), at_states)
        return {name: BlockFloat(one, shared.view(-1)) for name, one in zip(leaves, found, strict=True)}

    def jacobians(self, first: int, last: int) -> list[Tensor]:
        """∂s_t/∂s_{t−1} of the steps with indices `first` to `last` (exclusive)."""
        size, count = sum(self.widths.values()), last - first
        _, replicas, batch, _ = self.inputs.shape
        rows = {name: value.requires_grad_() for name, value in self._repeated(self.states[first:last], size).items()}
        inputs = self._as_rows(self.inputs[first:last]).repeat_interleave(size, dim=1)
        with torch.enable_grad():
            projected = self.cell.project(self.parameters, inputs)
            after = self.cell.step(self.parameters, projected, rows, _unobserved)
        # Each row comes `size` times, once for each unit vector.
        unit = torch.eye(size, dtype=self.inputs.dtype, device=self.inputs.device).repeat(count * batch, 1)
        at_states = self.split(unit.expand(replicas, -1, -1))
        whole = dict(zip(rows, _vector_jacobian(after, list(rows.values()), at_states), strict=True))
        return list(self.joined(whole).view(replicas, count, batch, size, size).unbind(1))

    def _repeated(self, states: Sequence[dict[str, Tensor]], times: int) -> dict[str, Tensor]:
        return {name: value.repeat_interleave(times, dim=1) for name, value in self.rows_of(states).items()}

    def rows_of(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """States of several steps as the rows (replica, time · batch, width) of one."""
        return {name: self._as_rows(torch.stack([one[name] for one in states])) for name in self.widths}

    def input_rows(self) -> Tensor:
        """The inputs of all steps (replica, time · batch, features)."""
        return self._as_rows(self.inputs)

    def by_time(self, rows: Tensor) -> Tensor:
        """(replica, time · batch, width) → (time, replica, batch, width)."""
        time, replicas, batch, _ = self.inputs.shape
        return rows.view(replicas, time, batch, -1).transpose(0, 1)

    @staticmethod
    def _as_rows(values: Tensor) -> Tensor:
        """(time, replica, batch, width) → (replica, time · batch, width)."""
        time, replicas, batch, _ = values.shape
        return values.transpose(0, 1).reshape(replicas, time * batch, -1)

    def split(self, joined: Tensor) -> dict[str, Tensor]:
        """All states side by side along the last axis → each by name."""
        return dict(zip(self.widths, joined.split(list(self.widths.values()), dim=-1), strict=True))

    def joined(self, states: States) -> Tensor:
        """Each state by name → all side by side along the last axis."""
        parts = [states[name] for name in self.widths]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _in_output_place(self, values: Tensor) -> Tensor:
        """A gradient at the output state as one at all states, zero at the others."""
        return self.joined(
            {
                name: values if name == self.cell.output else values.new_zeros(*values.shape[:-1], width)
                for name, width in self.widths.items()
            }
        )


def _vector_jacobian(results: States, sources: Sequence[Tensor], at_results: States) -> list[Tensor]:
    """(∂results/∂sources)ᵀ at_results, for each source; zeros where no result depends on it."""
    dependent = [name for name, value in results.items() if value.requires_grad]
    if not dependent:
        return [torch.zeros_like(source) for source in sources]
    found = torch.autograd.grad(
        [results[name] for name in dependent], sources, [at_results[name] for name in dependent], allow_unused=True
    )
    return [torch.zeros_like(source) if one is None else one for source, one in zip(sources, found, strict=True)]


class _Unroll(torch.autograd.Function):
    """Ties a `Way` into autograd: plain outputs forward, plain gradients of inputs and parameters back."""

    @staticmethod
    def forward(ctx: Any, way: LayerUnroll, anchor: Tensor, inputs: Tensor, *parameters: Tensor) -> Tensor:
        ctx.way = way
        return way.forward(recorded=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        way: LayerUnroll = ctx.way
        [at_output] = at_outputs
        way.backward(at_output)
        of_inputs, *of_parameters = ctx.needs_input_grad[2:]
        at_inputs = None
        if of_inputs:
            # What was handed down must not arrive a second time.
            at_inputs = torch.zeros_like(way.inputs) if way.hand_down() else way.input_gradient().values()
        at_parameters: Sequence[Tensor | None] = [None] * len(of_parameters)
        if any(of_parameters):
            found = way.parameter_gradients().values()
            at_parameters = [one.values() if needed else None for one, needed in zip(found, of_parameters, strict=True)]
        return (None, None, at_inputs, *at_parameters)
