"""Decoupled weight decay."""

from typing import Annotated, ClassVar

from rnnstudy.spec import PER_REPLICA, Spec, at_least


class WeightDecay(Spec):
    """θ ← θ − rate·(`strength`·θ) for every parameter, before the step of the optimiser and with the same rate.

    Decoupled: it is not part of the gradient, so it is neither clipped nor rescaled by Adam or RMSprop, and reported
    gradients are those of the loss. The same as torch.optim.AdamW; with plain SGD the same as adding `strength`·θ to
    the gradient. The rate is that of the replica, after the schedule.

    Source: Loshchilov & Hutter 2019, algorithm 2.
    """

    source: ClassVar[str] = "Loshchilov & Hutter 2019, algorithm 2; torch.optim.AdamW"

    strength: Annotated[float, at_least(0), PER_REPLICA] = 1e-2
