"""A backward pass whose gradient through time neither vanishes nor explodes: an intervention, to ask for causes."""

from typing import ClassVar

from rnnstudy.spec import Spec


class ConstantNorm(Spec):
    """Each step passes back a gradient of the norm that arrived at it: its direction is kept, its length restored.

    With G_t the gradient that arrives at all states of step t, for each sequence and layer,

        G_{t-1} = ∂⁺L/∂s_{t-1} + ‖G_t‖/‖Jᵀ G_t‖ · Jᵀ G_t,   J = ∂s_t/∂s_{t-1},

    and zero where Jᵀ G_t is exactly zero. Values do not change. The gradients of the parameters, and the reported
    gradients through time, are those of this rescaled pass: they are not the gradient of any loss. It asks for a
    cause: where a network learns under this rule and not without it, the length was part of the reason; where it does
    not learn, nothing follows, since noise is amplified too and the lags weigh otherwise.

    Trained by the reference engine alone.

    Source: this project. Keeping the direction that is left and giving it a length is what normalised gradients do
    (Hazan, Levy & Shalev-Shwartz 2015), here at every step back instead of once for each update.
    """

    source: ClassVar[str] = "this project; compare Hazan, Levy & Shalev-Shwartz 2015 (normalised gradients)"
