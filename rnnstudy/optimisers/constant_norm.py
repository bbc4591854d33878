"""A backward pass whose gradient through time neither vanishes nor explodes: an intervention, to ask for causes."""

from typing import ClassVar

from rnnstudy.spec import Spec


class ConstantNorm(Spec):
    """Each step passes back a gradient of the norm that arrived at it: its direction is kept, its length restored.

    With G_t the gradient that arrives at all states of step t, for each sequence and layer,

        G_{t-1} = ∂⁺L/∂s_{t-1} + ‖G_t‖/‖Jᵀ G_t‖ · Jᵀ G_t,   J = ∂s_t/∂s_{t-1},

    and zero where Jᵀ G_t is exactly zero. Values do not change. The gradients of the parameters, and the reported
    gradients through time, are those of this rescaled pass: they are not the gradient of any loss. It answers a
    question of cause: where a network does not learn although nothing has vanished, vanishing was not the reason.

    Trained by the reference engine alone.

    Source: this project. That the direction survives where the length vanishes is what normalised gradients rest on
    (Hazan, Levy & Shalev-Shwartz 2015), here at every step back instead of once for each update.
    """

    source: ClassVar[str] = "this project; compare Hazan, Levy & Shalev-Shwartz 2015 (normalised gradients)"
