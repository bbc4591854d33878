"""A range of lengths: any task, with a length drawn for each sequence."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from rnnstudy.spec import SpecError
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class LengthRange(Task):
    """Another task, whose length is drawn anew for each sequence, uniform on the task's own length, …, T = `length`.

    What is asked, and how it is judged, are the other task's. At another length (`Training.other_lengths`) all
    sequences have that one. Pascanu, Mikolov & Bengio 2013 draw one length from 50 to 200 for each batch and judge at
    up to 5000; here it is drawn for each sequence, and shorter ones are padded behind their end.

    Raises `SpecError` when T is below the task's own length.

    >>> import torch
    >>> from rnnstudy.tasks import TemporalOrder
    >>> task = LengthRange(task=TemporalOrder(length=10), length=20)
    >>> drawn = task.sample(3, torch.Generator().manual_seed(0))
    >>> for row in range(3):
    ...     print("".join("ABcdef"[s] for s in drawn.inputs[: drawn.lengths[row], row].argmax(-1)))
    cefAdfdffefBdddfcfec
    eBeffecdBddcdcfcf
    cAfffAfdecf
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, section 4.1"
    task: Task

    def check(self) -> None:
        if self.length < self.task.length:
            raise SpecError(f"LengthRange.length is {self.length}; it must be at least the task's, {self.task.length}")
        self._longest()
        object.__setattr__(self, "loss_unit", self.task.loss_unit)

    def _longest(self) -> Task:
        return self.task.with_length(self.length)

    @property
    def steps(self) -> int:
        return self._longest().steps

    @property
    def features(self) -> int:
        return self.task.features

    @property
    def outputs(self) -> int:
        return self.task.outputs

    @property
    def criterion(self) -> Criterion:
        return self.task.criterion

    @property
    def chance(self) -> Chance:
        """The mean over lengths of what a predictor attains that knows a sequence's length and nothing else of it."""
        each = [self.task.with_length(length).chance for length in range(self.task.length, self.length + 1)]
        return Chance(sum(one.loss for one in each) / len(each), sum(one.error for one in each) / len(each))

    @property
    def least_loss(self) -> float:
        lengths = range(self.task.length, self.length + 1)
        return sum(self.task.with_length(length).least_loss for length in lengths) / len(lengths)

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        return self.task.perfect_outputs(targets)

    def split(self, purpose: str) -> Self:
        return self.replace(task=self.task.split(purpose))

    def with_length(self, length: int) -> Self:
        return self.replace(task=self.task.with_length(length), length=length)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        drawn = torch.randint(self.task.length, self.length + 1, (batch,), generator=generator)
        order = drawn.argsort(stable=True)
        lengths, counts = drawn.unique(return_counts=True)
        parts = [
            self.task.with_length(length).sample(count, generator)
            for length, count in zip(lengths.tolist(), counts.tolist(), strict=True)
        ]
        back = order.argsort()

        def together(name: str) -> Tensor:
            padded = [_padded(getattr(part, name), self.steps) for part in parts]
            return torch.cat(padded, dim=1)[:, back]

        return Batch(
            inputs=together("inputs"),
            targets=together("targets"),
            mask=together("mask"),
            lengths=torch.cat([part.lengths for part in parts])[back],
            informative=together("informative"),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return self.task.measures(outputs, targets, mask)


def _padded(values: Tensor, steps: int) -> Tensor:
    """`values` (time, batch, …) with zeros behind the end, up to `steps`."""
    behind = values.new_zeros(steps - values.shape[0], *values.shape[1:])
    return torch.cat([values, behind])
