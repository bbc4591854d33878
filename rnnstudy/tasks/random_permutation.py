"""Random permutation: after a string of random symbols, the answer is its first symbol, one of two."""

from collections.abc import Mapping
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.spec import at_least
from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import Batch, Chance, Criterion, any_supervised, at_steps, misclassified, numbered, one_hot


class RandomPermutation(Classification):
    """The first of T symbols is 0 or 1, all others are random; at the last step, name the first symbol.

    The first symbol is uniform on {0, 1}, the T − 1 others on 2, …, S − 1 with S = `symbols` (published: 100), all
    independent. S inputs, S outputs, softmax and cross-entropy (nats). The string has a symbol T + 1, which is
    predicted but never read: the first one again.

    `last` (Pascanu, Mikolov & Bengio 2013, code: permutation.py): only the last step is supervised.

    `next` (Martens & Sutskever 2011): the target at every step is the next symbol. Only the last target can be known,
    and only it counts for success. The loss is never below ((T − 1)·ln(S − 2))/T nats.

    Error: the share of sequences whose last answer is wrong (chance 1/2). The problem is experiment 2b of Hochreiter &
    Schmidhuber with another success criterion.

    >>> import torch
    >>> drawn = RandomPermutation(length=12).sample(2, torch.Generator().manual_seed(2))
    >>> for row in range(2):
    ...     print(*drawn.inputs[:, row, 0].tolist(), "->", drawn.targets[-1, row].item())
    1 97 90 92 6 88 43 49 89 76 68 45 -> 1
    0 32 37 35 97 89 83 17 19 38 44 75 -> 0
    """

    source: ClassVar[str] = "Martens & Sutskever 2011; Pascanu, Mikolov & Bengio 2013 (code: permutation.py)"
    criterion: ClassVar[Criterion] = Criterion(
        0.01, "less than 1 % of sequences misclassified", "share of sequences misclassified"
    )

    symbols: Annotated[int, at_least(4)] = 100
    variant: Literal["last", "next"] = "last"

    def check(self) -> None:
        self.require_length(2, "so that a random symbol stands between the two equal ones")

    @property
    def features(self) -> int:
        return self.symbols

    @property
    def inputs_are_symbols(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return self.symbols

    @property
    def chance(self) -> Chance:
        """Two equally likely symbols at the last step: ln 2 nats, 1/2 wrong; S − 2 at each earlier step (`next`)."""
        return Chance(loss=self.least_loss + log(2) / (self.length if self.variant == "next" else 1), error=1 / 2)

    @property
    def least_loss(self) -> float:
        """`next`: the random symbols cannot be predicted, which costs ln(S − 2) nats at T − 1 of T steps."""
        return (self.length - 1) / self.length * log(self.symbols - 2) if self.variant == "next" else 0.0

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        known = 50 * one_hot(targets, self.symbols)
        unknown = 50 * (torch.arange(self.symbols) >= 2).to(known.dtype)
        return known.where((targets < 2).unsqueeze(-1), unknown)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps = self.steps
        symbols = torch.randint(2, self.symbols, (steps, batch), generator=generator)
        symbols[0] = torch.randint(2, (batch,), generator=generator)
        targets = symbols.roll(-1, dims=0)
        mask = torch.ones(steps, batch, dtype=torch.bool)
        if self.variant == "last":
            mask[:-1] = False
            targets[:-1] = 0
        return Batch(
            inputs=numbered(symbols),
            targets=targets,
            mask=mask,
            lengths=torch.full((batch,), steps),
            informative=at_steps(steps, torch.zeros(batch, dtype=torch.long)),
        )

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": any_supervised(misclassified(outputs, targets), mask & (targets < 2))}
