"""Temporal order: two marks, far apart in a stream of distractors; say which came first and which second."""

from collections.abc import Mapping
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class TemporalOrder(Task):
    """Two marks, A or B, hidden in distractors c, d, e, f; at the last step, name the pair in order.

    With T = `length` and int() truncating: every step is uniform on {c, d, e, f}; the first mark stands at a position
    uniform on [int(.1T), 2·int(.1T)), the second on [int(.5T), int(.5T) + int(.1T)), counted from 0; each mark is A or B
    with equal chance, independently. Class = v₀ + 2·v₁ with A = 0, B = 1. Six one-hot inputs (A, B, c, d, e, f); four
    outputs, softmax and cross-entropy (nats) at the last step only.

    Source: Pascanu, Mikolov & Bengio 2013, as in their code's `tempOrder.py`. (That file's docstring puts the first
    mark in [1, T/10]; the code draws it from [T/10, 2T/10), and so do we. Hochreiter & Schmidhuber 1997, experiment
    6a, has eight symbols and other bounds.)

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

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013 (code: tempOrder.py)"
    loss_unit: ClassVar[str] = "nats"

    def check(self) -> None:
        self.require_length(10, "so that a tenth of it holds a mark")

    @property
    def features(self) -> int:
        return 6

    @property
    def outputs(self) -> int:
        return 4

    @property
    def criterion(self) -> Criterion:
        return Criterion(0.01, "less than 1 % of sequences misclassified", "share of sequences misclassified")

    @property
    def chance(self) -> Chance:
        """Four equally likely classes: ln 4 nats, three in four wrong."""
        return Chance(loss=log(4), error=3 / 4)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, tenth = self.steps, int(0.1 * self.length)
        symbols = torch.randint(2, 6, (steps, batch), generator=generator)
        first = torch.randint(tenth, 2 * tenth, (batch,), generator=generator)
        second = torch.randint(tenth, (batch,), generator=generator) + int(0.5 * self.length)
        marks = torch.randint(2, (2, batch), generator=generator)
        sequence = torch.arange(batch)
        symbols[first, sequence] = marks[0]
        symbols[second, sequence] = marks[1]
        targets = torch.zeros(steps, batch, dtype=torch.long)
        targets[-1] = marks[0] + 2 * marks[1]
        mask = torch.zeros(steps, batch, dtype=torch.bool)
        mask[-1] = True
        return Batch(
            inputs=task.one_hot(symbols, self.features),
            targets=targets,
            mask=mask,
            lengths=torch.full((batch,), steps),
            informative=task.at_steps(steps, first, second),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": task.mean_over_supervised(task.misclassified(outputs, targets), mask)}
