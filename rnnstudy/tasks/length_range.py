"""A range of lengths: any other task, with a length drawn for each sequence."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.spec import SpecError
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class LengthRange(Task):
    """Another task, with a length drawn for each sequence, uniform from the length of that task to T = `length`.

    Targets, loss, measures and criterion are those of the other task. At another length (`Training.other_lengths`) all
    sequences have that length. Pascanu, Mikolov & Bengio 2013 draw one length from 50 to 200 for each batch and test at
    up to 5000; here it is drawn for each sequence, and shorter sequences are padded at their end.

    Raises `SpecError` when T is below the length of the other task.

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
        self.task.with_length(self.length)  # raises an error if the task refuses it
        object.__setattr__(self, "loss_unit", self.task.loss_unit)

    @property
    def steps(self) -> int:
        return self.task.with_length(self.length).steps

    def _at_each_length(self) -> list[Task]:
        return [self.task.with_length(length) for length in range(self.task.length, self.length + 1)]

    @property
    def features(self) -> int:
        return self.task.features

    @property
    def inputs_are_symbols(self) -> bool:
        return self.task.inputs_are_symbols

    @property
    def outputs(self) -> int:
        return self.task.outputs

    @property
    def criterion(self) -> Criterion:
        return self.task.criterion

    @property
    def chance(self) -> Chance:
        """The mean over the lengths: a predictor that knows the length of a sequence and nothing else."""
        levels = [task.chance for task in self._at_each_length()]
        loss, error = (sum(getattr(level, name) for level in levels) / len(levels) for name in ("loss", "error"))
        return Chance(loss, error)

    @property
    def least_loss(self) -> float:
        tasks = self._at_each_length()
        return sum(task.least_loss for task in tasks) / len(tasks)

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
        original_order = order.argsort()

        padding = {"inputs": NOTHING if self.inputs_are_symbols else 0, "targets": 0, "mask": 0, "informative": 0}
        by_time = {
            name: torch.cat([_padded(getattr(part, name), self.steps, value) for part in parts], 1)[:, original_order]
            for name, value in padding.items()
        }
        return Batch(**by_time, lengths=torch.cat([part.lengths for part in parts])[original_order])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return self.task.measures(outputs, targets, mask)


def _padded(values: Tensor, steps: int, padding: int) -> Tensor:
    """`values` (time, batch, …) padded with `padding` to `steps` time steps."""
    return torch.cat([values, values.new_full((steps - values.shape[0], *values.shape[1:]), padding)])
