"""Delayed XOR: two of many bits are marked; the answer is whether they differ."""

from math import log
from typing import ClassVar

import torch

from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import Batch, Chance, Criterion, at_steps, supervised_at_end


class DelayedXor(Classification):
    """Two of T bits are marked; at the last step, say whether the two bits differ.

    Two inputs at each step, (bit, mark); bits uniform on {0, 1}; one mark uniform on [0, int(T/10)), the other on
    [int(T/10), int(T/2)), so that the answer comes T/2 steps or more after both marked bits. Two outputs, softmax
    and cross-entropy (nats) at the last step only; class 1 when the marked bits differ. Error: the share of sequences
    misclassified.

    One marked bit alone says nothing about the answer, so partial knowledge does not reduce the error: Martens &
    Sutskever 2011 found the task harder than temporal order, and Hochreiter & Schmidhuber 1997 name strongly delayed
    XOR as a limit of LSTM with truncated gradients. The ranges of the marks are those of Martens & Sutskever. Ours are
    the exact length, no −1 marks at the ends, two classes (not a number with tolerance 0.04) and the criterion of 1 %.

    Raises `SpecError` for a length below 10.

    >>> import torch
    >>> drawn = DelayedXor(length=20).sample(2, torch.Generator().manual_seed(5))
    >>> for row in range(2):
    ...     print("".join(str(int(bit)) for bit in drawn.inputs[:, row, 0]), "->", drawn.targets[-1, row].item())
    ...     print("".join(" ^"[int(mark)] for mark in drawn.inputs[:, row, 1]).rstrip())
    11000110111001101011 -> 1
    ^   ^
    01010000011111000101 -> 0
     ^       ^
    """

    source: ClassVar[str] = "Martens & Sutskever 2011; Hochreiter & Schmidhuber 1997, section 6"
    features: ClassVar[int] = 2
    outputs: ClassVar[int] = 2
    criterion: ClassVar[Criterion] = Criterion(
        0.01, "less than 1 % of sequences misclassified (ours)", "share of sequences misclassified"
    )
    chance: ClassVar[Chance] = Chance(loss=log(2), error=1 / 2)
    """Two equally likely classes: ln 2 nats, 1/2 wrong."""

    def check(self) -> None:
        self.require_length(10, "so that a tenth of it holds a mark")

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, sequence = self.steps, torch.arange(batch)
        bits = torch.randint(2, (steps, batch), generator=generator)
        first = torch.randint(steps // 10, (batch,), generator=generator)
        second = torch.randint(steps // 10, steps // 2, (batch,), generator=generator)
        marked = at_steps(steps, first, second)
        inputs = torch.stack([bits, marked], dim=-1).to(torch.get_default_dtype())
        return supervised_at_end(inputs, bits[first, sequence] ^ bits[second, sequence], marked)
