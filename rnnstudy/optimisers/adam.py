"""Adam."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.optimisers.optimiser import Optimiser
from rnnstudy.spec import above, between


class Adam(Optimiser):
    """m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g²; step −rate · m̂/(√v̂ + ε), with m̂, v̂ corrected for the start at 0.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    source: ClassVar[str] = "Kingma & Ba 2015"

    beta1: Annotated[float, between(0, 0.999999)] = 0.9
    beta2: Annotated[float, between(0, 0.999999)] = 0.999
    epsilon: Annotated[float, above(0)] = 1e-8

    def at_unit_rate(self, buffers: Sequence[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(list(buffers), lr=1.0, betas=(self.beta1, self.beta2), eps=self.epsilon)
