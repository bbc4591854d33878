"""Why gradients explode, in the smallest possible network: one recurrent unit without input.

The unit is h_t = φ(w h_{t−1} + b), run for T steps from h_0; its loss is (h_T − target)². Pascanu, Mikolov & Bengio
2013 write x_t = w σ(x_{t−1}) + b: with h_t = σ(x_t) that is the same unit; their x_0 = 0.5 and target 0.7 (section
2.3, Figure 6) are the defaults here. Everything is a closed form or a recursion in float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from rnnstudy.spec import SpecError

__all__ = ["Descent", "FixedPoints", "Unit", "descend", "fixed_points", "saddle_nodes"]

Array = npt.NDArray[np.float64]
Activation = Literal["sigmoid", "tanh"]


@dataclass(frozen=True)
class _Squashing:
    """φ, its inverse, φ′ as a function of h = φ(a), where φ′ is largest, and the ends of its range."""

    value: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    largest_slope: float
    low: float
    high: float


def _sigmoid(a: Array) -> Array:
    # The form by tanh never overflows.
    return 0.5 * (1 + np.tanh(0.5 * a))


_SQUASHING: Mapping[Activation, _Squashing] = {
    "sigmoid": _Squashing(_sigmoid, lambda h: np.log(h) - np.log1p(-h), lambda h: h * (1 - h), 0.25, 0.0, 1.0),
    "tanh": _Squashing(np.tanh, np.arctanh, lambda h: 1 - h * h, 1.0, -1.0, 1.0),
}

PASCANU_START = float(_sigmoid(np.array(0.5)))
"""h_0 = σ(0.5), from x_0 = 0.5."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One recurrent unit, h_t = φ(w h_{t−1} + b), and its target after `steps` steps.

    Attributes:
        steps: T.
        start: h_0.
        target: the wanted h_T; the loss is (h_T − target)².
        activation: φ.
    """

    steps: int = 50
    start: float = PASCANU_START
    target: float = 0.7
    activation: Activation = "sigmoid"

    def __post_init__(self) -> None:
        squashing = _SQUASHING.get(self.activation)
        if squashing is None:
            raise SpecError(f"Unit.activation is {self.activation!r}; it takes sigmoid or tanh")
        if self.steps < 1:
            raise SpecError(f"Unit.steps is {self.steps}; it takes at least 1")
        if not squashing.low < self.start < squashing.high:
            raise SpecError(f"Unit.start is {self.start:g}; {self.activation} stays between "
                            f"{squashing.low:g} and {squashing.high:g}")  # fmt: skip

    def end(self, w: ArrayLike, b: ArrayLike) -> Array:
        """h_T for every pair of `w` and `b`, broadcast."""
        return self._run(w, b)[0]

    def loss(self, w: ArrayLike, b: ArrayLike) -> Array:
        """(h_T − target)² for every pair of `w` and `b`, broadcast."""
        return np.square(self.end(w, b) - self.target)

    def gradient(self, w: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
        """(∂L/∂w, ∂L/∂b), by ∂h_t/∂θ = φ′_t (w ∂h_{t−1}/∂θ + ∂⁺a_t/∂θ), with ∂⁺a_t/∂w = h_{t−1} and ∂⁺a_t/∂b = 1."""
        end, by_w, by_b = self._run(w, b)
        outer = 2 * (end - self.target)
        return outer * by_w, outer * by_b

    def cliff(self, w: ArrayLike) -> Array:
        """The bias at which h_0 is a fixed point, b = φ⁻¹(h_0) − w h_0.

        Where that fixed point is unstable (w φ′ > 1 there) it separates the starting values that rise to the upper
        stable state from those that fall to the lower one. This straight line in the plane of (w, b) is the cliff; on
        it ∂h_T/∂b = φ′ (λ^T − 1)/(λ − 1), with λ = w φ′, grows exponentially with T. NaN for smaller w: no cliff.
        """
        w = np.asarray(w, dtype=np.float64)
        squashing = _SQUASHING[self.activation]
        start = np.asarray(self.start)
        border = squashing.inverse(start) - w * start
        return np.where(w * squashing.slope(start) > 1, border, np.nan)

    def _run(self, w: ArrayLike, b: ArrayLike) -> tuple[Array, Array, Array]:
        """h_T, ∂h_T/∂w and ∂h_T/∂b."""
        w, b = np.broadcast_arrays(np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64))
        squashing = _SQUASHING[self.activation]
        h = np.full(w.shape, self.start)
        by_w, by_b = np.zeros(w.shape), np.zeros(w.shape)
        for _ in range(self.steps):
            by_w, by_b = w * by_w + h, w * by_b + 1
            h = squashing.value(w * h + b)
            slope = squashing.slope(h)
            by_w, by_b = slope * by_w, slope * by_b
        return h, by_w, by_b


@dataclass(frozen=True)
class Descent:
    """Paths of gradient descent over (w, b): their points before each update and after the last one.

    Attributes:
        w, b: the points, (update + 1, *starts).
        loss: at each point.
        gradient_norm: ‖(∂L/∂w, ∂L/∂b)‖ at each point, before clipping.
    """

    w: Array
    b: Array
    loss: Array
    gradient_norm: Array


def descend(
    unit: Unit, w: ArrayLike, b: ArrayLike, *, learning_rate: float, updates: int, threshold: float | None = None
) -> Descent:
    """Plain gradient descent on the unit's loss from one starting point (w, b), or from many at once.

    With a `threshold`, the gradient is rescaled to that norm where it is longer (Pascanu et al. 2013, algorithm 1).
    """
    w, b = np.broadcast_arrays(np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64))
    moments = []
    for _ in range(updates + 1):
        by_w, by_b = unit.gradient(w, b)
        norm = np.hypot(by_w, by_b)
        moments.append((w, b, unit.loss(w, b), norm))
        factor = 1.0 if threshold is None else threshold / np.maximum(norm, threshold)
        w, b = w - learning_rate * factor * by_w, b - learning_rate * factor * by_b
    return Descent(*(np.stack(parts) for parts in zip(*moments, strict=True)))


@dataclass(frozen=True)
class FixedPoints:
    """Fixed points h = φ(w h + b) for one w: the curve (b, h), in rising order of h.

    Attributes:
        h: the state.
        b: the bias for which it is a fixed point, b = φ⁻¹(h) − w h.
        stable: whether the unit returns to it after a small disturbance: |w φ′(w h + b)| < 1.
    """

    h: Array
    b: Array
    stable: npt.NDArray[np.bool_]


def fixed_points(w: float, *, activation: Activation = "sigmoid", points: int = 2001) -> FixedPoints:
    """The curve of all fixed points of h = φ(w h + b), for one `w`. No equation is solved: b follows from h."""
    squashing = _SQUASHING[activation]
    # Evenly spaced in the pre-activation, so that the flat ends are resolved as well as the middle.
    h = squashing.value(np.linspace(-8.0, 8.0, points) / (1.0 if activation == "sigmoid" else 2.0))
    return FixedPoints(h, squashing.inverse(h) - w * h, np.abs(w * squashing.slope(h)) < 1)


def saddle_nodes(w: float, *, activation: Activation = "sigmoid") -> tuple[tuple[float, float], ...]:
    """The points (b, h), lower h first, where a stable and an unstable fixed point meet and vanish; none for small w.

    There w φ′ = 1. For the sigmoid h (1 − h) = 1/w, so h = (1 ± √(1 − 4/w))/2, for w > 4; for tanh h = ±√(1 − 1/w),
    for w > 1; and b = φ⁻¹(h) − w h. Between the two biases the unit has two stable states, outside them one.
    """
    squashing = _SQUASHING[activation]
    if w * squashing.largest_slope <= 1:
        return ()
    if activation == "sigmoid":
        states = (1 + np.array([-1.0, 1.0]) * np.sqrt(1 - 4 / w)) / 2
    else:
        states = np.array([-1.0, 1.0]) * np.sqrt(1 - 1 / w)
    biases = squashing.inverse(states) - w * states
    return tuple((float(b), float(h)) for b, h in zip(biases, states, strict=True))
