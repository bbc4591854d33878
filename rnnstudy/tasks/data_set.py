"""Tasks that draw from a data set: a fixed training, validation and test part, and one class for each sequence."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Chance, Task

Part = Literal["training", "validation", "test"]


class DataSet(Task):
    """One class for each sequence of a fixed collection, softmax and cross-entropy (nats) at its last step.

    Sequences are drawn uniformly and with replacement from one `part` of the collection. Training draws from the
    training part, validation and probes from the validation part, the final judgement and other lengths from the test
    part: `split` says so, whatever `part` the specification names.
    """

    loss_unit: ClassVar[str] = "nats"

    part: Part = "training"

    @property
    @abstractmethod
    def classes(self) -> Int[Tensor, " sequence"]:
        """The class of each sequence of the part."""

    @property
    def chance(self) -> Chance:
        """The share p of each class in the part: −Σ p·ln p nats; the most frequent class is always said."""
        shares = torch.bincount(self.classes, minlength=self.outputs).double() / len(self.classes)
        return Chance(loss=-torch.xlogy(shares, shares).sum().item(), error=1 - shares.max().item())

    def split(self, purpose: str) -> Self:
        parts: dict[str, Part] = {"training": "training", "validation": "validation", "probe": "validation"}
        return self.replace(part=parts.get(purpose, "test"))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": task.mean_over_supervised(task.misclassified(outputs, targets), mask)}
