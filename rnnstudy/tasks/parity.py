"""Parity: the answer at every step is whether the number of ones read so far is odd."""

from collections.abc import Mapping
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.tasks.classification import SequenceClassification
from rnnstudy.tasks.task import Batch, Chance, Criterion, any_supervised, misclassified


class Parity(SequenceClassification):
    """T bits; at every step, say whether the number of ones read so far is odd.

    One input, the bit, uniform on {0, 1}; two outputs, softmax and cross-entropy (nats) averaged over all steps; class
    1 for odd. Every one flips the answer at all later steps, so no bit may be forgotten.

    Error: the share of steps that are wrong (chance 1/2). `sequence_error`: 1 when any step is wrong; `last_error`: the
    error of the last step alone, as in the literature on formal languages. No criterion was published for every step;
    ours is an error below 1 %.

    Raises `SpecError` for a length below 2.

    >>> import torch
    >>> drawn = Parity(length=16).sample(1, torch.Generator().manual_seed(0))
    >>> print("".join(str(int(bit)) for bit in drawn.inputs[:, 0, 0]))
    0110111111100100
    >>> print("".join("eo"[parity] for parity in drawn.targets[:, 0]))
    eoeeoeoeoeoooeee
    """

    source: ClassVar[str] = "classical; at the last step alone in Delétang et al. 2023 (Chomsky hierarchy)"
    features: ClassVar[int] = 1
    outputs: ClassVar[int] = 2
    criterion: ClassVar[Criterion] = Criterion(0.01, "less than 1 % of steps wrong (ours)", "share of steps wrong")
    chance: ClassVar[Chance] = Chance(loss=log(2), error=1 / 2)
    """Odd and even are equally likely at every step: ln 2 nats, 1/2 wrong."""

    def check(self) -> None:
        self.require_length(2, "so that there is something to remember")

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        bits = torch.randint(2, (self.steps, batch), generator=generator)
        everywhere = torch.ones(self.steps, batch, dtype=torch.bool)
        return Batch(
            inputs=bits.unsqueeze(-1).to(torch.get_default_dtype()),
            targets=bits.cumsum(0) % 2,
            mask=everywhere,
            lengths=torch.full((batch,), self.steps),
            informative=everywhere,
        )

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        last = mask & (mask.flip(0).cumsum(0).flip(0) == 1)
        last_error = any_supervised(misclassified(outputs, targets), last)
        return {**super().measures(outputs, targets, mask), "last_error": last_error}
