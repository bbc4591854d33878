"""Waveform: a symbol at the first step chooses a wave, which the network must then produce without further input."""

from collections.abc import Mapping
from math import pi
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.spec import at_least
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task, mean_over_supervised, one_hot, squared_error

SHORTEST_PERIOD = 10
PERIOD_STEP = 5


class Waveform(Task):
    """One to many: a symbol chooses one of W waves, which must then be produced for T steps without further input.

    T + 1 steps, W = `waves` one-hot inputs: symbol w, uniform on 0, …, W − 1, at the first step, zeros after it.
    Target at step t = 1, …, T: sin(2πt/P_w), with periods P_w = 10, 15, 20, … steps. One linear output, squared error
    averaged over the T steps. Task and criterion were made for this project.

    Raises `SpecError` for a length below 10, a period of the shortest wave.

    Error: the mean squared error. Without the symbol, the best answer is the mean of the waves.

    >>> import torch
    >>> drawn = Waveform(length=12).sample(2, torch.Generator().manual_seed(0))
    >>> for row in range(2):
    ...     wave = " ".join(f"{value:4.1f}" for value in drawn.targets[1:, row, 0].tolist())
    ...     print("symbol", drawn.inputs[0, row].argmax().item(), "->", wave)
    symbol 0 ->  0.6  1.0  1.0  0.6  0.0 -0.6 -1.0 -1.0 -0.6 -0.0  0.6  1.0
    symbol 3 ->  0.2  0.5  0.7  0.8  1.0  1.0  1.0  0.9  0.8  0.6  0.4  0.1
    """

    source: ClassVar[str] = "this project's"
    loss_unit: ClassVar[str] = "squared error"
    outputs: ClassVar[int] = 1
    criterion: ClassVar[Criterion] = Criterion(0.01, "mean squared error below 0.01 (ours)", "mean squared error")

    waves: Annotated[int, at_least(2)] = 4

    def check(self) -> None:
        self.require_length(SHORTEST_PERIOD, "a period of the shortest wave")

    @property
    def steps(self) -> int:
        return self.length + 1

    @property
    def features(self) -> int:
        return self.waves

    @property
    def chance(self) -> Chance:
        """The mean of the waves at each step: Σ_t Var_w[sin(2πt/P_w)]/T."""
        variance = self._table()[1:].var(dim=1, correction=0).mean().item()
        return Chance(loss=variance, error=variance)

    def _table(self) -> Float[Tensor, "time wave"]:
        periods = SHORTEST_PERIOD + PERIOD_STEP * torch.arange(self.waves, dtype=torch.float64)
        return torch.sin(2 * pi * torch.arange(self.steps, dtype=torch.float64)[:, None] / periods)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(self.waves, (batch,), generator=generator)
        inputs = torch.zeros(self.steps, batch, self.waves)
        inputs[0] = one_hot(chosen, self.waves)
        first = torch.arange(self.steps)[:, None].expand(-1, batch) == 0
        return Batch(
            inputs=inputs,
            targets=self._table()[:, chosen].to(torch.get_default_dtype()).unsqueeze(-1),
            mask=~first,
            lengths=torch.full((batch,), self.steps),
            informative=first,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": mean_over_supervised(squared_error(outputs, targets), mask)}
