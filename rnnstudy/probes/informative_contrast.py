"""Whether the gradient is larger at informative inputs than at distractors."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class InformativeContrast(Probe):
    """By how many decades the gradient at informative inputs is larger than at distractors.

    With x_t the input of the network, I the informative positions (t, b) and D the other positions whose lag τ_b − t
    lies in the range of lags that occur in I,

        contrast = median over I of log10 ‖dℓ_b/dx_t‖ − median over D of log10 ‖dℓ_b/dx_t‖,

    on `sequences` fixed sequences, for the loss of the last supervised step τ_b of each sequence, over steps up to τ_b.
    The range of lags is that of the whole batch of a replica; without this restriction, the contrast would mostly show
    how far back the informative inputs lie. Absent where I or D is empty, or where a median is an exact zero.

    Readings: `informative_contrast` (log10) in training; `summary/informative_contrast_initial` and `_final`.

    Source: this project; the marked positions are those of Hochreiter & Schmidhuber 1997 and Pascanu et al. 2013.
    """

    source: ClassVar[str] = "this project, for the marked positions of Hochreiter & Schmidhuber 1997"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32

    def read(self, moment: Moment) -> list[Reading]:
        batch = moment.side_batch(self.sequences)
        if batch.informative is None:
            return []
        values = contrast(batch.input_log_norms(), batch.informative, batch.last)
        return [Reading(moment.named("informative_contrast"), values, (), "log10")]


def contrast(
    log_norms: Float[Tensor, "time replica batch"],
    informative: Bool[Tensor, "time replica batch"],
    last: Int[Tensor, "replica batch"],
) -> Float[Tensor, " replica"]:
    """Median at informative positions minus median at distractors within the same range of lags, for each replica."""
    lag = last - torch.arange(len(log_norms), device=last.device)[:, None, None]
    informative = informative & (lag >= 0)
    shortest = torch.where(informative, lag, len(log_norms)).amin((0, 2))
    longest = torch.where(informative, lag, -1).amax((0, 2))
    in_range = (lag >= shortest[:, None]) & (lag <= longest[:, None])
    return _median(log_norms, informative) - _median(log_norms, in_range & ~informative)


def _median(values: Tensor, chosen: Tensor) -> Tensor:
    """The median over time and batch of the chosen values, for each replica; NaN where there is none or not finite."""
    rows = torch.where(chosen, values, torch.nan).transpose(0, 1).flatten(1)
    median = torch.nanquantile(rows, 0.5, dim=1)
    return torch.where(median.isfinite(), median, torch.nan)
