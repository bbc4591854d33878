"""The reference engine: plain autograd over a Python loop. It defines what the faster engines must compute."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.cells.cell import Cell
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
        projected = cell.project(parameters, rows).view(replicas, time, batch, -1).unbind(1)
        state = {name: inputs.new_zeros(replicas, batch, width) for name, width in widths.items()}
        leaves = {
            name: inputs.new_zeros(time, replicas, batch, width, requires_grad=True)
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
            state = cell.step(parameters, projected[t], state, observe)
            for name, values in recorded.items():
                values.append(state[name])
            if t in output_steps:
                outputs.append(state[cell.output])
        return ReferenceTrajectory(torch.stack(outputs), leaves, recorded)


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
