"""Recurrences of people's own: a Python loop over a step that they wrote, and the gradient at each of its states.

A cell's `forward` is marked with `states`; a loop without a cell hands each state to `Flow.state`. Either way a run of
the loop over time is an `Unrolled`, filled by torch's own backward pass.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnstudy.spec import RequestError
from rnnstudy.watching.receiver import Receiver

MOST_NODES = 1000
"""How many nodes of autograd's graph are looked at, to find the step that a step follows."""

Forward = TypeVar("Forward", bound=Callable[..., Any])

_STATES: dict[Callable[..., Any], tuple[str | None, ...]] = {}
"""A marked `forward`, and the names of the tensors that it returns."""


def states(*names: str | None) -> Callable[[Forward], Forward]:
    """Mark the `forward` of a cell of your own, which computes one step: what it returns are its states.

        class MyCell(nn.Module):
            @rnnstudy.states("h", "c")
            def forward(self, x, state): ...; return h, c

    `rnnstudy.watch(model)` then finds it in any model like an `nn.LSTMCell`; `forward` itself stays as it is. `names`
    are those of the tensors that it returns, in order and out of nested tuples; None for one that is no state. A state
    is (batch, …): the gradient's norm is over all axes but the first; a state with one axis is of one sequence.

    Raises `RequestError` if no state is named.
    """
    if not any(isinstance(name, str) for name in names):
        raise RequestError('states() needs the names of the states that forward returns, for example @states("h", "c")')

    def mark(forward: Forward) -> Forward:
        _STATES[inspect.unwrap(forward)] = names
        return forward

    return mark


def states_of(module: nn.Module) -> tuple[str | None, ...]:
    """The names that the module's `forward` is marked with; empty if it is not."""
    return _STATES.get(inspect.unwrap(type(module).forward), ())


@dataclass
class Unrolled:
    """One run of a recurrence over time: the gradients at its states, summed over backward passes.

    Attributes:
        name: of the module in the model.
        kind: its class.
        number: counts the calls in a watch.
        times: the user's index of each step; ascending, or descending where the recurrence goes back in time.
        steps: for each step, state → gradient (sequence, unit), zero as long as none has arrived.
    """

    name: str
    kind: str
    number: int
    times: list[int] = field(default_factory=list)
    steps: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def reverse(self) -> bool:
        return len(self.times) > 1 and self.times[1] < self.times[0]

    def in_time(self) -> dict[str, Tensor]:
        """State → gradient (time, sequence, unit). Raises `RequestError` if a step lacks a state that another has."""
        steps = self.steps[::-1] if self.reverse else self.steps
        for time, step in zip(self.times, self.steps, strict=True):
            if step.keys() != self.steps[0].keys():
                raise RequestError(
                    f"{_called(self.name)} has the states {', '.join(self.steps[0])} at t = {self.times[0]}, and "
                    f"{', '.join(step)} at t = {time}; every step must have the same"
                )
        return {state: torch.stack([step[state] for step in steps]) for state in self.steps[0]}

    def follows(self, name: str, t: int) -> bool:
        """Whether state `name` of step t belongs to the newest step, or makes the next one.

        Raises `RequestError` if it is neither that nor the beginning of a new run, at the t where this one began.
        """
        last = self.times[-1]
        step = self.times[1] - self.times[0] if len(self.times) > 1 else t - last
        if (t == last and name not in self.steps[-1]) or (abs(step) == 1 and t == last + step):
            return True
        if t == self.times[0]:
            return False
        raise RequestError(
            f"state '{name}' of {_called(self.name)} is given at t = {t} after t = {last}; give each step once, in "
            "order, and a second recurrence in the model a name of its own: flow.state(h, t, module='backward')"
        )


def ask_gradient(flow: Receiver, run: Unrolled, state: str, value: Tensor) -> None:
    """Ask for the gradient at `value`, a state of the run's newest step."""
    sequences = value.shape[0] if value.ndim > 1 else 1
    step, shape = run.steps[-1], (sequences, value.numel() // max(sequences, 1))
    first = run.steps[0].get(state)
    if first is not None and first.shape != shape:
        raise RequestError(
            f"state '{state}' of {_called(run.name)} is {shape} at t = {run.times[-1]} and {tuple(first.shape)} at "
            f"t = {run.times[0]} (sequences, units); it must keep its shape"
        )
    # At least float32, as everywhere; expanded, so that steps that nothing reaches cost no memory.
    step[state] = value.new_zeros(1, 1, dtype=torch.promote_types(value.dtype, torch.float32)).expand(shape)

    def receive(gradient: Tensor | None) -> None:
        if gradient is not None:
            step[state] = step[state] + gradient.detach().reshape(shape)
            flow._received(run.name, run.number, run)

    value.register_hook(receive)


class CellRecorder:
    """Joins the calls of one marked cell: a call follows the one whose states it was computed from."""

    def __init__(self, flow: Receiver, name: str, module: nn.Module) -> None:
        self.flow, self.name, self.kind, self.names = flow, name, type(module).__name__, states_of(module)

    def returned(self, values: Any) -> dict[str, Tensor]:
        """The states in what a call returned. Raises `RequestError` if there are fewer than names."""
        found = list(tensors_in(values))
        if len(found) < len(self.names):
            raise RequestError(
                f"{_called(self.name)} ({self.kind}) returns {len(found)} tensors; its forward is marked with "
                f"{len(self.names)}: {', '.join(map(str, self.names))}"
            )
        named = zip(self.names, found, strict=False)
        return {name: value for name, value in named if name is not None and value.requires_grad}

    def add(self, arguments: Any, returned: Mapping[str, Tensor]) -> None:
        """One call, with what it was given and the states that it returned."""
        run = self._followed(tensors_in(arguments))
        if run is None:
            run = Unrolled(self.name, self.kind, self.flow._number())
        run.times.append(len(run.times))
        run.steps.append({})
        for state, value in returned.items():
            ask_gradient(self.flow, run, state, value)
            if value.grad_fn is not None:
                # Kept with the graph, and freed with it.
                value.grad_fn.metadata[self] = (run, len(run.times))

    def _followed(self, arguments: Iterable[Tensor]) -> Unrolled | None:
        """The run whose newest states are nearest before `arguments` in autograd's graph; None if there are none."""
        level: list[Any] = [value.grad_fn for value in arguments if value.grad_fn is not None]
        seen: set[Any] = set()
        while level and len(seen) < MOST_NODES:
            found = [node.metadata[self] for node in level if self in node.metadata]
            if found:
                newest = [run for run, steps in found if len(run.times) == steps]
                if newest:
                    return min(newest, key=lambda run: run.number)
                raise RequestError(
                    f"{_called(self.name)} ({self.kind}) is called again from a state that it has gone on from "
                    "already, so that its calls are no sequence; hand its states to flow.state(h, t, module=…) instead"
                )
            seen.update(level)
            level = [node for above in level for node, _ in above.next_functions if node is not None]
            level = [node for node in dict.fromkeys(level) if node not in seen]
        return None


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in a tensor or any nesting of lists, tuples and mappings, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, PackedSequence):
        yield values.data
    elif isinstance(values, Mapping):
        yield from tensors_in(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)


def _called(name: str) -> str:
    return f"'{name}'" if name else "the model"
