"""Which replicas of a population still train, and which have solved their task, diverged or were pruned."""

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.training.population import Population
from rnnstudy.training.records import Status

NEVER = -1
"""Stands for a step that has not come: the replica has not diverged, was not pruned, and so on."""

PASSES_TO_STOP = 2
"""Validation checks in a row that must meet the criterion before a run counts as solved in training."""


class Verdicts:
    """The state of each replica of a population, also of those that have stopped: `active` is False from then on.

    Divergence is decided on the device at every update, without making the host wait. Everything else is decided on the
    host, at validation checks.
    """

    def __init__(self, population: Population, device: torch.device) -> None:
        replicas = len(population.runs)
        self._population = population
        self._device = device
        self.active: Bool[Tensor, " replica"] = torch.ones(replicas, dtype=torch.bool, device=device)
        self.any_active = True
        self._diverged_at = torch.full((replicas,), NEVER, device=device)
        self._ended_at, self._solved_at, self._pruned_at = (torch.full((replicas,), NEVER) for _ in range(3))
        self._passes = torch.zeros(replicas, dtype=torch.long)
        self.error: Float[Tensor, " replica"] = torch.full((replicas,), torch.nan, dtype=torch.float64)
        """At the last validation check in which the replica took part."""

    def state(self) -> dict[str, Tensor]:
        """Tensors (replica) for a checkpoint."""
        return {
            "active": self.active.cpu(),
            "diverged_at": self._diverged_at.cpu(),
            "ended_at": self._ended_at,
            "passes": self._passes,
            "solved_at": self._solved_at,
            "pruned_at": self._pruned_at,
            "error": self.error,
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state()` returned."""
        self.active = state["active"].to(self._device)
        self.any_active = bool(state["active"].any())
        self._diverged_at = state["diverged_at"].to(self._device)
        self._ended_at, self._passes, self._solved_at = state["ended_at"], state["passes"], state["solved_at"]
        # Checkpoints of older versions know no pruning.
        self._pruned_at = state.get("pruned_at", self._pruned_at)
        self.error = state.get("error", self.error)

    def diverged(self) -> Bool[Tensor, " replica"]:
        return self._diverged_at.cpu() != NEVER

    def pruned(self) -> Bool[Tensor, " replica"]:
        return self._pruned_at != NEVER

    def stop_diverged(self, finite: Bool[Tensor, " replica"], step: int) -> None:
        """Stop the active replicas whose loss or gradient is not `finite` after `step` updates."""
        self._diverged_at = torch.where(self.active & ~finite, step, self._diverged_at)
        self.active = self.active & finite

    def stop_solved(self, step: int) -> None:
        """Note which replicas solved their task by their validation error, and stop them if the training says so."""
        training, criterion = self._population.training, self._population.task.criterion
        active = self.active.cpu()
        passed = torch.tensor([criterion.met(value) for value in self.error.tolist()])
        self._passes = torch.where(passed, self._passes + 1, 0)
        solved = active & (self._passes == PASSES_TO_STOP) & (self._solved_at == NEVER)
        # The last check may come less than `check_every` updates after the check before it.
        check_before = (step - 1) // training.check_every * training.check_every
        self._solved_at = torch.where(solved, check_before, self._solved_at)
        if training.stop_when_solved:
            self._ended_at = torch.where(solved, step, self._ended_at)
            self.active = self.active & ~solved.to(self._device)
        self.any_active = bool(self.active.any())

    def prune(self, keys: Collection[str], step: int) -> None:
        """Stop the runs with these keys. Keys of other runs, and of runs that have ended, are ignored."""
        named = torch.tensor([key in keys for key in self._population.keys])
        pruned = named & self.active.cpu()
        self._pruned_at = torch.where(pruned, step, self._pruned_at)
        self.active = self.active & ~pruned.to(self._device)
        self.any_active = bool(self.active.any())

    def diverged_at_the_end(self, finite: Bool[Tensor, " replica"], step: int) -> None:
        """Count as diverged the replicas, pruned ones excepted, that are not `finite` after their last update."""
        late = (self._diverged_at == NEVER) & ~finite & ~self.pruned().to(self._device)
        self._diverged_at = torch.where(late, self.stopped_at(step).to(self._device), self._diverged_at)

    def stopped_at(self, step: int) -> Int[Tensor, " replica"]:
        """Updates that each replica has made: up to where it solved, diverged or was pruned, otherwise all `step`."""
        diverged_at = self._diverged_at.cpu()
        ended = torch.where(self._ended_at == NEVER, step, self._ended_at)
        ended = torch.where(self._pruned_at == NEVER, ended, self._pruned_at)
        return torch.where(diverged_at == NEVER, ended, diverged_at)

    def steps_to_solve(self) -> list[int | None]:
        """For each replica the step of the first of two passed checks in a row, or None."""
        return [None if step == NEVER else step for step in self._solved_at.tolist()]

    def endings(self) -> list[tuple[Status, str]]:
        """For each replica its final status, and the reason of a divergence or a pruning."""
        endings: list[tuple[Status, str]] = []
        for diverged, pruned in zip(self.diverged().tolist(), self.pruned().tolist(), strict=True):
            if diverged:
                endings.append(("diverged", "loss or gradient not finite"))
            else:
                endings.append(("pruned", "given up by its search") if pruned else ("finished", ""))
        return endings
