"""The reference engine: plain autograd over a Python loop. It defines what the faster engines must compute."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.one_hot import vectors
from rnnstudy.engines.engine import Engine, LayerRun, Need, Trajectory, require_gradient


class ReferenceTrajectory(Trajectory):
    """To each observed state a leaf of zeros is added; the leaf's gradient is then the state's total derivative."""

    def __init__(self, outputs: Tensor, leaves: dict[str, Tensor], values: dict[str, list[Tensor]]) -> None:
        self.outputs = outputs
        self._leaves = leaves
        self._values = values

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        require_gradient(state, self._values, backward_done=True)
        return torch.stack([value.detach() for value in self._values[state]])

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        gradient = self._leaves[state].grad if state in self._leaves else None
        require_gradient(state, self._leaves, gradient is not None)
        assert gradient is not None
        return gradient

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        gradient = self.gradient(state)
        largest = gradient.abs().amax(-1)
        # Squares leave float64's range long before the gradient does, so the largest entry is divided out first.
        scaled = gradient / torch.where(largest > 0, largest, 1.0).unsqueeze(-1)
        return torch.linalg.vector_norm(scaled, dim=-1, dtype=torch.float64).log10() + largest.double().log10()


class ReferenceEngine(Engine):
    """Any cell, any device, plain autograd."""

    name = "reference"

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return True

    def unroll_layer(self, run: LayerRun) -> ReferenceTrajectory:
        cell, parameters, inputs, widths = run.cell, run.parameters, run.inputs, run.widths
        time, replicas, batch, _ = inputs.shape
        rows = inputs.transpose(0, 1).reshape(replicas, time * batch, -1)
        projected = cell.project(parameters, vectors(rows, run.vocabulary, parameters))
        projected = projected.view(replicas, time, batch, -1).unbind(1)
        like = projected[0].detach()
        prepared = cell.prepared(parameters)
        state = {name: like.new_zeros(replicas, batch, width) for name, width in widths.items()}
        leaves = {
            name: like.new_zeros(time, replicas, batch, width, requires_grad=True)
            for name, width in widths.items()
            if run.observed
        }
        # Unbound once: indexing a leaf at every step makes the backward pass quadratic in the number of steps.
        slices = {name: leaf.unbind(0) for name, leaf in leaves.items()}
        output_steps = set(run.output_steps)
        cut_states = {name: _Cut(mask, inputs.device) for name, mask in run.cuts.items()}
        recorded: dict[str, list[Tensor]] = {name: [] for name in leaves}
        outputs = []
        for t in range(time):

            def observe(name: str, value: Tensor, t: int = t) -> Tensor:
                return value + slices[name][t] if run.observed else value

            for name, cut in cut_states.items():
                state[name] = cut(t, state[name])
            if run.constant_norm:
                arrived = _Arrived()
                before = _LeaveWithNorm.apply(arrived, *state.values())
                after = cell.step(prepared, projected[t], dict(zip(state, before, strict=True)), observe)
                state = dict(zip(after, _ArriveWithNorm.apply(arrived, *after.values()), strict=True))
            else:
                state = cell.step(prepared, projected[t], state, observe)
            for name, values in recorded.items():
                values.append(state[name])
            if t in output_steps:
                outputs.append(state[cell.output])
        return ReferenceTrajectory(torch.stack(outputs), leaves, recorded)


class _Arrived:
    """The norm (replica, batch, 1) of the gradient that arrived at the states of a step; known in the backward pass."""

    norm: Tensor


class _ArriveWithNorm(torch.autograd.Function):
    """The new states of a step, unchanged; notes the norm of the gradient that arrives at all of them together."""

    @staticmethod
    def forward(ctx: Any, arrived: _Arrived, *states: Tensor) -> tuple[Tensor, ...]:
        ctx.arrived = arrived
        return tuple(state.view_as(state) for state in states)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.arrived.norm = _joint_norm(gradients)
        return None, *gradients


class _LeaveWithNorm(torch.autograd.Function):
    """The previous states of a step, unchanged; the gradient that leaves through them is rescaled to what arrived."""

    @staticmethod
    def forward(ctx: Any, arrived: _Arrived, *states: Tensor) -> tuple[Tensor, ...]:
        ctx.arrived = arrived
        return tuple(state.view_as(state) for state in states)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        leaving = _joint_norm(gradients)
        factor = torch.where(leaving > 0, ctx.arrived.norm / leaving, 0.0)
        return None, *(factor * gradient for gradient in gradients)


def _joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm (replica, batch, 1) over all states side by side."""
    return torch.linalg.vector_norm(torch.cat(gradients, dim=-1), dim=-1, keepdim=True)


class _Cut:
    """Detaches a state from the previous step where `mask` is True."""

    def __init__(self, mask: Bool[Tensor, "time replica batch"], device: torch.device) -> None:
        # Computed on the host, so that a step that cuts nowhere or everywhere needs no mask.
        self._somewhere = mask.flatten(1).any(1).tolist()
        self._everywhere = mask.flatten(1).all(1).tolist()
        self._mask = mask.unsqueeze(-1).to(device)

    def __call__(self, t: int, value: Float[Tensor, "replica batch width"]) -> Float[Tensor, "replica batch width"]:
        if not self._somewhere[t]:
            return value
        return value.detach() if self._everywhere[t] else torch.where(self._mask[t], value.detach(), value)
