"""The contract of gated linear recurrences: a state that each step multiplies unit by unit."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.cell import Cell, Draw, Observe, Parameters, States


class DiagonalCell(Cell):
    """A recurrence that is linear in its state and diagonal, with coefficients that depend on the input alone.

        s_t = a_t ⊙ s_{t-1} + b_t,   h_t = r(s_t, x_t),      s_0 = 0,   a_t and b_t functions of x_t

    A cell whose output is s itself has the one state h; the others have two states, s first. The Jacobian of the state
    is diag(a_t), so that ∂s_T/∂s_t = diag(a_T ⊙ … ⊙ a_{t+1}), and the gradient through time is a scan as the state is:
    dL/ds_t = ∂⁺L/∂s_t + ā_{t+1} ⊙ dL/ds_{t+1}. The scan engine runs every such cell.

    A complex state is laid out as all real parts, then all imaginary parts; so are its a_t and b_t.
    """

    complex_state: ClassVar[bool] = False

    @abstractmethod
    def coefficients(
        self, parameters: Parameters, projected: Float[Tensor, "replica rows gates"]
    ) -> tuple[Float[Tensor, "replica rows_or_one units"], Float[Tensor, "replica rows units"]]:
        """a_t and b_t of every row; a_t has one row where it is the same for all."""

    def read(
        self,
        parameters: Parameters,
        projected: Float[Tensor, "replica rows gates"],
        state: Float[Tensor, "replica rows units"],
    ) -> Float[Tensor, "replica rows width"]:
        """h_t from s_t, for a cell with two states; row by row."""
        raise NotImplementedError(f"{type(self).__name__} has the states {self.states} and must say how h is read")

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        a, b = self.coefficients(parameters, projected)
        name = self.states[0]
        after = observe(name, self.product(a, state[name]) + b)
        if len(self.states) == 1:
            return {name: after}
        return {name: after, "h": observe("h", self.read(parameters, projected, after))}

    def product(self, a: Tensor, s: Tensor) -> Tensor:
        """a ⊙ s, of complex numbers where the state is complex."""
        if not self.complex_state:
            return a * s
        (a_re, a_im), (s_re, s_im) = a.chunk(2, dim=-1), s.chunk(2, dim=-1)
        return torch.cat([a_re * s_re - a_im * s_im, a_re * s_im + a_im * s_re], dim=-1)


def polar(log_modulus: Tensor, angle: Tensor) -> Tensor:
    """exp(log_modulus + i angle), real parts first."""
    modulus = log_modulus.exp()
    return torch.cat([modulus * angle.cos(), modulus * angle.sin()], dim=-1)


def ring(lowest: float, highest: float) -> Draw:
    """log |λ| for λ uniform in the ring `lowest` ≤ |λ| ≤ `highest` of the complex plane: |λ|² is uniform.

    Source: Orvieto et al. 2023, section 3 (code: NicolasZucchet/minimal-LRU).
    """

    def draw(shape: tuple[int, ...], generator: torch.Generator, drawn: object) -> Tensor:
        square = lowest**2 + (highest**2 - lowest**2) * torch.rand(shape, generator=generator)
        # Not exactly 0, whose logarithm is not finite, and not exactly 1, whose own logarithm is 0.
        return 0.5 * square.clamp(1e-12, math.nextafter(1.0, 0.0)).double().log().clamp(max=-1e-8).float()

    return draw
