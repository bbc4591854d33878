"""Multi-query associative recall: pairs of key and value, then the keys again; the answer to a key is its value."""

from math import log
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.spec import SpecError, at_least
from rnnstudy.tasks.classification import SequenceClassification
from rnnstudy.tasks.task import Batch, Chance, Criterion, at_steps, numbered

POWER = 0.01


class AssociativeRecall(SequenceClassification):
    """K pairs (key, value), then the K keys again among random symbols; the target at each key is its value.

    V = `vocabulary` symbols: keys are drawn from 1, …, V/2 − 1 and values from V/2, …, V − 1, no key and no
    value twice in a sequence. The first 2K steps hold the pairs. The queries stand at K of the ⌊(T − 2K)/2⌋ positions
    2K, 2K + 2, …: for one key after another, a position is drawn without replacement, with weights 0.01·g^(0.01 − 1)
    for the g-th position (g = 1, 2, …), so that most queries come early. All other steps hold a symbol uniform on the
    whole vocabulary. V outputs (only values are ever right); softmax and cross-entropy (nats) at the queries.

    Error: the share of queries answered wrong. Published: an accuracy of 99 % ends the training.

    Published: V = 8192 read through an embedding (`Run.embedding`), T = 64 to 1024 with K = 4 to 256. Without one, an
    input matrix of that size is too large for a small recurrent network, so the default here is V = 128.

    Raises `SpecError` for a length below 4K, an odd vocabulary, or one without K keys and values.

    >>> import torch
    >>> drawn = AssociativeRecall(length=16, pairs=3, vocabulary=12).sample(1, torch.Generator().manual_seed(4))
    >>> print(" ".join(f"{s:2d}" for s in drawn.inputs[:, 0, 0].tolist()))
     3  9  1 11  2  7  2  6  1  1  3  2 11  8  8  7
    >>> answers = [f"{s:2d}" if m else " ." for s, m in zip(drawn.targets[:, 0].tolist(), drawn.mask[:, 0].tolist())]
    >>> print(" ".join(answers))
     .  .  .  .  .  .  7  . 11  .  9  .  .  .  .  .
    """

    source: ClassVar[str] = "Arora, Eyuboglu et al. 2023 (zoology, code: multiquery_ar.py)"
    criterion: ClassVar[Criterion] = Criterion(
        0.01, "less than 1 % of queries answered wrong", "share of queries answered wrong"
    )

    pairs: Annotated[int, at_least(1)] = 4
    vocabulary: Annotated[int, at_least(4)] = 128

    def check(self) -> None:
        self.require_length(4 * self.pairs, f"so that {self.pairs} pairs and as many queries fit")
        if self.vocabulary % 2 or self.vocabulary // 2 - 1 < self.pairs:
            raise SpecError(
                f"AssociativeRecall.vocabulary is {self.vocabulary}; it must be even and at least "
                f"{2 * self.pairs + 2}, so that {self.pairs} keys and values differ"
            )

    @property
    def features(self) -> int:
        return self.vocabulary

    @property
    def inputs_are_symbols(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return self.vocabulary

    @property
    def chance(self) -> Chance:
        """The V/2 values are equally likely: ln(V/2) nats, a share of 1 − 2/V wrong."""
        return Chance(loss=log(self.vocabulary // 2), error=1 - 2 / self.vocabulary)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, pairs, half = self.steps, self.pairs, self.vocabulary // 2
        keys = 1 + _without_replacement(torch.ones(half - 1), pairs, batch, generator)
        values = half + _without_replacement(torch.ones(half), pairs, batch, generator)
        positions = torch.arange(1, (steps - 2 * pairs) // 2 + 1)
        queries = 2 * pairs + 2 * _without_replacement(POWER * positions ** (POWER - 1), pairs, batch, generator)
        symbols = torch.randint(self.vocabulary, (steps, batch), generator=generator)
        symbols[: 2 * pairs : 2] = keys
        symbols[1 : 2 * pairs : 2] = values
        symbols.scatter_(0, queries, keys)
        return Batch(
            inputs=numbered(symbols),
            targets=torch.zeros(steps, batch, dtype=torch.long).scatter_(0, queries, values),
            mask=at_steps(steps, *queries),
            lengths=torch.full((batch,), steps),
            informative=torch.arange(steps)[:, None].expand(-1, batch) < 2 * pairs,
        )


def _without_replacement(weights: Tensor, count: int, batch: int, generator: torch.Generator) -> Tensor:
    """(count, batch): indices drawn one after another, with probability proportional to the remaining `weights`."""
    return torch.multinomial(weights.expand(batch, -1), count, generator=generator).T
