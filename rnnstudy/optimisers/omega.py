"""The regulariser Omega of Pascanu et al., which penalises a gradient that changes its norm on its way back in time."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.spec import PER_REPLICA, Spec, SpecError, above, at_least


@dataclass(frozen=True)
class OmegaTerm:
    """Omega of one layer, for every replica.

    Attributes:
        value: Omega.
        live: share of the (t, b) whose gradient reaches `bound`.
        gradient: ∂⁺Omega/∂W_hh, with δ and h held constant.
    """

    value: Float[Tensor, " replica"]
    live: Float[Tensor, " replica"]
    gradient: Float[Tensor, "replica width width"]


class Omega(Spec):
    """Adds `strength` · Omega to the objective, a penalty on gradients that change their norm on the way back in time.

        Omega = Σ_t mean_b (n_{t,b}/d_{t,b} − 1)² / Σ_t mean_b [d_{t,b} ≥ `bound`]

    With C the mean loss of the batch and δ_{t,b} = dC/dh_{t,b}, the total derivative, for t = 1..T:

        n_{t,b} = ‖(δ_{t,b} ⊙ φ′(h_{t,b})) W_hhᵀ‖²,  d_{t,b} = ‖δ_{t,b}‖²

    Norms are squared, as in equation 10 and the code (equation 9 does not square them). Terms with d below `bound` are
    0; if there are no others, Omega is 0. Only the direct derivative ∂⁺Omega/∂W_hh is used, with δ and h constant; it
    is added to dC/dW_hh before clipping. δ belongs to the mean over the batch, so d is 1/batch² of the value for a
    single sequence. Each layer has its own term. Omega is defined for the Elman cell only.

    `strength` is alpha: 4 in the paper, 2 in the code, with clipping threshold 1.

    Source: Pascanu, Mikolov & Bengio 2013, equations 9 and 10, section 3.3 (code: RNN.py).
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, equations 9 and 10 (code: RNN.py)"

    strength: Annotated[float, at_least(0), PER_REPLICA]
    bound: Annotated[float, above(0)] = 1e-20

    def check_compatible(self, cell: Cell) -> None:
        """Raises `SpecError` when Omega is not defined for the cell."""
        if not isinstance(cell, Elman):
            raise SpecError(f"Omega is defined for the Elman cell, not for {type(cell).__name__}; leave omega out")

    def term(
        self,
        cell: Cell,
        w_hh: Float[Tensor, "replica width width"],
        h: Float[Tensor, "time replica batch width"],
        delta: Float[Tensor, "time replica batch width"],
    ) -> OmegaTerm:
        """Omega of one layer from h_t and δ_t for t = 1..T. Raises `SpecError` for other cells than Elman."""
        self.check_compatible(cell)
        assert isinstance(cell, Elman)
        weights = w_hh.detach().requires_grad_()
        with torch.enable_grad():
            step_back = (delta * cell.slope(h)).detach() @ weights.mT
            squared_norm = delta.detach().square().sum(-1)
            counted = squared_norm >= self.bound
            ratio = step_back.square().sum(-1) / torch.where(counted, squared_norm, 1.0)
            terms = torch.where(counted, (ratio - 1).square(), 0.0)
            live = counted.to(terms.dtype).mean((0, 2))
            value = terms.mean((0, 2)) / torch.where(live > 0, live, 1.0)
            [gradient] = torch.autograd.grad(value.sum(), [weights])
        return OmegaTerm(value.detach(), live, gradient)
