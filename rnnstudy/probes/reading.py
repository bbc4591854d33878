from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)
"""The quantiles over a batch that readings keep, along their axis `quantile`; the median is among them."""

MEDIAN = QUANTILES.index(0.50)


@dataclass(frozen=True)
class Reading:
    """A quantity measured at one moment for every replica of a population, batch already reduced.

    Attributes:
        name: as in the store, for example `through_time/h`.
        values: (replica, *axes), on the device of training.
        axes: names of the axes behind `replica`: `quantile`, `time`, `lag`, `length`.
        unit: for example `log10`, `nats`, `share`.
    """

    name: str
    values: Tensor
    axes: tuple[str, ...] = ()
    unit: str = ""
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
