"""Judging networks on fixed sequences."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes.probe import BackwardPass, Moment
from rnnstudy.probes.reading import Reading
from rnnstudy.tasks.task import Task
from rnnstudy.training.batches import PopulationBatch
from rnnstudy.training.cost import replicas_looked_at_together
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

MOST_NUMBERS_AT_ONCE = 2**25
"""Bound on the pre-activations held at once while judging: memory, not results, depends on it."""


def evaluate(
    population: Population, engine: Engine, parameters: Parameters, batches: Iterable[PopulationBatch], task: Task
) -> dict[str, Float[Tensor, " replica"]]:
    """Means over all sequences of the task's measures, in float64: `error` and what else the task reports."""
    sums: dict[str, Tensor] = {}
    sequences = 0
    with torch.no_grad():
        for batch in batches:
            outputs, _ = population.model.forward(engine, parameters, batch.inputs, steps=batch.steps, observed=False)
            for name, values in batch.measures(task, outputs).items():
                sums[name] = sums.get(name, 0) + values.double().sum(-1)
            sequences += batch.inputs.shape[2]
    return {name: total / sequences for name, total in sums.items()}


def fixed_batches(
    population: Population, purpose: str, sequences: int, device: torch.device, task: Task | None = None
) -> Iterator[PopulationBatch]:
    """`sequences` fixed sequences for each replica, in parts that fit `MOST_NUMBERS_AT_ONCE`."""
    task = task or population.task
    for_each = task.steps * len(population.runs) * 4 * population.runs[0].cell.width
    return population.fixed_batches(purpose, sequences, device, task, most=max(1, MOST_NUMBERS_AT_ONCE // for_each))


def read_probes(learner: Learner, stage: Literal["initial", "final"]) -> None:
    """Let every probe read the moment before the first or after the last update.

    A large population is read in parts: the scaled engine keeps every state of the side batch in float64.
    """
    population = learner.population
    probes, size = population.runs[0].probes, replicas_looked_at_together(population.runs[0], learner.device)
    found: list[list[list[Reading]]] = [[] for _ in probes]
    for first in range(0, len(population.runs), size):
        part = Population(population.runs[first : first + size])
        parameters = {name: value[first : first + size] for name, value in learner.parameters.items()}
        of_part = probe_batches(part, parameters, learner.device)
        moment = Moment(stage, learner.step, parameters, {}, {}, None, of_part, population.model.cell)
        for readings, probe in zip(found, probes, strict=True):
            readings.append(probe.read(moment))
    for readings in found:
        learner.take([_joined(of_parts) for of_parts in zip(*readings, strict=True)], learner.stopped_at(), spacing=0)


def _joined(of_parts: Sequence[Reading]) -> Reading:
    """One reading of a whole population. Where an axis is shorter in a part, what it lacks there is absent."""
    first, *others = of_parts
    if any((one.name, one.axes) != (first.name, first.axes) for one in others):
        raise RuntimeError(f"a probe reads '{first.name}' of some replicas, and something else of others")
    longest = [max(lengths) for lengths in zip(*(one.values.shape[1:] for one in of_parts), strict=True)]
    values = []
    for one in of_parts:
        missing = [most - length for most, length in zip(longest, one.values.shape[1:], strict=True)]
        padding = [pad for lacks in reversed(missing) for pad in (0, lacks)]
        values.append(torch.nn.functional.pad(one.values, padding, value=torch.nan) if any(missing) else one.values)
    return dataclasses.replace(first, values=torch.cat(values))


def probe_batches(
    population: Population, parameters: Parameters, device: torch.device
) -> Callable[[int], BackwardPass]:
    """What makes the side batch of so many sequences, once for all probes of a moment."""

    @functools.cache
    def made(sequences: int) -> BackwardPass:
        return side_batch(population, parameters, sequences, device)

    return made


def evaluate_test(learner: Learner, engine: Engine) -> dict[str, Float[Tensor, " replica"]]:
    """The measures on fresh test sequences; and, as the reading `generalisation/error`, the error at other lengths."""
    population, training = learner.population, learner.population.training
    errors = []
    for length in training.other_lengths:
        task = population.task.with_length(length)
        batches = fixed_batches(population, f"length {length}", training.validation_sequences, learner.device, task)
        errors.append(evaluate(population, engine, learner.parameters, batches, task)["error"])
    if errors:
        lengths = {"length": tuple(float(length) for length in training.other_lengths)}
        reading = Reading("generalisation/error", torch.stack(errors, dim=1), ("length",), "", lengths)
        learner.take([reading], learner.stopped_at(), spacing=0)
    test = fixed_batches(population, "test", training.test_sequences, learner.device)
    return evaluate(population, engine, learner.parameters, test, population.task)


def side_batch(population: Population, parameters: Parameters, sequences: int, device: torch.device) -> BackwardPass:
    """Gradients through time on fixed sequences that no training step sees, in float64, by the scaled engine.

    What is differentiated is the sum over sequences of the loss of the last supervised step alone, so that a
    trajectory's gradient is each sequence's own.
    """
    [batch] = population.fixed_batches("probe", sequences, device)
    double = {name: value.detach().double() for name, value in parameters.items()}
    engine = ScaledEngine()
    with torch.enable_grad():
        outputs, trajectories = population.model.forward(
            engine, double, batch.inputs.double(), steps=batch.steps, observed=True
        )
        batch.loss_of_last_step(population.task, outputs).sum().backward()
    return BackwardPass(
        trajectories, population.model.cell.states, batch.last, layers=engine.made, informative=batch.informative
    )
