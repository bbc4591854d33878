"""How many units and gates are saturated: close to a bound of their range, where the derivative is nearly zero."""

from typing import Annotated, ClassVar

import torch

from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least, between


class Saturation(Probe):
    """The share of (step, sequence, unit) at which a bounded unit or gate lies within `margin` of a bound.

    `low`: v − lowest < `margin`; `high`: highest − v < `margin`. For a gate, low is closed and high is open; for a tanh
    unit, low is −1 and high is 1. Measured for everything in `Cell.bounded`: h of a tanh or sigmoid network; f, i, o,
    the candidate and h of an LSTM; over the steps up to the last supervised one, on `sequences` fixed sequences.

    Readings for each layer: `saturation/f_low`, `saturation/f_high`, … (share) during training;
    `summary/saturation_f_low_initial` and `_final` before and after it.

    Source: Glorot & Bengio 2010 for the idea; the margin of 0.05 is in common use (course project cs728-pa2).
    """

    source: ClassVar[str] = "Glorot & Bengio 2010"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32
    margin: Annotated[float, between(0, 0.5)] = 0.05

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        measured = batch.until_last()
        count = measured.sum((0, 2))
        for label, layer in batch.labelled_layers():
            for name, units in layer.bounded().items():
                ends = {"low": units.values - units.low < self.margin, "high": units.high - units.values < self.margin}
                for end, near in ends.items():
                    share = torch.where(measured, near.double().mean(-1), 0.0).sum((0, 2)) / count
                    readings.append(Reading(moment.scalar("saturation", label(f"{name}_{end}")), share, (), "share"))
        return readings
