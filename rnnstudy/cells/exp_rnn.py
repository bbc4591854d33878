"""The orthogonal network: a recurrent matrix that is a rotation whatever its parameters are."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnstudy.cells.cell import Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import normal, uniform


class ExpRNN(Cell):
    """The orthogonal network: W is a rotation, made from a skew-symmetric matrix without constraints on its numbers.

    With A = U − Uᵀ, and U the part of the parameter W_hh above its diagonal (the rest of it is unused):

        h_t = modReLU(x_t W_xh + h_{t-1} W),      modReLU(a) = sign(a) max(|a| + b_h, 0),      h_0 = 0
        W = exp(A)   (`map` "exponential")   or   W = (I + A)⁻¹ (I − A)   (`map` "cayley")

    W Wᵀ = I, so that only modReLU changes the norm of a gradient: ∂h_t/∂h_{t-1} = W diag(1 where the unit is active, 0
    elsewhere). With b_h = 0 modReLU is the identity, and ‖dL/dh_t‖ is the same at every lag. W is computed once in a
    pass over time. Gradients of W_hh are those of the parameter, not of W.

    Published initial weights: U is zero but for the entries beside the diagonal in 2 × 2 blocks, so that W turns pairs
    of units: `angles` "henaff" draws the entry from U(−π, π), the angle of the exponential map; "cayley" is
    −tan(v/2) with v from U(0, π/2), whose angle under the Cayley map is v. W_xh from N(0, 2/features), b_h from
    U(−0.01, 0.01).
    """

    source: ClassVar[str] = (
        "Lezcano-Casado & Martínez-Rubio 2019 (expRNN, code: Lezcano/expRNN); Helfrich et al. 2018 (Cayley map); "
        "Arjovsky, Shah & Bengio 2016 (modReLU)"
    )
    states: ClassVar[tuple[str, ...]] = ("h",)

    map: Literal["exponential", "cayley"] = "exponential"
    angles: Literal["henaff", "cayley"] = "henaff"

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        recurrent = Parameter("recurrent", (self.width, self.width), ("h",))
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)).drawn_by(normal(math.sqrt(2 / features))),
            "W_hh": recurrent.drawn_by(self._draw_blocks),
            "b_h": Parameter("single bias", (self.width,), ("h",)).drawn_by(uniform(-0.01, 0.01)),
        }

    def _draw_blocks(self, shape: tuple[int, ...], generator: torch.Generator, drawn: Mapping[str, Tensor]) -> Tensor:
        draw = torch.rand(self.width // 2, generator=generator)
        entries = math.pi * (2 * draw - 1) if self.angles == "henaff" else -(draw * math.pi / 4).tan()
        found = torch.zeros(shape)
        first = torch.arange(0, self.width - 1, 2)
        found[first, first + 1] = entries
        return found

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """x_t W_xh alone: the bias acts behind the recurrence, on |a|."""
        return torch.bmm(inputs, parameters["W_xh"])

    def prepared(self, parameters: Parameters) -> Parameters:
        """W in the place of W_hh."""
        upper = parameters["W_hh"].triu(1)
        skew = upper - upper.mT
        if self.map == "exponential":
            return {**parameters, "W_hh": _Exponential.apply(skew)}
        identity = torch.eye(self.width, dtype=skew.dtype, device=skew.device)
        return {**parameters, "W_hh": torch.linalg.solve(identity + skew, identity - skew)}

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        a = torch.baddbmm(projected, state["h"], parameters["W_hh"])
        size = (a.abs() + parameters["b_h"].unsqueeze(1)).relu()
        return {"h": observe("h", a.sign() * size)}


class _Exponential(torch.autograd.Function):
    """exp(A) by torch, with a gradient of full accuracy whatever its size.

    torch takes the derivative from the exponential of a block matrix that contains the arriving gradient, and loses the
    digits of A where that gradient is large; the derivative is linear in it, so it is brought to size 1 first.
    """

    @staticmethod
    def forward(ctx: Any, skew: Tensor) -> Tensor:
        ctx.save_for_backward(skew)
        return torch.linalg.matrix_exp(skew)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> Tensor:
        leaf = ctx.saved_tensors[0].detach().requires_grad_()
        largest = arriving.abs().amax((-2, -1), keepdim=True)
        size = torch.where(largest > 0, largest, 1.0)
        with torch.enable_grad():
            [gradient] = torch.autograd.grad(torch.linalg.matrix_exp(leaf), leaf, arriving / size)
        return size * gradient
