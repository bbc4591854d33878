"""Training: one loop, for a population of runs in lockstep. It knows no task, no tracker, no file but a checkpoint."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from rnnstudy.engines.choice import Wanted, choose, known, require
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.probes.probe import BackwardPass, Moment
from rnnstudy.probes.reading import Reading
from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.training.devices import resolve_device
from rnnstudy.training.evaluation import evaluate, evaluate_test, fixed_batches, probe_batches, read_probes
from rnnstudy.training.grouping import populations
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population
from rnnstudy.training.records import Check, Record, TrainingProgress

PROGRESS_EVERY = 10
"""Updates between two reports of progress."""


def train(
    runs: Population | Run | Sequence[Run],
    *,
    device: str = "auto",
    engine: Engine | Wanted = "auto",
    checkpoint: Path | None = None,
    resume: Path | None = None,
    checkpoint_seconds: float = 10.0,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
    prune: Callable[[Check], Collection[str]] = lambda _: (),
) -> Iterator[Record]:
    """Train runs together and yield their records; the last record of each run carries its outcome.

    Runs that cannot train in lockstep are trained one population after another.

    Args:
        runs: a population, a run, or runs.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:1`.
        engine: how cells run over time: `auto` (the fastest that serves a run), `reference`, `compiled` (CPU),
            `graph`, `triton` (CUDA), or an engine.
            A run that it does not serve is trained by the reference engine; a run that goes on from a checkpoint, by
            the engine that began it.
        checkpoint: file to resume from, where it exists, and to save to, for one population. A record is yielded only
            after the checkpoint that contains it is on disk; without a file, at once.
        resume: another file to resume from, which may hold more runs than these.
        checkpoint_seconds: least time between two checkpoints.
        stop: asked before each update; when true, a checkpoint is saved and the records end without an outcome.
        progress: told now and then where the population stands.
        prune: told the validation errors at each check; the runs whose keys it gives stop there, as `pruned`.

    Raises:
        SpecError: for a checkpoint with runs that are not one population, a damaged checkpoint, an unknown engine or
            one that cannot work on the device, or a device that is not there.
    """
    groups = [runs] if isinstance(runs, Population) else populations([runs] if isinstance(runs, Run) else runs)
    if checkpoint is not None and len(groups) > 1:
        raise SpecError("a checkpoint belongs to one population; these runs cannot train together")
    where = resolve_device(device)
    if isinstance(engine, str):
        require(known(engine), where)

    def records() -> Iterator[Record]:
        for population in groups:
            learner = (
                Learner.resume(population, where, checkpoint)
                or Learner.resume(population, where, resume)
                or Learner.begin(population, where)
            )
            with denormals_flushed():
                saving = Saving(checkpoint, checkpoint_seconds)
                yield from _train(learner, serving(engine, learner), saving, stop, progress, prune)

    # A generator of its own, so that what is wrong is told by the call and not by the first record.
    return records()


def serving(engine: Engine | Wanted, learner: Learner) -> Engine:
    """The engine that trains the population from its first step to its last: what began it, or else `engine` where it
    serves the population's cell and training methods, otherwise the reference engine."""
    cell, needs = learner.population.model.cell, learner.population.training.needs
    if isinstance(engine, str):
        chosen = choose(cell, needs, learner.device, known(learner.engine or engine))
    else:
        chosen = engine if engine.serves(cell, needs) else ReferenceEngine()
    learner.engine = chosen.name
    return chosen


def _train(
    learner: Learner,
    engine: Engine,
    saving: "Saving",
    stop: Callable[[], bool],
    progress: Callable[[TrainingProgress], None],
    prune: Callable[[Check], Collection[str]],
) -> Iterator[Record]:
    population, device = learner.population, learner.device
    task, training, model = population.task, population.training, population.model
    probes = population.runs[0].probes
    validation = list(fixed_batches(population, "validation", training.validation_sequences, device))
    batches = population.training_batches(learner.step, device)
    if learner.history.blocks == 0:
        read_probes(learner, "initial")

    while not learner.complete and learner.any_active and learner.step < training.steps:
        if stop():
            learner.history.fetch(time.time())
            yield from saving.now(learner)
            return
        batch = next(batches)
        observed = bool(training.omega) or any(probe.observes and probe.due(learner.step) for probe in probes)
        outputs, trajectories = model.forward(
            engine,
            learner.parameters,
            batch.inputs,
            steps=batch.steps,
            observed=observed,
            cuts=population.cuts(learner.step, batch),
        )
        loss = batch.loss(task, outputs).mean(-1)
        before, penalty = learner.regularise(learner.backward(loss), trajectories)
        after = learner.clip(before)
        learner.take([Reading("learning/loss", loss, (), task.loss_unit), *penalty], learner.step, spacing=1)
        through_time = BackwardPass(trajectories, model.cell.states, batch.last, training.batch) if observed else None
        of_all = probe_batches(population, learner.parameters, device)
        moment = Moment("training", learner.step, learner.parameters, before, after, through_time, of_all, model.cell)
        for probe in probes:
            if probe.due(learner.step):
                learner.take(probe.read(moment), learner.step, spacing=probe.spacing)
        learner.update(loss, before, after)
        checked = learner.step % training.check_every == 0 or learner.step == training.steps
        if checked:
            learner.decide(evaluate(population, engine, learner.parameters, validation, task))
            learner.prune(prune(learner.check()))
            yield from saving.when_due(learner)
        if checked or learner.step % PROGRESS_EVERY == 0:
            progress(learner.progress())

    if not learner.complete:
        if learner.pruned().all():
            learner.finish({})
        else:
            read_probes(learner, "final")
            learner.finish(evaluate_test(learner, engine))
    yield from saving.now(learner)
    yield from learner.last_records(engine.name)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Meanwhile, denormal numbers count as zero: on a CPU they slow a vanishing gradient's backward pass many times."""
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class Saving:
    """When checkpoints are written, and the rule that a record is handed on only after the checkpoint that holds it."""

    def __init__(self, path: Path | None, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._last = time.monotonic()

    def when_due(self, learner: Learner) -> Iterator[Record]:
        """The new records, if a checkpoint is due or none is kept; otherwise nothing yet."""
        if self.path is None or time.monotonic() - self._last >= self._seconds:
            yield from self.now(learner)

    def now(self, learner: Learner) -> Iterator[Record]:
        """Save, then give the new records."""
        if self.path is not None:
            learner.save(self.path)
            self._last = time.monotonic()
        yield from learner.new_records()
