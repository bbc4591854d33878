"""What a sweep will train: the runs that the store does not hold, in populations, resumed where checkpoints exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rnnstudy.engines import EngineName
from rnnstudy.engines.choice import choose
from rnnstudy.run import Run, runs_in_words, unique_names
from rnnstudy.store.tracker import Failures, KnownRuns
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.queue import FixedQueue
from rnnstudy.training.checkpoint import can_resume, checkpoint_keys
from rnnstudy.training.cost import Cost, cost, load_of, population_bounds
from rnnstudy.training.devices import resolve_device
from rnnstudy.training.grouping import populations, split_evenly
from rnnstudy.training.population import Population

ATTEMPTS = 3
"""How often a run may fail before it is given up."""

SECONDS_TO_START = 5.0
"""Until a worker process has begun and imported torch and the experiment."""

SECONDS_TO_COMPILE = 30.0
"""Upper estimate for the kernels of one cell."""


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

    def headline(self, workers: int, engine: EngineName = "auto", device: str = "cpu") -> str:
        """How many runs there are, how many must be trained, and the upper estimate of how long that takes.

        The estimate includes the start of the workers and, where the engine has to, compiling its kernels.
        """
        counted = f"{runs_in_words(len(self.runs))}: {len(self.complete)} in the store, {self.run_count} to train"
        if not self.assignments:
            return counted
        side_by_side = max(1, min(workers, len(self.assignments)))
        compiling = SECONDS_TO_COMPILE * len(self._cells_to_compile(engine, device))
        seconds = self.cost.seconds / side_by_side + SECONDS_TO_START + compiling
        once = f" (of these {duration(compiling)} to compile kernels, once on this machine)" if compiling else ""
        return f"{counted}, at most about {duration(seconds)}{once}"

    def _cells_to_compile(self, engine: EngineName, device: str) -> set[type]:
        """The cells whose kernels the engine has yet to compile; on a GPU that is not known beforehand."""
        where = resolve_device(device)
        if where.type != "cpu":
            return set()
        found = set()
        for assignment in self.assignments:
            run = assignment.runs[0]
            if choose(run.cell, run.training.needs, where, engine, load_of(run)).compiles(run.cell):
                found.add(type(run.cell))
        return found


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `7 min`, `3.5 h`, `2.3 days`; `under 0.1 s` for less."""
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 89.5:
        return f"{seconds:.{int(seconds < 9.95)}f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def make_plan(
    runs: Sequence[Run],
    store: KnownRuns,
    folder: Path,
    workers: int,
    rerun: bool = False,
    device: str = "cpu",
    names: Mapping[str, str] | None = None,
) -> Plan:
    """Decide what to train, in populations that fit into the device's memory.

    `folder` holds the checkpoints of earlier, interrupted sweeps; `names` are the runs' names, by key, where `runs` are
    a part of an experiment.
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
    return Plan(runs, names or unique_names(runs), complete, assignments, warnings, given_up)


def _assignment(runs: tuple[Run, ...], folder: Path, resume: Path | None) -> Assignment:
    return Assignment(runs, folder / f"{Population(runs).key}.pt", resume)
