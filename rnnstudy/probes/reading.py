"""What a probe returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)
"""The quantiles over a batch, along the axis `quantile` of a reading."""

MEDIAN = QUANTILES.index(0.50)


@dataclass(frozen=True)
class Reading:
    """A quantity measured at one moment for every replica of a population; the batch axis is already reduced.

    Attributes:
        name: the name in the store, for example `through_time/h`.
        values: (replica, *axes), on the device of training.
        axes: names of the axes after `replica`: `quantile`, `time`, `lag`, `age`, `index`, `length`.
        unit: for example `log10`, `nats`, `share`.
        coordinates: axis to the positions of its entries, where they are not 0, 1, 2, ….
    """

    name: str
    values: Tensor
    axes: tuple[str, ...] = ()
    unit: str = ""
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
