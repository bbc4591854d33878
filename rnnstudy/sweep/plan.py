"""What a sweep will train: what the store does not hold yet, in populations, from their checkpoints where there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rnnstudy.run import Run, names
from rnnstudy.store.tracker import Failures, RunIndex
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.queue import FixedQueue
from rnnstudy.training.checkpoint import continues, keys_in
from rnnstudy.training.cost import Cost, cost, population_bounds
from rnnstudy.training.devices import resolve_device
from rnnstudy.training.grouping import populations, split_evenly
from rnnstudy.training.population import Population

ATTEMPTS = 3
"""How often a run may fail before it is set aside."""


@dataclass
class Plan:
    """What a sweep will do.

    Attributes:
        runs: all runs asked for.
        names: their names, by key.
        served: keys that the store already holds.
        tasks: the populations to train, the most costly first.
        warnings: one line each.
        set_aside: the runs that have failed too often to be tried again, by key.
    """

    runs: Sequence[Run]
    names: Mapping[str, str]
    served: set[str]
    tasks: list[Assignment]
    warnings: list[str]
    set_aside: Mapping[str, Failures] = field(default_factory=dict)

    def supply(self) -> FixedQueue:
        """The tasks, to be handed out in their order."""
        return FixedQueue(self.tasks, self.names, self.served)

    @property
    def cost(self) -> Cost:
        """Upper estimate for what is to be trained."""
        return sum((cost(Population(task.runs)) for task in self.tasks), Cost(0.0, 0.0))


def make_plan(
    runs: Sequence[Run], store: RunIndex, folder: Path, workers: int, rerun: bool = False, device: str = "cpu"
) -> Plan:
    """Decide what is to be trained, in populations that the device holds.

    `folder` holds the checkpoints of earlier, interrupted sweeps.
    """
    failures = {} if rerun else store.failures()
    set_aside = {run.key: failures[run.key] for run in runs if run.key in failures}
    set_aside = {key: one for key, one in set_aside.items() if one.attempts >= ATTEMPTS}
    finished = {} if rerun else store.finished()
    served = {run.key for run in runs if run.key in finished and finished[run.key].serves(run)}
    warnings = [line for run in runs if run.key in served and (line := finished[run.key].warning(run))]
    waiting = {run.key: run for run in runs if run.key not in served | set_aside.keys()}
    tasks = []
    if not rerun:
        for path in sorted(folder.glob("*.pt")):
            held = [waiting[key] for key in keys_in(path) if key in waiting]
            # The probes are no part of a key: a checkpoint with other readings cannot be continued with these.
            if held and len({run.structure for run in held}) == 1 and continues(path, held[0]):
                tasks.append(_task(tuple(held), folder, path))
                for run in held:
                    del waiting[run.key]
    groups = populations(list(waiting.values()), *population_bounds(resolve_device(device), workers))
    tasks += [_task(population.runs, folder, None) for population in split_evenly(groups, workers)]
    tasks.sort(key=lambda task: -cost(Population(task.runs)).seconds)
    return Plan(runs, names(runs), served, tasks, warnings, set_aside)


def _task(runs: tuple[Run, ...], folder: Path, resume: Path | None) -> Assignment:
    return Assignment(runs, folder / f"{Population(runs).key}.pt", resume)
