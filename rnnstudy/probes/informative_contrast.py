"""Whether the gradient finds the inputs that matter among those that do not."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class InformativeContrast(Probe):
    """How much larger the gradient with respect to informative inputs is than to distractors, in decades.

    With x_t the network's input, I the informative positions (t, b) and D the other positions whose lag τ_b − t lies in
    the range of lags that occur in I,

        contrast = median over I of log10 ‖dℓ_b/dx_t‖ − median over D of log10 ‖dℓ_b/dx_t‖,

    on `sequences` fixed sequences, for the loss of each sequence's last supervised step τ_b; steps up to τ_b count.
    The range of lags is that of the whole batch of a replica: a share of the gradient without it would mostly say how
    far back the informative inputs lie. Absent where I or D is empty, or a median is an exact zero.

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
        log_norms = batch.layers[0].input_log_norms()
        values = contrast(log_norms, batch.informative, batch.last)
        return [Reading(moment.named("informative_contrast"), values, (), "log10")]


def contrast(
    log_norms: Float[Tensor, "time replica batch"],
    informative: Bool[Tensor, "time replica batch"],
    last: Int[Tensor, "replica batch"],
) -> Float[Tensor, " replica"]:
    """Median at informative positions minus median at distractors in the same range of lags, for each replica."""
    lag = last - torch.arange(len(log_norms), device=last.device)[:, None, None]
    informative = informative & (lag >= 0)
    shortest = torch.where(informative, lag, len(log_norms)).amin((0, 2))
    longest = torch.where(informative, lag, -1).amax((0, 2))
    among = (lag >= shortest[:, None]) & (lag <= longest[:, None])
    return _median(log_norms, informative) - _median(log_norms, among & ~informative)


def _median(values: Tensor, chosen: Tensor) -> Tensor:
    """The median over time and batch of what is chosen, for each replica; NaN where that is nothing or not finite."""
    rows = torch.where(chosen, values, torch.nan).transpose(0, 1).flatten(1)
    found = torch.nanquantile(rows, 0.5, dim=1)
    return torch.where(found.isfinite(), found, torch.nan)
