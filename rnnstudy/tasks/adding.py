"""Adding: a stream of numbers, two of them marked; say their sum at the end."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class Adding(Task):
    """Two of many numbers are marked; their sum is asked for at the last step of the sequence.

    Two inputs at each step, (value, mark); one linear output; squared error at the last step only. Three variants are
    in use, and results under one say little about another:

    `modern` (Arjovsky, Shah & Bengio 2016, and most work since): exactly T steps; values U[0, 1]; one mark (1) uniform
    in the first half, one in the second; target x₁ + x₂. Error: the squared error. The constant 1 attains 1/6.

    `pascanu` (Pascanu, Mikolov & Bengio 2013, code: addition.py): l = T + uniform{0, …, int(.1T) − 1} steps; values
    U[0, 1]; first mark uniform on [0, int(.1l)), second on [int(.1l), int(.1l) + int(.4l)); target (x₁ + x₂)/2. Error:
    the share of sequences whose *squared* error exceeds 0.04. (Their code draws l once for each batch, we for each
    sequence.) The constant 0.5 attains a loss of 1/24, and is "wrong" on only 36 %.

    `hochreiter` (Hochreiter & Schmidhuber 1997, experiment 4): l uniform on T, …, T + int(.1T); values U[−1, 1]; first
    mark among the first 10 pairs, second among the first T/2 − 1 pairs still unmarked; first and last pair carry mark −1,
    and a value chosen at the first pair counts as 0; target 0.5 + (X₁ + X₂)/4. Error: the share of sequences with an
    absolute error of 0.04 or more. The published stopping rule looked at the training sequences; we apply their 0.04 to
    fresh ones.

    `share_within_0.04` (absolute error below 0.04) is reported for all three.

    Raises `SpecError` for a length that cannot hold the marks: below 2, 10 and 22.

    >>> import torch
    >>> drawn = Adding(length=8).sample(1, torch.Generator().manual_seed(1))
    >>> for step in range(8):
    ...     value, mark = drawn.inputs[step, 0].tolist()
    ...     print(f"{value:.2f}" + " <- marked" * int(mark))
    0.03 <- marked
    0.80
    0.40
    0.75
    0.57 <- marked
    0.44
    0.64
    0.52
    >>> print(f"target {drawn.targets[-1, 0].item():.2f}")
    target 0.60
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 4; Pascanu et al. 2013; Arjovsky et al. 2016"
    loss_unit: ClassVar[str] = "squared error"

    variant: Literal["modern", "pascanu", "hochreiter"] = "modern"

    def check(self) -> None:
        shortest = {"modern": 2, "pascanu": 10, "hochreiter": 22}[self.variant]
        self.require_length(shortest, f"so that the {self.variant} variant can place two marks")

    @property
    def steps(self) -> int:
        tenth = int(0.1 * self.length)
        return self.length + {"modern": 0, "pascanu": tenth - 1, "hochreiter": tenth}[self.variant]

    @property
    def features(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 1

    @property
    def criterion(self) -> Criterion:
        match self.variant:
            case "modern":
                return Criterion(0.01, "mean squared error below 0.01", "mean squared error")
            case "pascanu":
                return Criterion(
                    0.01,
                    "squared error above 0.04 on less than 1 % of sequences",
                    "share of sequences with squared error above 0.04",
                )
            case "hochreiter":
                return Criterion(
                    0.01,
                    "absolute error of 0.04 or more on less than 1 % of sequences",
                    "share of sequences with absolute error of 0.04 or more",
                )

    @property
    def chance(self) -> Chance:
        """The best constant: the target's mean. Its loss is the target's variance."""
        match self.variant:
            case "modern":
                return Chance(loss=1 / 6, error=1 / 6)
            case "pascanu":
                # x₁ + x₂ is triangular on [0, 2]: P(|x₁ + x₂ − 1| > 0.4) = 0.6².
                return Chance(loss=1 / 24, error=0.36)
            case "hochreiter":
                # One of the two values counts as 0 when its pair is the first of the sequence.
                candidates = self.length // 2 - 1
                one_value = 1 / 10 + 9 / 10 / (candidates - 1)
                return Chance(
                    loss=(1 - one_value) / 24 + one_value / 48,
                    error=(1 - one_value) * (2 - 0.16) ** 2 / 4 + one_value * (1 - 0.16),
                )

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        lengths, positions = self._layout(batch, generator)
        steps, sequence = self.steps, torch.arange(batch)
        inside = torch.arange(steps)[:, None] < lengths
        drawn = torch.rand(steps, batch, generator=generator)
        mark = torch.zeros(steps, batch)
        mark[positions, sequence] = 1.0
        if self.variant == "hochreiter":
            drawn = 2 * drawn - 1
            mark[0] = -1.0
            mark[lengths - 1, sequence] = -1.0
        chosen = drawn[positions, sequence]
        match self.variant:
            case "modern":
                target = chosen.sum(0)
            case "pascanu":
                target = chosen.mean(0)
            case "hochreiter":
                target = 0.5 + (chosen * (positions > 0)).sum(0) / 4
        targets = torch.zeros(steps, batch, 1)
        targets[lengths - 1, sequence, 0] = target
        return Batch(
            inputs=torch.stack([drawn * inside, mark], dim=-1),
            targets=targets,
            mask=task.at_steps(steps, lengths - 1),
            lengths=lengths,
            informative=task.at_steps(steps, *positions),
        )

    def _layout(self, batch: int, generator: torch.Generator) -> tuple[Int[Tensor, " batch"], Int[Tensor, "2 batch"]]:
        """The length of each sequence and the positions of its two marks."""

        def draw(low: Int[Tensor, " batch"] | int, high: Int[Tensor, " batch"] | int) -> Int[Tensor, " batch"]:
            return task.uniform_whole(low, high, batch, generator)

        match self.variant:
            case "modern":
                lengths = torch.full((batch,), self.length)
                half = self.length // 2
                positions = draw(0, half), draw(half, self.length)
            case "pascanu":
                lengths = draw(self.length, self.length + int(0.1 * self.length))
                # Whole-number arithmetic: int(0.1·l) and int(0.4·l) as the source computes them.
                tenth, two_fifths = (0.1 * lengths.double()).long(), (0.4 * lengths.double()).long()
                positions = draw(0, tenth), draw(tenth, tenth + two_fifths)
            case "hochreiter":
                lengths = draw(self.length, self.length + int(0.1 * self.length) + 1)
                first = draw(0, 10)
                among_unmarked = draw(0, self.length // 2 - 2)
                positions = first, among_unmarked + (among_unmarked >= first)
        return lengths, torch.stack(positions)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.squared_error(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        squared = task.mean_over_supervised(task.squared_error(outputs, targets), mask)
        within = (squared < 0.04**2).to(squared.dtype)
        match self.variant:
            case "modern":
                error = squared
            case "pascanu":
                error = (squared > 0.04).to(squared.dtype)
            case "hochreiter":
                error = 1 - within
        return {"error": error, "share_within_0.04": within}
