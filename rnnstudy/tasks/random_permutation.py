"""Random permutation: the first symbol, one of two, comes back at the very end of a random string."""

from collections.abc import Mapping
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.spec import at_least
from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class RandomPermutation(Task):
    """The first of T symbols is 0 or 1, all others are random; say after the last which one the first was.

    The first symbol is uniform on {0, 1}, the T − 1 others on 2, …, S − 1 with S = `symbols` (published: 100), all
    independent. S one-hot inputs, S outputs, softmax and cross-entropy (nats). The string's symbol T + 1, never read,
    is the first one again.

    `last` (Pascanu, Mikolov & Bengio 2013, code: permutation.py): only that symbol is asked for, at the last step.

    `next` (Martens & Sutskever 2011): at every step, the next symbol, of which only that last one can be known; success
    is judged on it alone. Never better than ((T − 1)·ln(S − 2))/T nats.

    Error: the share of sequences whose last answer is wrong (chance 1/2). The problem is Hochreiter & Schmidhuber's 2b
    with another success criterion.

    >>> import torch
    >>> drawn = RandomPermutation(length=12).sample(2, torch.Generator().manual_seed(2))
    >>> for row in range(2):
    ...     print(*drawn.inputs[:, row].argmax(-1).tolist(), "->", drawn.targets[-1, row].item())
    1 97 90 92 6 88 43 49 89 76 68 45 -> 1
    0 32 37 35 97 89 83 17 19 38 44 75 -> 0
    """

    source: ClassVar[str] = "Martens & Sutskever 2011; Pascanu, Mikolov & Bengio 2013 (code: permutation.py)"
    loss_unit: ClassVar[str] = "nats"

    symbols: Annotated[int, at_least(4)] = 100
    variant: Literal["last", "next"] = "last"

    def check(self) -> None:
        self.require_length(2, "so that a random symbol stands between the two that are the same")

    @property
    def features(self) -> int:
        return self.symbols

    @property
    def outputs(self) -> int:
        return self.symbols

    @property
    def criterion(self) -> Criterion:
        return Criterion(0.01, "less than 1 % of sequences misclassified", "share of sequences misclassified")

    @property
    def chance(self) -> Chance:
        """Two equally likely symbols at the last step: ln 2 nats, half wrong; S − 2 at each step before (`next`)."""
        return Chance(loss=self.least_loss + log(2) / (self.length if self.variant == "next" else 1), error=1 / 2)

    @property
    def least_loss(self) -> float:
        """The random symbols cannot be known: ln(S − 2) nats at each of T − 1 steps in T (`next`)."""
        return (self.length - 1) / self.length * log(self.symbols - 2) if self.variant == "next" else 0.0

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        known = 50 * task.one_hot(targets, self.symbols)
        unknown = 50 * (torch.arange(self.symbols) >= 2).to(known.dtype)
        return known.where((targets < 2).unsqueeze(-1), unknown)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps = self.steps
        symbols = torch.randint(2, self.symbols, (steps, batch), generator=generator)
        symbols[0] = torch.randint(2, (batch,), generator=generator)
        targets = symbols.roll(-1, dims=0)
        informative = torch.zeros(steps, batch, dtype=torch.bool)
        informative[0] = True
        mask = torch.ones(steps, batch, dtype=torch.bool)
        if self.variant == "last":
            mask[:-1] = False
            targets[:-1] = 0
        return Batch(
            inputs=task.one_hot(symbols, self.symbols),
            targets=targets,
            mask=mask,
            lengths=torch.full((batch,), steps),
            informative=informative,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": task.any_supervised(task.misclassified(outputs, targets), mask & (targets < 2))}
