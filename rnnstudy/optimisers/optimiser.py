"""The contract of an update rule: a torch.optim optimiser at rate 1; each replica scales the step by its own rate."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.spec import Spec


class Optimiser(Spec):
    """An update rule whose step is proportional to its learning rate.

    Therefore one torch.optim optimiser is enough for a population with a separate rate for each replica: it steps at
    rate 1 on a buffer of zeros, then parameter += rate[replica] · buffer.
    """

    source: ClassVar[str]

    @abstractmethod
    def at_unit_rate(self, buffers: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The torch.optim optimiser at learning rate 1 over the update buffers."""
