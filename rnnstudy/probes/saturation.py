"""How many units and gates sit at an end of their range, where their derivative is nearly zero."""

from typing import Annotated, ClassVar

import torch

from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least, between


class Saturation(Probe):
    """The share of (step, sequence, unit) at which a bounded unit or gate lies within `margin` of a bound.

    `low`: v − lowest < `margin`; `high`: highest − v < `margin`. For a gate, low is closed and high is open; for a tanh
    unit they are −1 and 1. Every quantity that the cell calls bounded (`Cell.bounded`) is looked at: h of a tanh or
    sigmoid network; f, i, o, the candidate and h of an LSTM. Steps up to the last supervised one count, on `sequences`
    fixed sequences.

    Readings for each layer: `saturation/f_low`, `saturation/f_high`, … (share) in training;
    `summary/saturation_f_low_initial` and `_final` before and after it.

    Source: the margin of 0.05 is common use (course project cs728-pa2); Glorot & Bengio 2010 for the idea.
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
            for name, one in layer.bounded().items():
                ends = {"low": one.values - one.low < self.margin, "high": one.high - one.values < self.margin}
                for end, near in ends.items():
                    share = torch.where(measured, near.double().mean(-1), 0.0).sum((0, 2)) / count
                    readings.append(Reading(moment.scalar("saturation", label(f"{name}_{end}")), share, (), "share"))
        return readings
