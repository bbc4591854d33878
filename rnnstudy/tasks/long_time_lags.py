"""Long time lags without local regularities: the last symbol repeats an early one; all others are distractors."""

from collections.abc import Mapping
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.spec import at_least
from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import (
    Batch,
    Chance,
    Criterion,
    any_supervised,
    at_steps,
    beyond,
    inside,
    numbered,
    one_hot,
    rarely,
    supervised_at_end,
)

LONGEST_EXTENSION = 50
"""2c: at most this many distractors after the first q. In the published distribution, 0.46 % of strings had more."""


class LongTimeLags(Classification):
    """A symbol near the beginning, x or y, must be repeated p or q steps later; between them stand distractors.

    With D = `distractors` different symbols, T = `length`; one-hot inputs, softmax and cross-entropy (nats):

    `2a` (noise-free): strings (x, a₁, …, a_{p−1}, x) and (y, a₁, …, a_{p−1}, y), p = T; the target at each of p steps
    is the next symbol. Published: D = p − 1, all distractors different (p = 4, 10, 100); a string longer than D + 1
    repeats them in the same order. Wrong when any output at any step is 0.25 or more from its target.

    `2b` (no local regularities): the p − 1 symbols between are uniform on the D distractors; the target at each step is
    the next symbol, but the error counts only the last one, x or y: wrong when any output is 0.25 or more off.

    `2c` (very long lags, many distractors): strings (b, x|y, q + k distractors, e, x|y) with q = T, distractors uniform
    on D (published: D = p = 50, …, 1000). The string is extended by one more distractor with probability 9/10, again
    and again, k times (at most 50 here). Only the step of e is supervised, with target x or y; two outputs. Wrong when
    one is 0.2 or more off.

    Error: the share of sequences that are wrong. Published: 10,000 test sequences right in a row (2a, 2b: "successful
    if the last 10,000"); our criterion is an error below 1 %. (The published networks had logistic outputs and a
    squared loss; here the tolerances apply to the softmax probabilities.)

    >>> import torch
    >>> drawn = LongTimeLags(length=8, distractors=6, variant="2c").sample(2, torch.Generator().manual_seed(0))
    >>> for row in range(2):
    ...     string = "".join("123456xybe"[s] for s in drawn.inputs[: drawn.lengths[row], row, 0])
    ...     print(string, "->", "xy"[drawn.targets[drawn.lengths[row] - 1, row]])
    bx6151336324262563522e -> x
    by3431463661114e -> y
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 2a, 2b, 2c"

    distractors: Annotated[int, at_least(1)] = 99
    variant: Literal["2a", "2b", "2c"] = "2a"

    def check(self) -> None:
        self.require_length(2, "so that a distractor stands between the two symbols")

    @property
    def steps(self) -> int:
        return self.length + (3 + LONGEST_EXTENSION if self.variant == "2c" else 0)

    @property
    def features(self) -> int:
        """Distractors, then x and y, then (2c) b and e."""
        return self.distractors + (4 if self.variant == "2c" else 2)

    @property
    def inputs_are_symbols(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return 2 if self.variant == "2c" else self.features

    @property
    def tolerance(self) -> float:
        """The distance from its target at which an output counts as wrong."""
        return 0.2 if self.variant == "2c" else 0.25

    @property
    def criterion(self) -> Criterion:
        return rarely(f"an output {self.tolerance} or more from its target")

    @property
    def least_loss(self) -> float:
        """2b: the random symbols cannot be predicted, which costs ln D nats at p − 1 of p steps."""
        return (self.length - 1) / self.length * log(self.distractors) if self.variant == "2b" else 0.0

    @property
    def chance(self) -> Chance:
        """x and y are equally likely: ln 2 nats at one of p steps (2c: the only one); always beyond the tolerance."""
        return Chance(loss=self.least_loss + log(2) / (1 if self.variant == "2c" else self.length), error=1.0)

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        known = 50 * one_hot(targets, self.outputs)
        if self.variant != "2b":
            return known
        unknown = 50 * (torch.arange(self.outputs) < self.distractors).to(known.dtype)
        return known.where(self._answer(targets).unsqueeze(-1), unknown)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        choice = torch.randint(2, (batch,), generator=generator)
        if self.variant == "2c":
            return self._with_extension(choice, generator)
        steps = self.steps
        if self.variant == "2a":
            symbols = (torch.arange(-1, steps - 1) % self.distractors)[:, None].repeat(1, batch)
        else:
            symbols = torch.randint(self.distractors, (steps, batch), generator=generator)
        symbols[0] = self.distractors + choice
        return Batch(
            inputs=numbered(symbols),
            targets=symbols.roll(-1, dims=0),
            mask=torch.ones(steps, batch, dtype=torch.bool),
            lengths=torch.full((batch,), steps),
            informative=at_steps(steps, torch.zeros(batch, dtype=torch.long)),
        )

    def _with_extension(self, choice: Int[Tensor, " batch"], generator: torch.Generator) -> Batch:
        steps = self.steps
        chances = 0.9 ** torch.arange(LONGEST_EXTENSION + 1, dtype=torch.float64)
        extension = torch.multinomial(chances, len(choice), replacement=True, generator=generator)
        end = self.length + 2 + extension
        symbols = torch.randint(self.distractors, (steps, len(choice)), generator=generator)
        symbols[0] = self.distractors + 2
        symbols[1] = self.distractors + choice
        symbols[end, torch.arange(len(choice))] = self.distractors + 3
        inputs = numbered(symbols, inside(steps, end + 1))
        return supervised_at_end(inputs, choice, at_steps(steps, torch.ones_like(choice)), end + 1)

    def _answer(self, targets: Int[Tensor, "time *any"]) -> Bool[Tensor, "time *any"]:
        """True where the target is x or y."""
        return targets >= self.distractors

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        wrong = beyond(outputs, targets, self.tolerance)
        evaluated = mask & self._answer(targets) if self.variant == "2b" else mask
        return {"error": any_supervised(wrong, evaluated)}
