"""Learning-rate schedules: a factor on the learning rate of every replica that depends only on the update number."""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar

from rnnstudy.spec import Spec, SpecError, at_least, between


class RateSchedule(Spec):
    """A factor on the learning rate. It depends only on the update number, so a resumed run needs no stored state.

    Fields:
        warm_up: number of first updates over which the factor rises linearly, 1/`warm_up`, 2/`warm_up`, …, 1; then the
            factor is `decayed`. Source: Goyal et al. 2017, section 2.2.
    """

    source: ClassVar[str]

    warm_up: Annotated[int, at_least(0)] = 0

    @abstractmethod
    def decayed(self, progress: float) -> float:
        """The factor at `progress`, from 0 (end of the warm-up) towards 1 (end of training)."""

    def factor(self, step: int, steps: int) -> float:
        """The factor for update number `step` (from 0) of `steps`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return self.decayed((step - self.warm_up) / (steps - self.warm_up))

    def check_compatible(self, steps: int) -> None:
        """Raises `SpecError` when the warm-up is not shorter than training."""
        if self.warm_up >= steps:
            raise SpecError(
                f"{self!r} warms up for {self.warm_up} updates; they must be fewer than the {steps} of training"
            )


class Constant(RateSchedule):
    """The factor is 1 (after a warm-up, if any)."""

    source: ClassVar[str] = "Robbins & Monro 1951; warm-up: Goyal et al. 2017, section 2.2"

    def decayed(self, progress: float) -> float:
        return 1.0


class LinearDecay(RateSchedule):
    """The factor falls linearly from 1 to `final`: 1 − (1 − `final`)·progress."""

    source: ClassVar[str] = "torch.optim.lr_scheduler.LinearLR"

    final: Annotated[float, between(0, 1)] = 0.0

    def decayed(self, progress: float) -> float:
        return 1 - (1 - self.final) * progress


class CosineDecay(RateSchedule):
    """The factor falls as half a cosine from 1 to `final`: `final` + (1 − `final`)(1 + cos(π·progress))/2.

    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """

    source: ClassVar[str] = "Loshchilov & Hutter 2017, equation 5"

    final: Annotated[float, between(0, 1)] = 0.0

    def decayed(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
