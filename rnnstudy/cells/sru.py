"""The simple recurrent unit."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Parameter, Parameters, States
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.elman import ACTIVATIONS

BLOCKS = ("f", "r", "c", "x")


class SRU(DiagonalCell):
    """The simple recurrent unit: a forget gate that depends on the input alone, and a gate past the recurrence.

        f_t = σ(x_t W_xf + b_f),  r_t = σ(x_t W_xr + b_r)
        c_t = f_t ⊙ c_{t-1} + (1 − f_t) ⊙ (x_t W_xc)
        h_t = r_t ⊙ φ(c_t) + (1 − r_t) ⊙ (x_t W_xx),      c_0 = 0

    with φ (`activation`) tanh or linear. This is the form of 2017, whose gates do not read c_{t-1}. Where inputs
    and outputs are equal in number the paper has x_t in place of x_t W_xx. W_xh has the blocks f, r, c, x, and b_h the
    blocks f, r.
    """

    source: ClassVar[str] = "Lei & Zhang 2017 (arXiv 1709.02755, SRU), section 2"
    states: ClassVar[tuple[str, ...]] = ("c", "h")

    activation: Literal["tanh", "linear"] = "tanh"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, 4 * self.width), BLOCKS),
            "b_h": Parameter("single bias", (2 * self.width,), BLOCKS[:2], forget_gate="f"),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The pre-activations of f_t and r_t, x_t W_xc and x_t W_xx side by side."""
        bias = torch.nn.functional.pad(parameters["b_h"], (0, 2 * self.width))
        return torch.baddbmm(bias.unsqueeze(1), inputs, parameters["W_xh"])

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        forget, _, driven, _ = projected.chunk(4, dim=-1)
        kept = forget.sigmoid()
        return kept, (1 - kept) * driven

    def read(self, parameters: Parameters, projected: Tensor, state: Tensor) -> Tensor:
        _, show, _, past = projected.chunk(4, dim=-1)
        return torch.lerp(past, ACTIVATIONS[self.activation](state), show.sigmoid())

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        forget, show, _, _ = projected.chunk(4, dim=-1)
        return {"f": BoundedUnits(forget.sigmoid(), 0.0, 1.0), "r": BoundedUnits(show.sigmoid(), 0.0, 1.0)}
