"""The gradient through depth: how much the loss changes with a small change of what each layer reads."""

import math
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.probes.probe import Moment, Probe, batch_quantiles
from rnnstudy.probes.reading import MEDIAN, Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class GradientThroughDepth(Probe):
    """log10 ‖dℓ_b/drˡ‖ for every layer l, where rˡ = (rˡ_1, …, rˡ_T) is what layer l reads, at all steps together.

    In a network of blocks rˡ is the residual stream that enters the block, so that the residual path counts; the first
    is the encoded input. In a network without blocks it is the output sequence of the layer below, and the input itself
    for the first layer. The gradient through time stands beside it: `GradientThroughTime` reads the states of the same
    layers.

    Readings on `sequences` fixed sequences, for the loss of the last supervised step, with `_initial` or `_final`
    appended outside training: `depth/stream`, quantiles over the sequences by axis `layer` (1 is the lowest). Summary,
    in a network of several layers: `depth_ratio_<stage>`, the median over the sequences of log10 ‖dℓ_b/dr¹‖ −
    log10 ‖dℓ_b/drᴸ‖ (decades): what the gradient gains or loses on its way down.

    Source: He et al. 2016, Identity mappings in deep residual networks, equation 5: the residual path carries it.
    """

    source: ClassVar[str] = "He et al. 2016 (identity mappings in deep residual networks), equation 5"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32

    def read(self, moment: Moment) -> list[Reading]:
        read = moment.side_batch(self.sequences).log_norms_read_by_layers()
        by_layer = torch.stack([over_steps(log_norms) for log_norms in read])
        everywhere = torch.ones_like(by_layer, dtype=torch.bool)
        layers = {"layer": tuple(float(layer + 1) for layer in range(len(by_layer)))}
        values = batch_quantiles(by_layer, everywhere)
        readings = [Reading(moment.curve("depth/stream"), values, ("quantile", "layer"), "log10", layers)]
        if len(by_layer) > 1:
            ratio = batch_quantiles((by_layer[0] - by_layer[-1])[None], everywhere[:1])[:, MEDIAN, 0]
            readings.append(Reading(moment.named("depth_ratio"), ratio, (), "log10"))
        return readings


def over_steps(log_norms: Float[Tensor, "time replica batch"]) -> Float[Tensor, "replica batch"]:
    """log10 of the norm over all steps, from that at each step."""
    # Squares leave float64's range before their root does.
    return torch.logsumexp(2 * math.log(10) * log_norms, dim=0) / (2 * math.log(10))
