"""Which runs can train together, and the data they see: each distinct data seed once, spread over its replicas."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.engines.engine import Cuts
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError, digest, flatten
from rnnstudy.tasks.task import Batch, Task, last_supervised
from rnnstudy.training.batches import BLOCK, EVALUATION_CHUNK, MOST_NUMBERS_DRAWN, PopulationBatch, _sent
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator


@dataclass(frozen=True)
class Population:
    """Runs that train in lockstep: equal in task, cell, layers, training and probes but for per-replica fields.

    Raises `SpecError` for no runs, for a run given twice, and for runs whose shapes or structure differ.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise SpecError("a population needs at least one run")
        if len(set(self.keys)) < len(self.runs):
            raise SpecError("a population holds each run once; two of these runs mean the same")
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.structure != first.structure:
                other, flat = flatten(run), flatten(first)
                field = next((f for f in flat if other.get(f) != flat[f] and _structural(f)), "a field")
                raise SpecError(
                    f"runs with different {field} cannot train together "
                    f"({flat.get(field)!r} and {other.get(field)!r}); use populations() to group them"
                )

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)

    @property
    def key(self) -> str:
        return digest(sorted(self.keys))

    @property
    def task(self) -> Task:
        return self.runs[0].task

    @property
    def training(self) -> Training:
        return self.runs[0].training

    @functools.cached_property
    def model(self) -> Model:
        return Model.of(self.task, self.runs[0].cell, self.runs[0].layers)

    @property
    def data_seeds(self) -> tuple[int, ...]:
        """Each distinct data seed once, in ascending order."""
        return tuple(sorted({run.effective_data_seed for run in self.runs}))

    @functools.cached_property
    def slices(self) -> Int[Tensor, " replica"]:
        """Index of each replica's data seed in `data_seeds`."""
        return torch.tensor([self.data_seeds.index(run.effective_data_seed) for run in self.runs])

    @functools.cached_property
    def _each_its_own(self) -> bool:
        """Whether the data seeds are those of the replicas, in their order: nothing to be spread."""
        return self.slices.tolist() == list(range(len(self.data_seeds)))

    def initial_parameters(self) -> dict[str, Tensor]:
        """(replica, …): every replica's own draw, from its initialisation and seed."""
        drawn = [self.model.draw(run.initialisation, generator(run.seed, "initialisation")) for run in self.runs]
        return {name: torch.stack([values[name] for values in drawn]) for name in drawn[0]}

    def training_batches(self, start: int, device: torch.device) -> Iterator[PopulationBatch]:
        """The training batch of step `start` and all after it, for ever."""
        size = self.training.batch
        for block in range(start // BLOCK, 2**62):
            offset = max(0, start - block * BLOCK)
            streams = [self._block(seed, block) for seed in self.data_seeds]
            for index, batches in enumerate(zip(*streams, strict=True)):
                if index >= offset:
                    assert batches[0].lengths.shape[0] == size
                    yield self._spread(batches, device)

    def cuts(self, step: int, batch: PopulationBatch) -> list[Cuts] | None:
        """For each layer, where the gradient of the training batch of update `step` is cut; None for nowhere."""
        training, cell = self.training, self.model.cell
        if not any(rule.applies(step, training.steps) for rule in training.cuts):
            return None
        layers, time, ends = self.model.layers, batch.inputs.shape[0], batch.last.cpu() + 1
        masks: dict[str, Tensor] = {}
        for index, rule in enumerate(training.cuts):
            if not rule.applies(step, training.steps):
                continue
            # Replicas may differ in the numbers of a rule, never in whether they have it.
            own = [run.training.cuts[index] for run in self.runs]
            sources = [generator(run.seed, type(rule).__name__, step) for run in self.runs]
            places = torch.stack(
                [one.places(layers, time, ends[replica], sources[replica]) for replica, one in enumerate(own)], dim=2
            )
            for state in rule.states(cell):
                masks[state] = masks[state] | places if state in masks else places
        return [{state: mask[layer] for state, mask in masks.items()} for layer in range(layers)]

    def _block(self, data_seed: int, block: int) -> Iterator[Batch]:
        """The training batches of one block for one data seed."""
        size = self.training.batch
        steps_at_once = max(1, min(BLOCK, MOST_NUMBERS_DRAWN // (self.task.steps * size * self.task.features)))
        source = generator(data_seed, "training", block)
        for first in range(0, BLOCK, steps_at_once):
            count = min(steps_at_once, BLOCK - first)
            drawn = self.task.sample(count * size, source)
            for index in range(count):
                yield drawn.part(index * size, (index + 1) * size)

    def fixed_batches(
        self, purpose: str, sequences: int, device: torch.device, task: Task | None = None, most: int | None = None
    ) -> Iterator[PopulationBatch]:
        """`sequences` fixed sequences for each data seed, in parts of at most `most`; the purpose decides which."""
        task = (task or self.task).split(purpose)
        most = most or sequences
        for index, first in enumerate(range(0, sequences, EVALUATION_CHUNK)):
            count = min(EVALUATION_CHUNK, sequences - first)
            drawn = [task.sample(count, generator(seed, purpose, index)) for seed in self.data_seeds]
            for start in range(0, count, most):
                yield self._spread([batch.part(start, min(start + most, count)) for batch in drawn], device)

    def _spread(self, batches: Sequence[Batch], device: torch.device) -> PopulationBatch:
        mask = torch.stack([batch.mask for batch in batches], dim=1)
        steps = tuple(mask.flatten(1).any(1).nonzero().flatten().tolist())
        slices = self.slices
        each_its_own = self._each_its_own

        def spread(parts: Sequence[Tensor]) -> Tensor:
            drawn = torch.stack(list(parts), dim=1)
            return _sent(drawn if each_its_own else drawn[:, slices], device)

        rows = torch.tensor(steps)
        return PopulationBatch(
            inputs=spread([batch.inputs for batch in batches]),
            steps=steps,
            targets=spread([batch.targets[rows] for batch in batches]),
            mask=spread([batch.mask[rows] for batch in batches]),
            last=_sent(torch.stack([last_supervised(batch.mask) for batch in batches])[slices], device),
            informative=spread([batch.informative for batch in batches]),
        )


def _structural(field: str) -> bool:
    return field.partition(".")[0] not in ("seed", "data_seed", "initialisation")
