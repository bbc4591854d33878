"""Pascanu's regulariser Omega, which asks the gradient to keep its norm on its way back."""

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
        live: share of the (t, b) whose gradient is large enough to count.
        gradient: ∂⁺Omega/∂W_hh, with δ and h held constant.
    """

    value: Float[Tensor, " replica"]
    live: Float[Tensor, " replica"]
    gradient: Float[Tensor, "replica width width"]


class Omega(Spec):
    """`strength` · Omega is added to the objective: a gradient that changes its norm on its way back costs.

        Omega = Σ_t mean_b (n_{t,b}/d_{t,b} − 1)² / Σ_t mean_b [d_{t,b} ≥ `bound`]

    With C the mean loss of the batch and δ_{t,b} = dC/dh_{t,b}, the total derivative, for t = 1..T:

        n_{t,b} = ‖(δ_{t,b} ⊙ φ′(h_{t,b})) W_hhᵀ‖²,  d_{t,b} = ‖δ_{t,b}‖²

    Norms are squared, as in equation 10 and the code (equation 9 has them plain). Terms with d below `bound` are 0;
    where none counts, so is Omega. Only the direct derivative ∂⁺Omega/∂W_hh is taken, δ and h are constants; it is
    added to dC/dW_hh before clipping. δ is that of the mean over the batch, so that d is 1/batch² of a
    single sequence's. Each layer has its own term. Served for the Elman cell alone, for which it is defined.

    `strength` is alpha: 4 in the paper, 2 in the code, with threshold 1.

    Source: Pascanu, Mikolov & Bengio 2013, equations 9 and 10, section 3.3 (code: RNN.py).
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, equations 9 and 10 (code: RNN.py)"

    strength: Annotated[float, at_least(0), PER_REPLICA]
    bound: Annotated[float, above(0)] = 1e-20

    def suits(self, cell: Cell) -> None:
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
        """Omega of one layer from h_t and δ_t for t = 1..T. Raises `SpecError` for a cell it is not defined for."""
        self.suits(cell)
        assert isinstance(cell, Elman)
        weights = w_hh.detach().requires_grad_()
        with torch.enable_grad():
            carried = (delta * cell.slope(h)).detach() @ weights.mT
            before = delta.detach().square().sum(-1)
            counts = before >= self.bound
            ratio = carried.square().sum(-1) / torch.where(counts, before, 1.0)
            terms = torch.where(counts, (ratio - 1).square(), 0.0)
            live = counts.to(terms.dtype).mean((0, 2))
            value = terms.mean((0, 2)) / torch.where(live > 0, live, 1.0)
            [gradient] = torch.autograd.grad(value.sum(), [weights])
        return OmegaTerm(value.detach(), live, gradient)
