"""Networks measured on fixed sequences: the task's measures, and what the probes read before and after training."""

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
from rnnstudy.training.batches import PopulationBatch, fixed_batch, fixed_batches
from rnnstudy.training.cost import population_bounds, replicas_probed_together, require_room_for_jacobians
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

MOST_NUMBERS_AT_ONCE = 2**25
"""Bound on the pre-activations in memory during an evaluation. The results do not depend on it."""


def evaluate(
    population: Population, engine: Engine, parameters: Parameters, batches: Iterable[PopulationBatch], task: Task
) -> dict[str, Float[Tensor, " replica"]]:
    """Means over all sequences, in float64, of the task's measures: `error` and what else the task reports."""
    sums: dict[str, Tensor] = {}
    sequences = 0
    with torch.no_grad():
        for batch in batches:
            outputs, _ = population.model.forward(
                engine, parameters, batch.inputs, steps=batch.steps, observed=False, ends=batch.last
            )
            for name, values in task.measures(outputs, batch.targets, batch.mask).items():
                sums[name] = sums.get(name, 0) + values.double().sum(-1)
            sequences += batch.inputs.shape[2]
    return {name: total / sequences for name, total in sums.items()}


def evaluation_batches(
    population: Population, purpose: str, sequences: int, device: torch.device, task: Task | None = None
) -> Iterator[PopulationBatch]:
    """`sequences` fixed sequences for each replica, in batches that fit `MOST_NUMBERS_AT_ONCE`."""
    task = task or population.task
    # In a block, the stream, normalised and mixed, stands beside the pre-activations.
    around = len(population.model.directions) * (1 if population.model.block is None else 2)
    per_sequence = task.steps * len(population.runs) * 4 * around * population.runs[0].cell.width
    most = max(1, MOST_NUMBERS_AT_ONCE // per_sequence)
    return fixed_batches(population, purpose, sequences, device, task, most)


def evaluate_test(learner: Learner, engine: Engine) -> dict[str, Float[Tensor, " replica"]]:
    """The measures on the test sequences. Records the error at other lengths as the reading `generalisation/error`."""
    population, training, device = learner.population, learner.population.training, learner.device
    errors = []
    for length in training.other_lengths:
        task = population.task.with_length(length)
        batches = evaluation_batches(population, f"length {length}", training.validation_sequences, device, task)
        errors.append(evaluate(population, engine, learner.parameters, batches, task)["error"])
    if errors:
        lengths = {"length": tuple(float(length) for length in training.other_lengths)}
        reading = Reading("generalisation/error", torch.stack(errors, dim=1), ("length",), "", lengths)
        learner.record([reading], learner.stopped_at(), spacing=0)
    test = evaluation_batches(population, "test", training.test_sequences, device)
    return evaluate(population, engine, learner.parameters, test, population.task)


def read_probes(learner: Learner, stage: Literal["initial", "final"]) -> None:
    """Read and record every probe before the first or after the last update.

    A large population is read in parts: the scaled engine keeps every state of the side batch in float64. Raises
    `RequestError` when there is no room for the Jacobians that a probe needs.
    """
    population = learner.population
    run = population.runs[0]
    require_room_for_jacobians(run, run.probes, lambda: population_bounds(learner.device)[1])
    size = replicas_probed_together(run, learner.device)
    of_parts: list[list[list[Reading]]] = []
    for first in range(0, len(population.runs), size):
        part = Population(population.runs[first : first + size])
        parameters = {name: value[first : first + size] for name, value in learner.parameters.items()}
        side = probe_batches(part, parameters, learner.device)
        moment = Moment(stage, learner.step, parameters, {}, {}, None, side, population.model.cell)
        of_parts.append([probe.read(moment) for probe in population.runs[0].probes])
    for of_probe in zip(*of_parts, strict=True):
        readings = [_joined(readings) for readings in zip(*of_probe, strict=True)]
        learner.record(readings, learner.stopped_at(), spacing=0)


def _joined(of_parts: Sequence[Reading]) -> Reading:
    """One reading of the whole population from those of its parts, which must agree in name, axes and positions."""
    first, *others = of_parts
    meaning = (first.name, first.axes, first.coordinates, first.values.shape[1:])
    if any((other.name, other.axes, other.coordinates, other.values.shape[1:]) != meaning for other in others):
        raise RuntimeError(
            f"a probe reads '{first.name}' of some runs, and something else, or at other positions, of others; what a "
            "probe reads may depend on the task and the cell only"
        )
    return dataclasses.replace(first, values=torch.cat([part.values for part in of_parts]))


def probe_batches(
    population: Population, parameters: Parameters, device: torch.device
) -> Callable[[int], BackwardPass]:
    """A cached function n -> side batch of n sequences, shared by all probes of one moment."""
    return functools.cache(lambda sequences: side_batch(population, parameters, sequences, device))


def side_batch(population: Population, parameters: Parameters, sequences: int, device: torch.device) -> BackwardPass:
    """Gradients through time on fixed sequences that no training step sees, in float64, by the scaled engine.

    The function differentiated is the sum over sequences of the loss of the last supervised step alone, so that each
    sequence's trajectory has the gradient of its own loss. The reverse direction of a task that is supervised from its
    first step on ends there: its trajectories are those of the loss of the first step alone.
    """
    model, task = population.model, population.task
    batch = fixed_batch(population, "probe", sequences, device)
    double = {name: value.detach().double() for name, value in parameters.items()}

    def unrolled(inputs: Tensor, loss: Callable[[Task, Tensor], Tensor] | None = None) -> ScaledEngine:
        """The engine after a forward pass, and after the backward pass of a loss."""
        engine = ScaledEngine()
        with torch.set_grad_enabled(loss is not None):
            outputs, _ = model.forward(engine, double, inputs, steps=batch.steps, observed=True, ends=batch.last)
            if loss is not None:
                loss(task, outputs).sum().backward()
        return engine

    inputs = batch.inputs.double() if batch.inputs.is_floating_point() else batch.inputs
    engine = unrolled(inputs, batch.loss_of_last_step)
    layers = engine.layers
    if model.bidirectional and not model.ends_only:
        pairs = zip(layers, unrolled(inputs, batch.loss_of_first_step).layers, model.reverse, strict=True)
        layers = [of_first if reverse else of_last for of_last, of_first, reverse in pairs]
    return BackwardPass(
        layers,
        model.cell.read_states,
        batch.last,
        layers=layers,
        informative=batch.informative,
        suffixes=model.suffixes,
        reverse=model.reverse,
        inputs=inputs,
        vocabulary=None if inputs.is_floating_point() else model.features,
        streams=engine.streams,
        with_inputs=lambda others: unrolled(others).layers,
    )
