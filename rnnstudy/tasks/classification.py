"""Tasks whose answer is a class."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from rnnstudy.tasks.task import Task, any_supervised, cross_entropy, mean_over_supervised, misclassified


class Classification(Task):
    """Softmax and cross-entropy in nats; the error is the share of supervised steps that are misclassified."""

    loss_unit: ClassVar[str] = "nats"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return {"error": mean_over_supervised(misclassified(outputs, targets), mask)}


class SequenceClassification(Classification):
    """As `Classification`, with a class for several steps; `sequence_error`: 1 when any supervised step is wrong."""

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        sequence_error = any_supervised(misclassified(outputs, targets), mask)
        return {**super().measures(outputs, targets, mask), "sequence_error": sequence_error}
