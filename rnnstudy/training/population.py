"""Which runs can train together."""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError, digest, flatten
from rnnstudy.tasks.task import Task
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator


@dataclass(frozen=True)
class Population:
    """Runs that train in lockstep: equal in task, cell, layers, training and probes except for per-replica fields.

    Raises `SpecError` for no runs, for a run that appears twice, and for runs whose shapes or structure differ.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise SpecError("a population needs at least one run")
        if len(set(self.keys)) < len(self.runs):
            raise SpecError("a population holds each run once; two of these runs have the same key")
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.structure != first.structure:
                other, flat = flatten(run), flatten(first)
                per_replica = ("seed", "data_seed", "initialisation")
                structural = (name for name in flat if name.partition(".")[0] not in per_replica)
                field = next((name for name in structural if other.get(name) != flat[name]), "a field")
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
        first = self.runs[0]
        return Model.of(self.task, first.cell, first.layers, first.embedding, first.block, first.bidirectional)

    @property
    def data_seeds(self) -> tuple[int, ...]:
        """Each distinct data seed once, in ascending order."""
        return tuple(sorted({run.effective_data_seed for run in self.runs}))

    @functools.cached_property
    def data_index(self) -> Int[Tensor, " replica"]:
        """Index of each replica's data seed in `data_seeds`."""
        return torch.tensor([self.data_seeds.index(run.effective_data_seed) for run in self.runs])

    @functools.cached_property
    def one_seed_each(self) -> bool:
        """Whether replica i uses data seed i: the batches of the data seeds are then those of the replicas."""
        return self.data_index.tolist() == list(range(len(self.runs)))

    def initial_parameters(self) -> dict[str, Tensor]:
        """(replica, …): every replica's own draw, from its initialisation and seed."""
        drawn = [self.model.draw(run.initialisation, generator(run.seed, "initialisation")) for run in self.runs]
        return {name: torch.stack([values[name] for values in drawn]) for name in drawn[0]}
