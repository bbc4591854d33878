"""The reference engine: plain autograd over a Python loop. It defines what the faster engines must give."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.engines.engine import Cuts, Engine, Need, Trajectory


class ReferenceTrajectory(Trajectory):
    """States observed by adding to each a leaf of zeros, whose gradient is then the state's total derivative."""

    def __init__(self, outputs: Tensor, leaves: dict[str, Tensor], values: dict[str, list[Tensor]]) -> None:
        self.outputs = outputs
        self._leaves = leaves
        self._values = values

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_t for t = 1..T, without gradient."""
        if state not in self._values:
            raise RuntimeError(f"state '{state}' was not observed; observed: {', '.join(self._values) or 'none'}")
        return torch.stack([value.detach() for value in self._values[state]])

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t for t = 1..T after the backward pass: the total derivative."""
        if state not in self._leaves:
            raise RuntimeError(f"state '{state}' was not observed; observed: {', '.join(self._leaves) or 'none'}")
        gradient = self._leaves[state].grad
        if gradient is None:
            raise RuntimeError("the gradient through time exists only after the backward pass")
        return gradient

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        gradient = self.gradient(state)
        largest = gradient.abs().amax(-1)
        # Squares leave float64's range long before the gradient does, so the largest entry is taken out first.
        scaled = gradient / torch.where(largest > 0, largest, 1.0).unsqueeze(-1)
        return torch.linalg.vector_norm(scaled, dim=-1, dtype=torch.float64).log10() + largest.double().log10()


class ReferenceEngine(Engine):
    """Any cell, any device, plain autograd."""

    name = "reference"

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return True

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
    ) -> ReferenceTrajectory:
        time, replicas, batch, _ = inputs.shape
        rows = inputs.transpose(0, 1).reshape(replicas, time * batch, -1)
        projected = cell.project(parameters, rows).view(replicas, time, batch, -1).unbind(1)
        state = {name: inputs.new_zeros(replicas, batch, width) for name, width in widths.items()}
        leaves = {
            name: inputs.new_zeros(time, replicas, batch, width, requires_grad=True)
            for name, width in widths.items()
            if observed
        }
        # Taken apart once: indexing a leaf at every step makes the backward pass quadratic in the number of steps.
        slices = {name: leaf.unbind(0) for name, leaf in leaves.items()}
        wanted = None if steps is None else set(steps)
        passages = {name: _Passage(mask, inputs.device) for name, mask in (cuts or {}).items()}
        kept: dict[str, list[Tensor]] = {name: [] for name in leaves}
        outputs = []
        for t in range(time):

            def observe(name: str, value: Tensor, t: int = t) -> Tensor:
                return value + slices[name][t] if observed else value

            for name, passage in passages.items():
                state[name] = passage(t, state[name])
            state = cell.step(parameters, projected[t], state, observe)
            for name, values in kept.items():
                values.append(state[name])
            if wanted is None or t in wanted:
                outputs.append(state[cell.output])
        return ReferenceTrajectory(torch.stack(outputs), leaves, kept)


class _Passage:
    """What a step reads of a state of the step before: the state itself, or where it is cut, its value alone."""

    def __init__(self, mask: Bool[Tensor, "time replica batch"], device: torch.device) -> None:
        # Asked for on the host, so that a step that cuts nowhere or everywhere needs no mask.
        self._somewhere = mask.flatten(1).any(1).tolist()
        self._everywhere = mask.flatten(1).all(1).tolist()
        self._mask = mask.unsqueeze(-1).to(device)

    def __call__(self, t: int, value: Float[Tensor, "replica batch width"]) -> Float[Tensor, "replica batch width"]:
        if not self._somewhere[t]:
            return value
        return value.detach() if self._everywhere[t] else torch.where(self._mask[t], value.detach(), value)
