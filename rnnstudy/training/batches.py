"""The data of a population: each distinct data seed is drawn once, and its batch copied to the replicas that use it.

Every draw comes from a generator seeded by (data seed, purpose, block), so a resumed run needs only its step number.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.engines.engine import Cuts
from rnnstudy.errors import SpecError
from rnnstudy.tasks.task import Batch, Task, last_supervised, mean_over_supervised
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

BLOCK = 64
"""Training steps whose data come from one generator."""

MOST_NUMBERS_DRAWN = 2**24
"""Input numbers drawn at once. It decides what the data are, so it must not depend on the machine."""

EVALUATION_CHUNK = 1000
"""Evaluation sequences drawn from one generator."""


@dataclass(frozen=True)
class Drawn:
    """Sequences of one data seed that are what their task says.

    Attributes:
        last: index of each sequence's last supervised step.
    """

    batch: Batch
    last: Int[Tensor, " batch"]

    @staticmethod
    def from_task(task: Task, sequences: int, source: torch.Generator) -> "Drawn":
        """Raises `SpecError` where the inputs are not what the task says."""
        batch = task.sample(sequences, source)
        require_declared_inputs(task, batch)
        return Drawn(batch, last_supervised(batch.mask))

    def parts(self, size: int) -> list["Drawn"]:
        """`size` sequences after another; the last part may have fewer."""
        return [Drawn(*part) for part in zip(self.batch.parts(size), self.last.split(size), strict=True)]

    @staticmethod
    def joined(parts: Sequence["Drawn"]) -> "Drawn":
        """The sequences of all parts, in order."""
        return Drawn(Batch.joined([part.batch for part in parts]), torch.cat([part.last for part in parts]))


@dataclass(frozen=True)
class PopulationBatch:
    """One batch for each replica, reduced to the supervised steps where that is possible.

    Attributes:
        inputs: (time, replica, batch, features), or symbols (time, replica, batch, 1).
        steps: the time indices, counted from 0, at which any sequence is supervised.
        targets, mask: (step, replica, batch, …), at those steps.
        last: index of each sequence's last supervised step.
        informative: (time, replica, batch), True where the inputs hold what the answer depends on.
    """

    inputs: Float[Tensor, "time replica batch features"] | Int[Tensor, "time replica batch 1"]
    steps: tuple[int, ...]
    targets: Shaped[Tensor, "step replica batch *outputs"]
    mask: Bool[Tensor, "step replica batch"]
    last: Int[Tensor, "replica batch"]
    informative: Bool[Tensor, "time replica batch"]

    def loss(self, task: Task, outputs: Float[Tensor, "step replica batch outputs"]) -> Float[Tensor, "replica batch"]:
        """ℓ_b: the mean over the supervised steps of each sequence."""
        losses = task.loss(outputs, self.targets)
        # Each sequence has a supervised step: where there is one in all, it is that of every sequence.
        return losses[0] if len(self.steps) == 1 else mean_over_supervised(losses, self.mask)

    def loss_of_last_step(
        self, task: Task, outputs: Float[Tensor, "step replica batch outputs"]
    ) -> Float[Tensor, "replica batch"]:
        """The loss of the last supervised step of each sequence alone."""
        steps = torch.tensor(self.steps, device=self.last.device)[:, None, None]
        return (task.loss(outputs, self.targets) * (steps == self.last)).sum(0)

    def loss_of_first_step(
        self, task: Task, outputs: Float[Tensor, "step replica batch outputs"]
    ) -> Float[Tensor, "replica batch"]:
        """The loss of the first step alone, which must be supervised."""
        return task.loss(outputs, self.targets)[0]

    def narrow(self, positions: Int[Tensor, " replica"]) -> "PopulationBatch":
        """The batch of the replicas at these positions, at the same steps."""
        return PopulationBatch(
            inputs=self.inputs.index_select(1, positions),
            steps=self.steps,
            targets=self.targets.index_select(1, positions),
            mask=self.mask.index_select(1, positions),
            last=self.last.index_select(0, positions),
            informative=self.informative.index_select(1, positions),
        )


class TrainingBatches:
    """The training batch of step `start` and of every later step, without end."""

    def __init__(self, population: Population, start: int, device: torch.device) -> None:
        self._population = population
        self._device = device
        self._streams = {seed: _stream(population, seed, start) for seed in population.data_seeds}

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> PopulationBatch:
        drawn = [next(stream) for stream in self._streams.values()]
        assert len(drawn[0].last) == self._population.training.batch
        return _for_replicas(self._population, drawn, self._device)

    def narrow(self, population: Population) -> None:
        """Continue with the batches of `population`, some of the runs so far."""
        self._population = population
        self._streams = {seed: self._streams[seed] for seed in population.data_seeds}


def _stream(population: Population, data_seed: int, start: int) -> Iterator[Drawn]:
    """The batch of one data seed at step `start` and at every later step."""
    for block in range(start // BLOCK, 2**62):
        yield from itertools.islice(_block(population, data_seed, block), max(0, start - block * BLOCK), None)


def _block(population: Population, data_seed: int, block: int) -> Iterator[Drawn]:
    """The training batches of one block for one data seed."""
    task, size = population.task, population.training.batch
    steps_at_once = max(1, min(BLOCK, MOST_NUMBERS_DRAWN // (task.steps * size * task.features)))
    source = generator(data_seed, "training", block)
    for first in range(0, BLOCK, steps_at_once):
        yield from Drawn.from_task(task, min(steps_at_once, BLOCK - first) * size, source).parts(size)


def fixed_batches(
    population: Population,
    purpose: str,
    sequences: int,
    device: torch.device,
    task: Task | None = None,
    most: int | None = None,
) -> Iterator[PopulationBatch]:
    """The same `sequences` sequences for each data seed whenever it is called, in batches of at most `most`.

    Each purpose (`validation`, `test`, `probe`, …) has sequences of its own. `task` replaces the population's task.
    """
    for drawn in _fixed_draws(population, purpose, sequences, task or population.task):
        for parts in zip(*(of_seed.parts(most or sequences) for of_seed in drawn), strict=True):
            yield _for_replicas(population, parts, device)


def fixed_batch(population: Population, purpose: str, sequences: int, device: torch.device) -> PopulationBatch:
    """The sequences of `fixed_batches` in one batch."""
    draws = _fixed_draws(population, purpose, sequences, population.task)
    return _for_replicas(population, [Drawn.joined(parts) for parts in zip(*draws, strict=True)], device)


def _fixed_draws(population: Population, purpose: str, sequences: int, task: Task) -> Iterator[list[Drawn]]:
    """The fixed sequences of a purpose, in chunks: those of each data seed."""
    task = task.split(purpose)
    for index, first in enumerate(range(0, sequences, EVALUATION_CHUNK)):
        count = min(EVALUATION_CHUNK, sequences - first)
        yield [Drawn.from_task(task, count, generator(seed, purpose, index)) for seed in population.data_seeds]


def _for_replicas(population: Population, drawn: Sequence[Drawn], device: torch.device) -> PopulationBatch:
    """The sequences of each data seed, copied to the replicas and sent to the device."""

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(of_seed.batch, name) for of_seed in drawn], dim=1)

    def copied(values: Tensor, dim: int = 1) -> Tensor:
        if not population.one_seed_each:
            values = values.index_select(dim, population.data_index)
        # From pinned memory, so that the host does not wait for the copy.
        return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)

    mask = stacked("mask")
    rows = mask.flatten(1).any(1).nonzero().flatten()
    return PopulationBatch(
        inputs=copied(stacked("inputs")),
        steps=tuple(rows.tolist()),
        targets=copied(stacked("targets").index_select(0, rows)),
        mask=copied(mask.index_select(0, rows)),
        last=copied(torch.stack([of_seed.last for of_seed in drawn]), dim=0),
        informative=copied(stacked("informative")),
    )


def require_declared_inputs(task: Task, batch: Batch) -> None:
    """Raises `SpecError` unless the inputs are what the task says: numbers, or symbols of its vocabulary."""
    name, are_symbols = type(task).__name__, not batch.inputs.is_floating_point()
    if are_symbols != task.inputs_are_symbols:
        kinds = ("symbols", "numbers") if are_symbols else ("numbers", "symbols")
        raise SpecError(f"{name}.sample returns {kinds[0]} as inputs; inputs_are_symbols says that they are {kinds[1]}")
    if are_symbols:
        lowest, highest = (bound.item() for bound in batch.inputs.aminmax())
        if lowest < NOTHING or highest >= task.features:
            wrong = lowest if lowest < NOTHING else highest
            raise SpecError(
                f"{name}.sample returns symbol {wrong}; with {task.features} features they go from 0 to "
                f"{task.features - 1}, and {NOTHING} is nothing"
            )


def gradient_cuts(population: Population, step: int, batch: PopulationBatch) -> list[Cuts] | None:
    """For each recurrence, where the gradient of the training batch of update `step` is cut; None for nowhere."""
    training, model = population.training, population.model
    rules = [(index, rule) for index, rule in enumerate(training.cuts) if rule.applies(step, training.steps)]
    if not rules:
        return None
    time, ends = batch.inputs.shape[0], batch.last.cpu() + 1
    masks: dict[str, Tensor] = {}
    for index, rule in rules:
        # Replicas may differ in the numbers of a rule, never in whether they have it.
        cut_at = torch.stack(
            [
                run.training.cuts[index].cut_mask(
                    len(model.reverse), time, ends[replica], generator(run.seed, type(rule).__name__, step)
                )
                for replica, run in enumerate(population.runs)
            ],
            dim=2,
        )
        for state in rule.states(model.cell):
            masks[state] = masks[state] | cut_at if state in masks else cut_at
    return [{state: mask[index] for state, mask in masks.items()} for index in range(len(model.reverse))]
