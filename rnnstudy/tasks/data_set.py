"""Tasks that draw from a data set: a fixed training, validation and test part, and one class for each sequence."""

from abc import abstractmethod
from typing import Literal, Self

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import Chance

Part = Literal["training", "validation", "test"]


class DataSet(Classification):
    """Classify the sequences of a fixed collection; softmax and cross-entropy (nats) at the last step.

    Sequences are drawn uniformly and with replacement from one `part` of the collection. Training uses the training
    part, validation and probes the validation part, the final test and other lengths the test part: `split` chooses it,
    whatever the value of `part` in the specification.
    """

    part: Part = "training"

    @property
    @abstractmethod
    def classes(self) -> Int[Tensor, " sequence"]:
        """The class of each sequence of the part."""

    @property
    def chance(self) -> Chance:
        """Always answer the most frequent class: −Σ p·ln p nats, with p the share of each class in the part."""
        shares = torch.bincount(self.classes, minlength=self.outputs).double() / len(self.classes)
        return Chance(loss=-torch.xlogy(shares, shares).sum().item(), error=1 - shares.max().item())

    def split(self, purpose: str) -> Self:
        parts: dict[str, Part] = {"training": "training", "validation": "validation", "probe": "validation"}
        return self.replace(part=parts.get(purpose, "test"))
