"""What a sweep will train: the runs that the store does not hold, in populations, resumed where checkpoints exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rnnstudy.run import Run, unique_names
from rnnstudy.store.tracker import Failures, KnownRuns
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.queue import FixedQueue
from rnnstudy.training.checkpoint import can_resume, checkpoint_keys
from rnnstudy.training.cost import Cost, cost, population_bounds
from rnnstudy.training.devices import resolve_device
from rnnstudy.training.grouping import populations, split_evenly
from rnnstudy.training.population import Population

ATTEMPTS = 3
"""How often a run may fail before it is given up."""


@dataclass
class Plan:
    """What a sweep will do.

    Attributes:
        runs: all runs asked for.
        names: their names, by key.
        complete: keys of the runs that the store already holds.
        assignments: the populations to train, the most costly first.
        warnings: one line each.
        given_up: the runs that have failed too often to be tried again, by key.
    """

    runs: Sequence[Run]
    names: Mapping[str, str]
    complete: set[str]
    assignments: list[Assignment]
    warnings: list[str]
    given_up: Mapping[str, Failures] = field(default_factory=dict)

    def queue(self) -> FixedQueue:
        """A work queue of the assignments, in this order."""
        return FixedQueue(self.assignments, self.names, self.complete)

    @property
    def cost(self) -> Cost:
        """Upper estimate of what training the assignments costs."""
        return sum((cost(Population(assignment.runs)) for assignment in self.assignments), Cost(0.0, 0.0))

    @property
    def run_count(self) -> int:
        """How many runs are to be trained."""
        return sum(len(assignment.runs) for assignment in self.assignments)

    def headline(self, workers: int) -> str:
        """How many runs there are, how many must be trained, and the upper estimate of how long that takes."""
        side_by_side = max(1, min(workers, len(self.assignments)))
        estimate = f", at most about {duration(self.cost.seconds / side_by_side)}" if self.assignments else ""
        return f"{len(self.runs)} runs: {len(self.complete)} in the store, {self.run_count} to train{estimate}"


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_plan(
    runs: Sequence[Run], store: KnownRuns, folder: Path, workers: int, rerun: bool = False, device: str = "cpu"
) -> Plan:
    """Decide what to train, in populations that fit into the device's memory.

    `folder` holds the checkpoints of earlier, interrupted sweeps.
    """
    keys = [run.key for run in runs]
    failures = {} if rerun else store.failures(keys)
    given_up = {run.key: failures[run.key] for run in runs if run.key in failures}
    given_up = {key: known for key, known in given_up.items() if known.attempts >= ATTEMPTS}
    finished = {} if rerun else store.finished(keys)
    complete = {run.key for run in runs if run.key in finished and finished[run.key].serves(run)}
    warnings = [line for run in runs if run.key in complete and (line := finished[run.key].warning(run))]
    waiting = {run.key: run for run in runs if run.key not in complete | given_up.keys()}
    assignments = []
    if not rerun:
        for path in sorted(folder.glob("*.pt")):
            held = [waiting[key] for key in checkpoint_keys(path) if key in waiting]
            # The probes are no part of a key: a checkpoint with other readings cannot be continued with these.
            if held and len({run.structure for run in held}) == 1 and can_resume(path, held[0]):
                assignments.append(_assignment(tuple(held), folder, path))
                for run in held:
                    del waiting[run.key]
    groups = populations(list(waiting.values()), *population_bounds(resolve_device(device), workers))
    assignments += [_assignment(population.runs, folder, None) for population in split_evenly(groups, workers)]
    assignments.sort(key=lambda assignment: -cost(Population(assignment.runs)).seconds)
    return Plan(runs, unique_names(runs), complete, assignments, warnings, given_up)


def _assignment(runs: tuple[Run, ...], folder: Path, resume: Path | None) -> Assignment:
    return Assignment(runs, folder / f"{Population(runs).key}.pt", resume)
