"""The training loop, for a population of runs in lockstep. It knows no particular task, no store, and one file: the
checkpoint."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from rnnstudy.engines import EngineName
from rnnstudy.engines.choice import choose, engine_name, require, say_reference_trains
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.probes.probe import BackwardPass, Moment
from rnnstudy.probes.reading import Reading
from rnnstudy.run import Run
from rnnstudy.spec import RequestError
from rnnstudy.training.batches import TrainingBatches, gradient_cuts
from rnnstudy.training.cost import load_of
from rnnstudy.training.devices import resolve_device
from rnnstudy.training.evaluation import evaluate, evaluate_test, evaluation_batches, probe_batches, read_probes
from rnnstudy.training.grouping import populations
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population
from rnnstudy.training.records import Record, TrainingProgress, ValidationCheck

PROGRESS_EVERY = 10
"""Updates between two reports of progress."""


def train(
    runs: Population | Run | Sequence[Run],
    *,
    device: str = "auto",
    engine: Engine | EngineName = "auto",
    checkpoint: Path | None = None,
    resume: Path | None = None,
    checkpoint_seconds: float = 10.0,
    stop: Callable[[], bool] = lambda: False,
    began: Callable[[float], None] = lambda _: None,
    progress: Callable[[TrainingProgress], None] = lambda _: None,
    prune: Callable[[ValidationCheck], Collection[str]] = lambda _: (),
) -> Iterator[Record]:
    """Train runs together and yield their records; the last record of each run carries its outcome.

    Runs that cannot train in lockstep are trained one population after another.

    Args:
        runs: a population, a run, or runs.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:1`.
        engine: how cells run over time: `auto` (the fastest that supports a run), `reference`, `compiled` (CPU),
            `graph`, `triton` (CUDA), or an engine. The reference engine trains the runs that it does not support; a run
            that is resumed keeps the engine it began with.
        checkpoint: file to resume from, if it exists, and to save to; for one population. A record is yielded only
            after the checkpoint that contains it is on disk; without a file, at once.
        resume: another file to resume from, which may hold more runs than these.
        checkpoint_seconds: least time between two checkpoints.
        stop: called before each update; when it returns True, a checkpoint is saved and the records end without an
            outcome.
        began: called before the first update here, with the time of a population's first update, in seconds since 1970;
            earlier than now where it is resumed.
        progress: called every few updates, at each validation check, and when another phase begins.
        prune: called with the errors at each validation check; returns the keys of the runs to stop as `pruned`.

    Raises:
        RequestError: for a checkpoint with runs that are not one population, an unknown engine or one that cannot work
            on the device, or a device that does not exist.
        CheckpointError: for a checkpoint that is damaged or lacks one of the runs.
    """
    groups = [runs] if isinstance(runs, Population) else populations([runs] if isinstance(runs, Run) else runs)
    if checkpoint is not None and len(groups) > 1:
        raise RequestError("a checkpoint belongs to one population; these runs cannot train together")
    where = resolve_device(device)
    if isinstance(engine, str):
        require(engine_name(engine), where)

    def records() -> Iterator[Record]:
        for population in groups:
            learner = (
                Learner.resume(population, where, checkpoint)
                or Learner.resume(population, where, resume)
                or Learner.begin(population, where)
            )
            saving = Saving(checkpoint, checkpoint_seconds)
            with denormals_flushed():
                yield from _train(learner, engine_of(learner, engine), saving, stop, began, progress, prune)

    # A nested generator, so that bad arguments raise on the call and not on first iteration.
    return records()


def engine_of(learner: Learner, wanted: Engine | EngineName) -> Engine:
    """The engine of the whole training: the one that began it; else `wanted`, if it supports the population's cell and
    training methods; else the reference engine."""
    population, model = learner.population, learner.population.model
    cell, needs = model.cell, population.training.needs
    if isinstance(wanted, str):
        name = engine_name(learner.engine or wanted)
        # The load of one run: whatever trains beside it, a run has the same engine, and so the same bits.
        engine = choose(cell, needs, learner.device, name, load_of(population.runs[0]))
    else:
        engine, name = wanted if wanted.serves(cell, needs) else ReferenceEngine(), wanted.name
    if reason := engine.unfit(cell, model.features, model.outputs):
        # What `auto` means where nothing is worth tracing: another compiled engine, for some cells.
        engine = choose(cell, needs, learner.device) if name == "auto" else ReferenceEngine()
        if isinstance(engine, ReferenceEngine):
            say_reference_trains(type(cell).__name__, reason)
    learner.engine = engine.name
    return engine


def _train(
    learner: Learner,
    engine: Engine,
    saving: "Saving",
    stop: Callable[[], bool],
    began: Callable[[float], None],
    progress: Callable[[TrainingProgress], None],
    prune: Callable[[ValidationCheck], Collection[str]],
) -> Iterator[Record]:
    population, device = learner.population, learner.device
    task, training, model = population.task, population.training, population.model
    probes = population.runs[0].probes
    validation = list(evaluation_batches(population, "validation", training.validation_sequences, device))
    validation = [batch.narrow(learner.positions) for batch in validation]
    batches = TrainingBatches(learner.live, learner.step, device)
    if learner.history.blocks == 0:
        progress(learner.progress("measuring"))
        read_probes(learner, "initial")
    progress(learner.progress("compiling" if engine.compiles(model.cell) else "training"))
    began(learner.begin_updates())

    checked = False
    while not learner.complete and learner.verdicts.any_active and learner.step < training.steps:
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
            cuts=gradient_cuts(learner.live, learner.step, batch),
            constant_norm=training.constant_norm is not None,
            ends=batch.last,
        )
        loss = batch.loss(task, outputs).mean(-1)
        before, penalty = learner.regularise(learner.backward(loss), trajectories)
        after = learner.clip(before)
        learner.record([Reading("learning/loss", loss, (), task.loss_unit), *penalty], learner.step, spacing=1)
        read = model.cell.read_states
        through_time = None
        if observed:
            in_time = model.in_time(trajectories, batch.last)
            through_time = BackwardPass(in_time, read, batch.last, training.batch, suffixes=model.suffixes)
        side = probe_batches(learner.live, learner.parameters, device)
        moment = Moment("training", learner.step, learner.parameters, before, after, through_time, side, model.cell)
        for probe in probes:
            if probe.due(learner.step):
                learner.record(probe.read(moment), learner.step, spacing=probe.spacing)
        learner.update(loss, before, after)
        stay = learner.drop_stopped() if checked else None
        if stay is not None:
            batches.narrow(learner.live)
            validation = [batch.narrow(stay) for batch in validation]
        checked = learner.step % training.check_every == 0 or learner.step == training.steps
        if checked:
            check = learner.after_validation(evaluate(learner.live, engine, learner.parameters, validation, task))
            learner.verdicts.prune(prune(check), learner.step)
            yield from saving.when_due(learner)
        if checked or learner.step % PROGRESS_EVERY == 0:
            progress(learner.progress())

    if not learner.complete:
        if learner.verdicts.pruned().all():
            learner.finish({})
        else:
            progress(learner.progress("testing"))
            learner.include_stopped()
            read_probes(learner, "final")
            learner.finish(evaluate_test(learner, engine))
    yield from saving.now(learner)
    yield from learner.last_records(engine.name)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Treats denormal numbers as zero inside the block: on a CPU they slow a vanishing gradient's backward pass many
    times."""
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class Saving:
    """Writes checkpoints, and releases a record only after the checkpoint that contains it."""

    def __init__(self, path: Path | None, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._last = time.monotonic()

    def when_due(self, learner: Learner) -> Iterator[Record]:
        """The new records, if a checkpoint is due or there is no file to save to; otherwise none yet."""
        if self.path is None or time.monotonic() - self._last >= self._seconds:
            yield from self.now(learner)

    def now(self, learner: Learner) -> Iterator[Record]:
        """Save a checkpoint, then yield the new records."""
        if self.path is not None:
            learner.save(self.path)
            self._last = time.monotonic()
        yield from learner.new_records()
