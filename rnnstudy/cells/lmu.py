"""The Legendre memory unit."""

import functools
import math
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rnnstudy.cells.cell import BoundedUnits, Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.draws import constant, normal, uniform
from rnnstudy.spec import above, at_least


class LMU(Cell):
    """The Legendre memory unit: a linear memory holds the last `window` steps of one signal as Legendre polynomials.

    With d = `order` numbers m of memory and θ = `window` the length of the window in steps:

        u_t = x_t · e_x + h_{t-1} · e_h + m_{t-1} · e_m
        m_t = Ā m_{t-1} + B̄ u_t
        h_t = tanh(x_t W_xh + h_{t-1} W_hh + m_t W_mh),      h_0 = m_0 = 0

    Ā and B̄ are constants: θ dm/dt = A m + B u, held at u_t over a step (zero-order hold), with A_ij = (2i + 1) a_ij,
    a_ij = −1 for i < j and (−1)^{i−j+1} otherwise, B_i = (2i + 1) (−1)^i, i and j from 0 to d − 1. The signal s steps
    ago is about Σ_i P_i(2s/θ − 1) m_i, with P_i the Legendre polynomials. There is no bias.

    Published initial weights: e_x and e_h uniform within ±√(3/n) with n their rows, e_m = 0; W_xh, W_hh and W_mh from
    N(0, 2/(rows + columns)).
    """

    source: ClassVar[str] = "Voelker, Kajić & Eliasmith 2019 (LMU), section 2 (code: abr/neurips2019, lmu.py)"
    states: ClassVar[tuple[str, ...]] = ("m", "h")

    order: Annotated[int, at_least(1)] = 12
    window: Annotated[float, above(0)] = 100.0

    def state_width(self, state: str, outputs: int) -> int:
        return self.order if state == "m" else self.width

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        width, order = self.width, self.order

        def lecun(rows: int):
            return uniform(-math.sqrt(3 / rows), math.sqrt(3 / rows))

        def glorot(rows: int):
            return normal(math.sqrt(2 / (rows + width)))

        return {
            "e_x": Parameter("input", (features, 1), ("u",)).drawn_by(lecun(features)),
            "e_h": Parameter("recurrent", (width, 1), ("u",)).drawn_by(lecun(width)),
            "e_m": Parameter("recurrent", (order, 1), ("u",)).drawn_by(constant(0.0)),
            "W_xh": Parameter("input", (features, width), ("h",)).drawn_by(glorot(features)),
            "W_hh": Parameter("recurrent", (width, width), ("h",)).drawn_by(glorot(width)),
            "W_mh": Parameter("output", (order, width), ("h",)).drawn_by(glorot(order)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """x_t · e_x and x_t W_xh side by side."""
        return torch.bmm(inputs, torch.cat([parameters["e_x"], parameters["W_xh"]], dim=-1))

    def prepared(self, parameters: Parameters) -> Parameters:
        """With Āᵀ and B̄ᵀ as `A` and `B`, the same for all replicas."""
        like = parameters["W_hh"]
        a, b = (torch.from_numpy(one.T.copy()).to(like) for one in delay_system(self.order, self.window))
        return {**parameters, "A": a.expand(len(like), -1, -1), "B": b}

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        of_x, driven = projected.split([1, self.width], dim=-1)
        u = torch.baddbmm(torch.baddbmm(of_x, state["h"], parameters["e_h"]), state["m"], parameters["e_m"])
        m = observe("m", torch.baddbmm(u * parameters["B"], state["m"], parameters["A"]))
        h = torch.baddbmm(torch.baddbmm(driven, state["h"], parameters["W_hh"]), m, parameters["W_mh"])
        return {"m": m, "h": observe("h", h.tanh())}

    def bounded(
        self, parameters: Parameters, projected: Tensor, before: States, after: States
    ) -> dict[str, BoundedUnits]:
        return {"h": BoundedUnits(after["h"], -1.0, 1.0)}


@functools.cache
def delay_system(order: int, window: float) -> tuple[np.ndarray, np.ndarray]:
    """Ā (order, order) and B̄ (order, 1) of the Legendre delay, by zero-order hold over a step; float64."""
    # Here and not above: importing scipy.signal takes longer than importing all the other cells.
    from scipy.signal import cont2discrete

    i, j = np.arange(order)[:, None], np.arange(order)[None, :]
    scale = (2 * i + 1) / window
    a = scale * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = scale * (-1.0) ** i
    found: Any = cont2discrete((a, b, np.eye(order), np.zeros((order, 1))), dt=1.0, method="zoh")
    return found[0], found[1]
