"""Learning-rate schedules: a factor on every replica's learning rate, a function of the update's number alone."""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar

from rnnstudy.spec import Spec, SpecError, at_least, between


class RateSchedule(Spec):
    """A factor on the learning rate, a pure function of the number of updates made, so that a resume needs nothing.

    Fields:
        warm_up: the factor rises linearly, 1/`warm_up`, 2/`warm_up`, …, 1, over so many first updates; what `decayed`
            says begins after them. Source: Goyal et al. 2017, section 2.2.
    """

    source: ClassVar[str]

    warm_up: Annotated[int, at_least(0)] = 0

    @abstractmethod
    def decayed(self, progress: float) -> float:
        """The factor at `progress`, from 0 (the warm-up is over) towards 1 (all updates are made)."""

    def factor(self, step: int, steps: int) -> float:
        """The factor for the update that follows `step` updates, of `steps` in all."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return self.decayed((step - self.warm_up) / (steps - self.warm_up))

    def suits(self, steps: int) -> None:
        """Raises `SpecError` when the warm-up does not end before training does."""
        if self.warm_up >= steps:
            raise SpecError(
                f"{self!r} warms up for {self.warm_up} updates; it must be fewer than the {steps} of training"
            )


class Constant(RateSchedule):
    """The factor is 1 (after a warm-up, if any)."""

    source: ClassVar[str] = "Robbins & Monro 1951; warm-up: Goyal et al. 2017, section 2.2"

    def decayed(self, progress: float) -> float:
        return 1.0


class LinearDecay(RateSchedule):
    """The factor falls on a straight line from 1 to `final`: 1 − (1 − `final`)·progress."""

    source: ClassVar[str] = "torch.optim.lr_scheduler.LinearLR"

    final: Annotated[float, between(0, 1)] = 0.0

    def decayed(self, progress: float) -> float:
        return 1 - (1 - self.final) * progress


class CosineDecay(RateSchedule):
    """The factor falls on half a cosine from 1 to `final`: `final` + (1 − `final`)(1 + cos(π·progress))/2.

    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """

    source: ClassVar[str] = "Loshchilov & Hutter 2017, equation 5"

    final: Annotated[float, between(0, 1)] = 0.0

    def decayed(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
