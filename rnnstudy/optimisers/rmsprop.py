"""RMSprop."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.optimisers.optimiser import Optimiser
from rnnstudy.spec import above, between


class RMSprop(Optimiser):
    """v = `decay`·v + (1 − `decay`)·g²; step −rate · g/(√v + ε). Source: Tieleman & Hinton 2012, lecture 6.5."""

    source: ClassVar[str] = "Tieleman & Hinton 2012, lecture 6.5"

    decay: Annotated[float, between(0, 0.999999)] = 0.9
    epsilon: Annotated[float, above(0)] = 1e-8

    def at_unit_rate(self, buffers: Sequence[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(list(buffers), lr=1.0, alpha=self.decay, eps=self.epsilon)
