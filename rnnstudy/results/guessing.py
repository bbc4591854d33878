"""Random guessing of weights, the baseline of Schmidhuber & Hochreiter 1996."""

from typing import Annotated

import torch

from rnnstudy.cells.elman import Elman
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.results.computed import Computed
from rnnstudy.spec import above, at_least
from rnnstudy.tasks.task import Batch, Task
from rnnstudy.training.model import Model

BLOCK = 200
"""Networks that are tried at once. The number of guesses does not depend on it."""

SCREENED = 16
"""Sequences on which every network is tried; those without a wrong one are tried on all."""


class RandomGuessing(Computed):
    """How many networks with random weights are drawn until one has no wrong sequence.

    The network: `width` recurrent logistic units and a logistic readout, all weights and biases U(−`bound`, `bound`).
    Wrong is a sequence whose error, as the task measures it, is above 0. In each of `trials` trials, networks are drawn
    independently, at most `most`, and tried on the same `sequences` fresh sequences, which differ between trials.

    Source: Schmidhuber & Hochreiter 1996, Guessing can outperform many long time lag algorithms.
    """

    task: Task
    width: Annotated[int, at_least(1)] = 2
    bound: Annotated[float, above(0)] = 100.0
    trials: Annotated[int, at_least(1)] = 30
    most: Annotated[int, at_least(1)] = 5000
    sequences: Annotated[int, at_least(1)] = 256

    def values(self) -> list[float]:
        return [self.guesses(trial) for trial in range(self.trials)]

    def guesses(self, trial: int) -> float:
        """The number of networks drawn in one trial, the one that succeeds included; infinite when none does."""
        generator = torch.Generator().manual_seed(trial)
        batch = self.task.sample(self.sequences, generator)
        few, drawn = batch.part(0, SCREENED), 0
        while drawn < self.most:
            networks = self.draw(min(BLOCK, self.most - drawn), generator)
            for candidate in self.without_errors(networks, few).nonzero().flatten().tolist():
                one = {name: values[candidate : candidate + 1] for name, values in networks.items()}
                if self.without_errors(one, batch).item():
                    return float(drawn + candidate + 1)
            drawn += BLOCK
        return float("inf")

    def draw(self, count: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The weights of `count` networks, with a leading replica axis."""
        shapes = {**self._model.layer_parameters(0), **self._model.readout_parameters}
        # One network after the other, so that the networks do not depend on how many are drawn at once.
        numbers = {name: torch.Size(parameter.shape).numel() for name, parameter in shapes.items()}
        drawn = (2 * torch.rand(count, sum(numbers.values()), generator=generator) - 1) * self.bound
        parts = drawn.split(list(numbers.values()), dim=1)
        return {
            name: part.reshape(count, *shape.shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)
        }

    def without_errors(self, networks: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Whether each of the networks (replica) has no wrong sequence in `batch`."""
        count = len(networks["W_ho"])
        inputs, targets, mask = (
            values.unsqueeze(1).expand(-1, count, *[-1] * (values.dim() - 1))
            for values in (batch.inputs, batch.targets, batch.mask)
        )
        with torch.no_grad():
            outputs, _ = self._model.forward(
                ReferenceEngine(), networks, inputs, steps=range(len(inputs)), observed=False
            )
        return self.task.measures(outputs.sigmoid(), targets, mask)["error"].amax(-1) == 0

    @property
    def _model(self) -> Model:
        return Model.of(self.task, Elman(width=self.width, activation="sigmoid"), layers=1)
