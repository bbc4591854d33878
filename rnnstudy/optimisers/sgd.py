"""Stochastic gradient descent with optional momentum."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.optimisers.optimiser import Optimiser
from rnnstudy.spec import between


class SGD(Optimiser):
    """u = `momentum`·u + g; step −rate · u."""

    source: ClassVar[str] = "Robbins & Monro 1951; momentum: Polyak 1964"

    momentum: Annotated[float, between(0, 0.999999)] = 0.0

    def at_unit_rate(self, buffers: Sequence[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(list(buffers), lr=1.0, momentum=self.momentum)
