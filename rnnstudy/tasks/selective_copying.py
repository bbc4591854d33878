"""Selective copying: output the symbols that stood among blanks, in their order."""

from math import log
from typing import Annotated, ClassVar

import torch

from rnnstudy.spec import at_least
from rnnstudy.tasks.classification import SequenceClassification
from rnnstudy.tasks.task import Batch, Chance, Criterion, one_hot


class SelectiveCopying(SequenceClassification):
    """n symbols at random positions among blanks, then a marker; the targets of the last n steps are the n symbols.

    T steps, n = `tokens`, S = `symbols`. Each symbol is uniform on S. Each of the T − 2n − 1 blanks before the marker
    goes in front of one of the n symbols, chosen uniformly and independently, so that the last symbol stands right
    before the marker (as in the published code); n blanks follow the marker. S + 2 one-hot inputs (symbols, blank,
    marker), S outputs, softmax and cross-entropy (nats) over the last n steps. Published: T = 256, n = 16 and a
    vocabulary of 16 that includes the two special symbols (S = 14).

    Unlike copy memory, a fixed delay does not solve the task: the network must decide at each step what to keep.

    Error: the share of the recalled symbols that are wrong. `sequence_error`: 1 when any of them is wrong. No success
    criterion was published; ours is an error below 1 %.

    Raises `SpecError` for a length below 2n + 2.

    >>> import torch
    >>> drawn = SelectiveCopying(length=24, tokens=6).sample(1, torch.Generator().manual_seed(0))
    >>> print("".join("abcdefghijklmn_>"[s] for s in drawn.inputs[:, 0].argmax(-1)))
    __e___d__h__c_b_j>______
    >>> print(" " * 18 + "".join("abcdefghijklmn"[s] for s in drawn.targets[-6:, 0]))
                      edhcbj
    """

    source: ClassVar[str] = "Gu & Dao 2023; Poli et al. 2024 (mad-lab, code: instances.py)"
    criterion: ClassVar[Criterion] = Criterion(
        0.01, "less than 1 % of recalled symbols wrong (ours)", "share of recalled symbols wrong"
    )

    tokens: Annotated[int, at_least(1)] = 16
    symbols: Annotated[int, at_least(2)] = 14

    def check(self) -> None:
        self.require_length(2 * self.tokens + 2, f"so that {self.tokens} tokens, a blank, a marker and the recall fit")

    @property
    def features(self) -> int:
        return self.symbols + 2

    @property
    def outputs(self) -> int:
        return self.symbols

    @property
    def chance(self) -> Chance:
        """Each recalled symbol is one of S: ln S nats, a share of 1 − 1/S wrong."""
        return Chance(loss=log(self.symbols), error=1 - 1 / self.symbols)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, tokens = self.steps, self.tokens
        drawn = torch.randint(self.symbols, (tokens, batch), generator=generator)
        blanks = steps - 2 * tokens - 1
        in_front_of = torch.randint(tokens, (blanks, batch), generator=generator)
        count = torch.zeros(tokens, batch, dtype=torch.long).scatter_add_(0, in_front_of, torch.ones_like(in_front_of))
        positions = torch.arange(tokens)[:, None] + count.cumsum(0)
        symbols = torch.full((steps, batch), self.symbols).scatter_(0, positions, drawn)
        symbols[steps - tokens - 1] = self.symbols + 1
        targets = torch.zeros(steps, batch, dtype=torch.long)
        targets[-tokens:] = drawn
        return Batch(
            inputs=one_hot(symbols, self.features),
            targets=targets,
            mask=torch.arange(steps)[:, None].expand(-1, batch) >= steps - tokens,
            lengths=torch.full((batch,), steps),
            informative=symbols < self.symbols,
        )
