"""When a probe is read between the first and the last update."""

import math
from abc import abstractmethod
from typing import Annotated

from rnnstudy.spec import Spec, above, at_least


class ReadingSchedule(Spec):
    """Says after how many updates a probe is read. The initial and the final moment are read under every schedule."""

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether the probe is read when so many updates have been made."""


class StartAndEnd(ReadingSchedule):
    """Before the first update and after the last one, and never in between."""

    def due(self, step: int) -> bool:
        return False


class LogSpaced(ReadingSchedule):
    """`per_decade` readings in each decade of training: at 0 and at round(10^(k / `per_decade`)), k = 0, 1, 2, ….

    Learning often happens early: equal spacing on the logarithmic axis sees both the beginning and the end. Steps that
    rounding makes equal are read once; with 4 in a decade, at 0, 1, 2, 3, 6, 10, 18, 32, 56, 100, ….
    """

    per_decade: Annotated[float, above(0)] = 10

    def due(self, step: int) -> bool:
        if step == 0:
            return True
        nearest = round(self.per_decade * math.log10(step))
        return any(round(10 ** (k / self.per_decade)) == step for k in range(max(0, nearest - 1), nearest + 2))


Every = Annotated[int, at_least(1)] | ReadingSchedule
"""A number of updates between two readings, or a schedule."""
