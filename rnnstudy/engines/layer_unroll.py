"""How the scaled engine runs one layer over time: a graph for each step, and a backward pass with exponents."""

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnnstudy.cells.cell import Parameters, States
from rnnstudy.cells.one_hot import dense_vectors, vectors
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.engine import LayerRun, as_rows, require_gradient
from rnnstudy.engines.scaled_maps import Reader, Receiver, gradient_of_rows
from rnnstudy.errors import RequestError

StepGraph = tuple[States, Tensor, States, States]
"""The autograd graph of one step: previous states and gates (leaves), observed states, and new states."""


class LayerUnroll(Receiver, Reader):
    """One layer's steps, forward with a graph for each step, and back with an exponent for each sequence.

    Attributes:
        states: s_0, …, s_T, each by name.
        total: dL/ds_t, the total derivative, as mantissas (time, replica, batch, width) under `exponent`, by state.
        exponent: (time, replica, batch).
        arriving: G_t as mantissas (time, replica, batch, all states side by side) under `exponent`.
        departing: (∂s_t/∂s_{t−1})ᵀ G_t likewise.
        inputs: x_1, …, x_T (time, replica, batch, features), or symbols (time, replica, batch, 1) of a `vocabulary`.
        initial: dL/ds_0, all states side by side.
        projected_gradient: the gradient at what `Cell.project` returned (time, replica, batch, gates) under `exponent`.
    """

    total: dict[str, Tensor]
    exponent: Tensor
    arriving: Tensor
    departing: Tensor
    initial: BlockFloat
    projected_gradient: Tensor

    def __init__(self, run: LayerRun, below: Receiver | None, repeatable: bool = False) -> None:
        """`repeatable`: whether `backward` may be called more than once."""
        self.cell, self.observed = run.cell, run.observed
        self.parameters = {name: value.detach() for name, value in run.parameters.items()}
        self.prepared = run.cell.prepared(self.parameters)
        self.inputs, self.vocabulary = run.inputs.detach(), run.vocabulary
        self.widths = {name: run.widths[name] for name in run.cell.states}
        self.states: list[dict[str, Tensor]] = []
        self._output_steps = run.output_steps
        self._below = below
        self._repeatable = repeatable
        self._graphs: list[StepGraph] = []
        self._backward_done = False

    def require(self, state: str | None = None) -> None:
        """Raises `RuntimeError` unless the gradient of `state` (None: of all states) exists."""
        observed = self.widths if self.observed else {}
        require_gradient(state or next(iter(observed), "any"), observed, self._backward_done)

    def forward(self, recorded: bool) -> Tensor:
        """The outputs (step, replica, batch, width) at the output steps."""
        _, replicas, batch, _ = self.inputs.shape
        projected = self.by_time(self.cell.project(self.parameters, self.vectors(self.inputs))).unbind(0)
        state = {name: projected[0].new_zeros(replicas, batch, width) for name, width in self.widths.items()}
        output_steps, outputs = set(self._output_steps), []
        self.states = [state]
        for t, gates in enumerate(projected):
            if recorded:
                state = self._recorded_step(state, gates)
            else:
                state = self.cell.step(self.prepared, gates, state, _unobserved)
            if t in output_steps:
                outputs.append(state[self.cell.output])
            if self.observed or recorded:
                self.states.append(state)
        return torch.stack(outputs)

    def _recorded_step(self, state: States, gates: Tensor) -> dict[str, Tensor]:
        """One step in a graph of its own, from fresh leaves to new states, which are returned detached from it."""
        before = {name: value.detach().requires_grad_() for name, value in state.items()}
        gates = gates.detach().requires_grad_()
        observed: dict[str, Tensor] = {}

        def observe(name: str, value: Tensor) -> Tensor:
            # A separate node, so that the gradient taken here includes every use of the state and nothing else.
            observed[name] = value.view_as(value)
            return observed[name]

        with torch.enable_grad():
            after = self.cell.step(self.prepared, gates, before, observe)
        self._graphs.append((before, gates, observed, after))
        return {name: value.detach() for name, value in after.items()}

    def backward(self, at_outputs: Tensor) -> None:
        """Propagate the gradient back, given the one at the outputs (step, replica, batch, width)."""
        direct = self.complete(at_outputs)
        index_of = {step: index for index, step in enumerate(self._output_steps)}
        _, replicas, batch, _ = self.inputs.shape
        size = sum(self.widths.values())
        current = BlockFloat(
            direct.mantissa.new_zeros(replicas, batch, size),
            torch.full((replicas, batch), ZERO_EXPONENT, device=self.inputs.device),
        )
        steps = []
        for t in reversed(range(len(self._graphs))):
            if t in index_of:
                added = self._at_output_state(direct.mantissa[index_of[t]])
                current = BlockFloat(added, direct.exponent[index_of[t]]).plus(current)
            current = current.normalised()
            total, to_previous, gates_gradient = self._step_backward(self._graphs[t], current.mantissa)
            steps.append((total, current.exponent, current.mantissa, to_previous, gates_gradient))
            current = BlockFloat(to_previous, current.exponent)
        self.initial = current
        totals, *others = zip(*reversed(steps), strict=True)
        self.exponent, self.arriving, self.departing, self.projected_gradient = map(torch.stack, others)
        if self.observed:
            self.total = {name: torch.stack([total[name] for total in totals]) for name in self.widths}
        if not self._repeatable:
            self._graphs = []
        self._backward_done = True

    def _step_backward(self, graph: StepGraph, arriving: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One vector-Jacobian product: gradients at the observed states, at all previous states, and at the gates."""
        before, gates, observed, after = graph
        sources = [*before.values(), gates, *observed.values()]
        gradients = _vector_jacobian(after, sources, self.split(arriving), self._repeatable)
        to_previous = dict(zip(before, gradients, strict=False))
        at_observed = dict(zip(observed, gradients[len(before) + 1 :], strict=True))
        return at_observed, self.joined(to_previous), gradients[len(before)]

    def pass_to_layer_below(self) -> bool:
        """Pass what is below its gradient with exponents; False when it is not of the scaled engine."""
        if self._below is None:
            return False
        self._below.receive(self.input_gradient())
        return True

    def input_gradient(self) -> BlockFloat:
        """dL/dx_t. Blocks (time, replica, batch), within (features): of symbols, as of their one-hot vectors."""
        return self._input_gradient(0, len(self.inputs))

    def input_log_norms(self) -> Tensor:
        """log10 ‖dL/dx_t‖ (time, replica, batch). Of symbols a step at a time: the vectors of all may be large."""
        if self.vocabulary is None:
            return self.input_gradient().log_norms()
        return torch.cat([self._input_gradient(t, t + 1).log_norms() for t in range(len(self.inputs))])

    def _input_gradient(self, first: int, last: int) -> BlockFloat:
        """dL/dx_t of the steps with indices `first` to `last` (exclusive)."""
        steps = torch.arange(first, last, device=self.inputs.device)[:, None, None]
        return self.gradient_of(self.dense(as_rows(self.inputs[first:last])), steps)

    def gradient_of(self, rows: Tensor, steps: Tensor) -> BlockFloat:
        project = functools.partial(self.cell.project, self.parameters)
        return gradient_of_rows(project, rows, BlockFloat(self.projected_gradient, self.exponent), steps)

    def vectors(self, inputs: Tensor) -> Tensor:
        """What the cell reads, inputs or symbols of some steps (time, replica, batch, …), as rows."""
        return vectors(as_rows(inputs), self.vocabulary, self.parameters)

    def dense(self, rows: Tensor) -> Tensor:
        """The numbers (replica, row, features) that the cell reads in these rows of inputs or symbols."""
        return dense_vectors(rows, self.vocabulary, self.parameters)

    def parameter_gradients(self, steps: Tensor | None = None, counted: Tensor | None = None) -> dict[str, BlockFloat]:
        """dL/dθ for every parameter θ, over all steps or over the chosen `steps` (step, replica, batch) alone."""
        chosen = functools.partial(_at_steps, steps=steps)
        exponent = chosen(self.exponent)
        if counted is not None:
            exponent = torch.where(counted, exponent, ZERO_EXPONENT)
        arriving, shared = BlockFloat(chosen(self.arriving), exponent).aligned((0, 2))
        leaves = {name: value.clone().requires_grad_() for name, value in self.parameters.items()}
        with torch.enable_grad():
            after = self._steps_again(leaves, chosen)
        at_states = self.split(as_rows(arriving))
        gradients = _vector_jacobian(after, list(leaves.values()), at_states)
        return {name: BlockFloat(value, shared.view(-1)) for name, value in zip(leaves, gradients, strict=True)}

    def gradients_along(self, direction: Parameters, steps: Tensor) -> BlockFloat:
        """What the chosen `steps` (step, replica, batch) each add to the derivative of the loss along a direction.

        G_tᵀ (∂⁺s_t/∂θ) w, with w the `direction`, of each sequence by itself: blocks (step, replica, batch) without
        further axes. The derivative of the states along w is by forward-mode automatic differentiation; raises
        `RequestError` for a cell that has none.
        """
        chosen = functools.partial(_at_steps, steps=steps)
        try:
            with warnings.catch_warnings():
                # PyTorch's own, at the first forward derivative of a process.
                warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
                changes = torch.func.jvp(
                    lambda own: self.joined(self._steps_again(own, chosen)), (self.parameters,), (dict(direction),)
                )[1]
        except RuntimeError as error:
            raise RequestError(
                f"{self.cell!r} has a function without a forward derivative, so that no derivative along a direction "
                "of its parameters can be read; leave the probe out, or take another cell"
            ) from error
        count, replicas, batch = steps.shape
        changes = changes.view(replicas, count, batch, -1).transpose(0, 1)
        return BlockFloat((chosen(self.arriving) * changes).sum(-1), chosen(self.exponent))

    def _steps_again(self, parameters: Parameters, chosen: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """The states (replica, step · batch, width) after the chosen steps, as a function of the parameters."""
        projected = self.cell.project(parameters, self.vectors(chosen(self.inputs)))
        before = self.rows_of(self.states[:-1], chosen)
        return self.cell.step(self.cell.prepared(parameters), projected, before, _unobserved)

    def jacobians(self, first: int, last: int) -> list[Tensor]:
        """∂s_t/∂s_{t−1} of the steps with indices `first` to `last` (exclusive)."""
        size, count = sum(self.widths.values()), last - first
        _, replicas, batch, _ = self.inputs.shape
        rows = {
            name: value.repeat_interleave(size, dim=1).requires_grad_()
            for name, value in self.rows_of(self.states[first:last]).items()
        }
        inputs = as_rows(self.inputs[first:last]).repeat_interleave(size, dim=1)
        with torch.enable_grad():
            projected = self.cell.project(self.parameters, vectors(inputs, self.vocabulary, self.parameters))
            after = self.cell.step(self.prepared, projected, rows, _unobserved)
        # Each row is repeated `size` times, once for each unit vector.
        unit = torch.eye(size, dtype=projected.dtype, device=projected.device).repeat(count * batch, 1)
        at_states = self.split(unit.expand(replicas, -1, -1))
        gradients = dict(zip(rows, _vector_jacobian(after, list(rows.values()), at_states), strict=True))
        return list(self.joined(gradients).view(replicas, count, batch, size, size).unbind(1))

    def rows_of(
        self, states: Sequence[States], chosen: Callable[[Tensor], Tensor] = lambda values: values
    ) -> dict[str, Tensor]:
        """States of several steps, or the `chosen` of them, as the rows (replica, time · batch, width) of one."""
        return {name: as_rows(chosen(torch.stack([state[name] for state in states]))) for name in self.widths}

    def by_time(self, rows: Tensor) -> Tensor:
        """(replica, time · batch, width) → (time, replica, batch, width)."""
        time, replicas, batch, _ = self.inputs.shape
        return rows.view(replicas, time, batch, -1).transpose(0, 1)

    def split(self, joined: Tensor) -> dict[str, Tensor]:
        """All states side by side along the last axis → each by name."""
        return dict(zip(self.widths, joined.split(list(self.widths.values()), dim=-1), strict=True))

    def joined(self, states: States) -> Tensor:
        """Each state by name → all side by side along the last axis."""
        parts = [states[name] for name in self.widths]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _at_output_state(self, values: Tensor) -> Tensor:
        """A gradient at the output state as one at all states side by side, zero at the others."""
        everywhere = values.new_zeros(*values.shape[:-1], sum(self.widths.values()))
        self.split(everywhere)[self.cell.output].copy_(values)
        return everywhere


def _at_steps(values: Tensor, steps: Tensor | None) -> Tensor:
    """Of values (time, replica, batch, …) those at the `steps` (step, replica, batch); all when None."""
    if steps is None:
        return values
    index = steps.view(*steps.shape, *(1,) * (values.ndim - 3)).expand(*steps.shape, *values.shape[3:])
    return values.gather(0, index)


def _unobserved(name: str, value: Tensor) -> Tensor:
    return value


def _vector_jacobian(
    results: States, sources: Sequence[Tensor], at_results: States, repeatable: bool = False
) -> list[Tensor]:
    """(∂results/∂sources)ᵀ at_results, for each source; zeros where no result depends on it."""
    dependent = {name: value for name, value in results.items() if value.requires_grad}
    if not dependent:
        return [torch.zeros_like(source) for source in sources]
    at_dependent = [at_results[name] for name in dependent]
    values = list(dependent.values())
    return list(
        torch.autograd.grad(values, sources, at_dependent, retain_graph=repeatable or None, materialize_grads=True)
    )
