"""Marked pairs, the base of adding and multiplication: a sequence of (value, mark), in which two values are marked."""

import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.tasks.task import (
    Batch,
    Criterion,
    Task,
    at_steps,
    inside,
    mean_over_supervised,
    rarely,
    squared_error,
    supervised_at_end,
    uniform_whole,
)


class MarkedPairs(Task):
    """Two inputs at each step, (value, mark); the target at the last step is computed from the two marked values.

    `variant` decides the positions of the marks and what counts as wrong; `Adding` describes the three.
    """

    loss_unit: ClassVar[str] = "squared error"
    features: ClassVar[int] = 2
    outputs: ClassVar[int] = 1

    variant: Literal["modern", "pascanu", "hochreiter"] = "modern"

    @abstractmethod
    def values(self, drawn: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
        """The values of the pairs, computed from `drawn`, which is uniform on [0, 1)."""

    @abstractmethod
    def answer(self, chosen: Float[Tensor, "2 batch"], positions: Int[Tensor, "2 batch"]) -> Float[Tensor, " batch"]:
        """The target, computed from the two marked values and their positions."""

    def check(self) -> None:
        shortest = {"modern": 2, "pascanu": 10, "hochreiter": 22}[self.variant]
        self.require_length(shortest, f"so that the {self.variant} variant can place two marks")

    @property
    def steps(self) -> int:
        tenth = int(0.1 * self.length)
        return self.length + {"modern": 0, "pascanu": tenth - 1, "hochreiter": tenth}[self.variant]

    @property
    def criterion(self) -> Criterion:
        if self.variant == "modern":
            return Criterion(0.01, "mean squared error below 0.01", "mean squared error")
        return rarely("squared error above 0.04" if self.variant == "pascanu" else "absolute error of 0.04 or more")

    @property
    def share_marked_at_start(self) -> float:
        """Share of sequences in which one of the two chosen pairs is the first of the sequence (`hochreiter`).

        It becomes the first mark with probability 1/10, otherwise the second with probability 1/(T/2 − 1).
        """
        return 1 / 10 + 9 / 10 / (self.length // 2 - 1)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        lengths, positions = self._layout(batch, generator)
        steps, sequence = self.steps, torch.arange(batch)
        values = self.values(torch.rand(steps, batch, generator=generator))
        mark = torch.zeros(steps, batch)
        mark[positions, sequence] = 1.0
        if self.variant == "hochreiter":
            mark[0] = -1.0
            mark[lengths - 1, sequence] = -1.0
        inputs = torch.stack([values * inside(steps, lengths), mark], dim=-1)
        answer = self.answer(values[positions, sequence], positions).unsqueeze(-1)
        return supervised_at_end(inputs, answer, at_steps(steps, *positions), lengths)

    def _layout(self, batch: int, generator: torch.Generator) -> tuple[Int[Tensor, " batch"], Int[Tensor, "2 batch"]]:
        """The length of each sequence and the positions of its two marks."""
        draw = functools.partial(uniform_whole, batch=batch, generator=generator)
        match self.variant:
            case "modern":
                lengths = torch.full((batch,), self.length)
                half = self.length // 2
                positions = draw(0, half), draw(half, self.length)
            case "pascanu":
                lengths = draw(self.length, self.length + int(0.1 * self.length))
                # int(0.1·l) and int(0.4·l), truncated as in the source.
                tenth, two_fifths = (0.1 * lengths.double()).long(), (0.4 * lengths.double()).long()
                positions = draw(0, tenth), draw(tenth, tenth + two_fifths)
            case "hochreiter":
                lengths = draw(self.length, self.length + int(0.1 * self.length) + 1)
                first = draw(0, 10)
                among_unmarked = draw(0, self.length // 2 - 1)
                positions = first, among_unmarked + (among_unmarked >= first)
        return lengths, torch.stack(positions)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        squared = mean_over_supervised(squared_error(outputs, targets), mask)
        within = (squared < 0.04**2).to(squared.dtype)
        match self.variant:
            case "modern":
                error = squared
            case "pascanu":
                error = (squared > 0.04).to(squared.dtype)
            case "hochreiter":
                error = 1 - within
        return {"error": error, "share_within_0.04": within}
