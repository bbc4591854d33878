"""Temporal order: two or three marks far apart among distractors; the answer is the marks in their order."""

from collections.abc import Mapping
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import (
    Batch,
    Chance,
    Criterion,
    at_steps,
    beyond,
    inside,
    mean_over_supervised,
    misclassified,
    one_hot,
    rarely,
    supervised_at_end,
)

START, TRIGGER = 6, 7


class TemporalOrder(Classification):
    """Two marks (or three), each A or B, stand among distractors c, d, e, f; at the last step, name them in order.

    Each mark is A (0) or B (1) with equal chance, independently; class = v₀ + 2·v₁ (+ 4·v₂). Every other step is
    uniform on {c, d, e, f}. One-hot inputs; four (eight) outputs, softmax and cross-entropy (nats) at the last step
    only. Positions count from 0, int() truncates, T = `length`.

    `pascanu` (Pascanu, Mikolov & Bengio 2013, code: tempOrder.py and tempOrder3bit.py): exactly T steps, six symbols.
    The position of a mark is uniform on [int(aT), int(aT) + int(.1T)), with a = .1, .5 for two marks and .1, .3, .6
    for three. Error: the share of sequences misclassified. (The docstring of that file puts the first mark in
    [1, T/10]; its code draws from [T/10, 2T/10), which is followed here.)

    `hochreiter` (Hochreiter & Schmidhuber 1997, experiments 6a and 6b; published at T = 100): the number of steps is
    uniform on T, …, T + int(.1T); eight symbols, of which one stands at the first step (E) and one at the last (B, the
    trigger). Marks are uniform on [10, 20] and [50, 60], or on [10, 20], [33, 43] and [66, 76], both ends included, in
    hundredths of T. Error: the share of sequences on which some output is 0.3 or more from its target. (The published
    networks had logistic outputs and a squared loss; here softmax and cross-entropy, and the 0.3 applies to the
    probabilities. Their training stopped after 2000 right sequences in a row; the criterion of 1 % is ours.)

    Raises `SpecError` for a length below 10: int(.1T) must be at least 1.

    >>> import torch
    >>> drawn = TemporalOrder(length=20).sample(2, torch.Generator().manual_seed(3))
    >>> for row in range(2):
    ...     symbols = "".join("ABcdef"[i] for i in drawn.inputs[:, row].argmax(-1))
    ...     marks = "".join("^" if m else " " for m in drawn.informative[:, row])
    ...     print(symbols, "-> class", drawn.targets[-1, row].item())
    ...     print(marks.rstrip())
    edcAdedefcAfcdeecfde -> class 0
       ^      ^
    cfBdffddecdBeeefdecd -> class 3
      ^        ^
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 6; Pascanu, Mikolov & Bengio 2013 (code: tempOrder.py)"

    marks: Literal[2, 3] = 2
    variant: Literal["pascanu", "hochreiter"] = "pascanu"

    def check(self) -> None:
        self.require_length(10, "so that a tenth of it holds a mark")

    @property
    def steps(self) -> int:
        return self.length + (int(0.1 * self.length) if self.variant == "hochreiter" else 0)

    @property
    def features(self) -> int:
        return 8 if self.variant == "hochreiter" else 6

    @property
    def outputs(self) -> int:
        return 2**self.marks

    @property
    def criterion(self) -> Criterion:
        if self.variant == "pascanu":
            return Criterion(0.01, "less than 1 % of sequences misclassified", "share of sequences misclassified")
        return rarely("an output 0.3 or more from its target")

    @property
    def chance(self) -> Chance:
        """Equally likely classes: ln 4 nats and 3/4 wrong, or ln 8 nats and 7/8 wrong.

        A probability of 1/4 or 1/8 is 0.3 or more away from 1, so it is never within the tolerance of experiment 6.
        """
        wrong = 1 - 1 / self.outputs if self.variant == "pascanu" else 1.0
        return Chance(loss=log(self.outputs), error=wrong)

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """First position, and last position (exclusive), that each mark can have."""
        if self.variant == "pascanu":
            tenth = int(0.1 * self.length)
            begins = [int(share * self.length) for share in {2: (0.1, 0.5), 3: (0.1, 0.3, 0.6)}[self.marks]]
            return tuple((begin, begin + tenth) for begin in begins)
        hundredths = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}[self.marks]
        return tuple((low * self.length // 100, high * self.length // 100 + 1) for low, high in hundredths)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, sequence = self.steps, torch.arange(batch)
        symbols = torch.randint(2, 6, (steps, batch), generator=generator)
        positions = [torch.randint(low, high, (batch,), generator=generator) for low, high in self.windows]
        marks = torch.randint(2, (self.marks, batch), generator=generator)
        for position, mark in zip(positions, marks, strict=True):
            symbols[position, sequence] = mark
        lengths = torch.full((batch,), self.length)
        if self.variant == "hochreiter":
            lengths = torch.randint(self.length, steps + 1, (batch,), generator=generator)
            symbols[0] = START
            symbols[lengths - 1, sequence] = TRIGGER
        inputs = one_hot(symbols, self.features) * inside(steps, lengths).unsqueeze(-1)
        # The first mark counts least.
        answer = 2 ** torch.arange(self.marks) @ marks
        return supervised_at_end(inputs, answer, at_steps(steps, *positions), lengths)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        wrong_class = mean_over_supervised(misclassified(outputs, targets), mask)
        if self.variant == "pascanu":
            return {"error": wrong_class}
        return {"error": mean_over_supervised(beyond(outputs, targets, 0.3), mask), "misclassified": wrong_class}
