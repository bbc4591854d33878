"""When a probe is read between the first and the last update."""

import math
from abc import abstractmethod
from typing import Annotated

from rnnstudy.spec import Spec, above, at_least


class ReadingSchedule(Spec):
    """Decides after which updates a probe is read. Every schedule also includes the initial and the final moment."""

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether the probe is read after `step` updates."""


class StartAndEnd(ReadingSchedule):
    """Only before the first update and after the last one."""

    def due(self, step: int) -> bool:
        return False


class LogSpaced(ReadingSchedule):
    """`per_decade` readings in each decade of training: at 0 and at round(10^(k / `per_decade`)), k = 0, 1, 2, ….

    Learning often happens early: readings at equal distances on a logarithmic axis show both the beginning and the end.
    Steps that are equal after rounding are read once; with 4 per decade: 0, 1, 2, 3, 6, 10, 18, 32, 56, 100, ….
    """

    per_decade: Annotated[float, above(0)] = 10

    def due(self, step: int) -> bool:
        if step == 0:
            return True
        nearest = round(self.per_decade * math.log10(step))
        return any(round(10 ** (k / self.per_decade)) == step for k in range(max(0, nearest - 1), nearest + 2))


Every = Annotated[int, at_least(1)] | ReadingSchedule
"""A number of updates between two readings, or a schedule."""
