"""Delayed XOR: two of many bits are marked; say at the end whether they differ."""

from collections.abc import Mapping
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class DelayedXor(Task):
    """Two of T bits are marked; at the last step, say whether they differ.

    Two inputs at each step, (bit, mark); bits uniform on {0, 1}; one mark uniform on [0, int(T/10)), the other on
    [int(T/10), int(T/2)), so that the answer is due T/2 steps or more after what it depends on. Two outputs, softmax
    and cross-entropy (nats) at the last step only; class 1 when the marked bits differ. Error: the share of sequences
    misclassified.

    Neither marked bit alone tells anything about the answer, so that there is no partial credit: Martens & Sutskever
    2011 found it harder than temporal order, and Hochreiter & Schmidhuber 1997 name strongly delayed XOR as a limit of
    LSTM with truncated gradients. The ranges of the marks are the former's; exact length, no −1 marks at the ends, two
    classes in place of one number to be met within 0.04, and the criterion of 1 %, are ours.

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
    loss_unit: ClassVar[str] = "nats"

    def check(self) -> None:
        self.require_length(10, "so that a tenth of it holds a mark")

    @property
    def features(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 2

    @property
    def criterion(self) -> Criterion:
        return Criterion(0.01, "less than 1 % of sequences misclassified (ours)", "share of sequences misclassified")

    @property
    def chance(self) -> Chance:
        """Two equally likely classes: ln 2 nats, one in two wrong."""
        return Chance(loss=log(2), error=1 / 2)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, sequence = self.steps, torch.arange(batch)
        bits = torch.randint(2, (steps, batch), generator=generator)
        first = torch.randint(steps // 10, (batch,), generator=generator)
        second = torch.randint(steps // 10, steps // 2, (batch,), generator=generator)
        marked = task.at_steps(steps, first, second)
        targets = torch.zeros(steps, batch, dtype=torch.long)
        targets[-1] = bits[first, sequence] ^ bits[second, sequence]
        return Batch(
            inputs=torch.stack([bits, marked], dim=-1).to(torch.get_default_dtype()),
            targets=targets,
            mask=task.at_steps(steps, torch.full((batch,), steps - 1)),
            lengths=torch.full((batch,), steps),
            informative=marked,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": task.mean_over_supervised(task.misclassified(outputs, targets), mask)}
