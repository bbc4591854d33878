from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.tasks.task import Task, mean_over_supervised


@dataclass(frozen=True)
class PopulationBatch:
    """One batch for each replica, reduced to the supervised steps where that is possible.

    Attributes:
        inputs: (time, replica, batch, features).
        steps: the time indices, counted from 0, at which any sequence is supervised.
        targets, mask: (step, replica, batch, …), at those steps.
        last: index of each sequence's last supervised step.
        informative: (time, replica, batch), where the inputs say what the answer depends on.
    """

    inputs: Float[Tensor, "time replica batch features"]
    steps: tuple[int, ...]
    targets: Shaped[Tensor, "step replica batch *outputs"]
    mask: Bool[Tensor, "step replica batch"]
    last: Int[Tensor, "replica batch"]
    informative: Bool[Tensor, "time replica batch"]

    def loss(self, task: Task, outputs: Float[Tensor, "step replica batch outputs"]) -> Float[Tensor, "replica batch"]:
        """ℓ_b: the mean over the supervised steps of each sequence."""
        return mean_over_supervised(task.loss(outputs, self.targets), self.mask)

    def loss_of_last_step(
        self, task: Task, outputs: Float[Tensor, "step replica batch outputs"]
    ) -> Float[Tensor, "replica batch"]:
        """The loss of the last supervised step of each sequence alone."""
        steps = torch.tensor(self.steps, device=self.last.device)[:, None, None]
        return (task.loss(outputs, self.targets) * (steps == self.last)).sum(0)

    def measures(self, task: Task, outputs: Tensor) -> dict[str, Float[Tensor, "replica batch"]]:
        return dict(task.measures(outputs, self.targets, self.mask))


BLOCK = 64
"""Training steps whose data come from one generator: a resumed run needs nothing but its step number."""

MOST_NUMBERS_DRAWN = 2**24
"""Inputs drawn at once; part of what the data are, so it must not depend on the machine."""

EVALUATION_CHUNK = 1000
"""Evaluation sequences drawn from one generator."""


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """`values` on the device; on CUDA from pinned memory, so that the host does not wait for the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
