"""What an update rule is: a torch.optim optimiser at rate 1, whose step each replica scales by its own rate."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.spec import Spec


class Optimiser(Spec):
    """An update rule whose step is proportional to its learning rate.

    Then one torch.optim optimiser serves a population with a rate for each replica: it steps at rate 1 on a buffer of
    zeros, and parameter += rate[replica] · buffer.
    """

    source: ClassVar[str]

    @abstractmethod
    def at_unit_rate(self, buffers: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The torch.optim optimiser at learning rate 1 over the update buffers."""
