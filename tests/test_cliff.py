"""The single unit: its gradient, its fixed points and its cliff are what closed forms and autograd say."""

import numpy as np
import pytest
import torch

from rnnstudy.figures.single_unit import PASCANU_START, Unit, descend, fixed_points, saddle_nodes
from rnnstudy.spec import SpecError


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_the_gradient_is_that_of_autograd(activation: str) -> None:
    unit = Unit(steps=12, activation=activation, start=0.3)
    rng = np.random.default_rng(0)
    w, b = rng.uniform(-2, 6, 20), rng.uniform(-3, 3, 20)
    leaves = [torch.tensor(values, requires_grad=True) for values in (w, b)]
    h = torch.full((20,), 0.3, dtype=torch.float64)
    for _ in range(12):
        h = getattr(torch, activation)(leaves[0] * h + leaves[1])
    loss = (h - 0.7).square()
    loss.sum().backward()
    np.testing.assert_allclose(unit.loss(w, b), loss.detach().numpy(), rtol=1e-12)
    for found, leaf in zip(unit.gradient(w, b), leaves, strict=True):
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_it_is_the_unit_of_pascanu() -> None:
    w, b, x = 5.2, -2.4, 0.5
    for _ in range(50):
        x = w / (1 + np.exp(-x)) + b
    assert Unit().loss(w, b) == pytest.approx((1 / (1 + np.exp(-x)) - 0.7) ** 2, rel=1e-12)


def test_on_the_cliff_the_state_stays_and_its_derivative_is_a_geometric_sum() -> None:
    for w, steps in ((5.0, 10), (6.0, 40)):
        unit = Unit(steps=steps)
        b = float(unit.cliff(w))
        slope = PASCANU_START * (1 - PASCANU_START)
        factor = w * slope
        assert unit.end(w, b) == pytest.approx(PASCANU_START, abs=1e-8)
        _, by_b = unit.gradient(w, b)
        expected = 2 * (PASCANU_START - 0.7) * slope * (factor**steps - 1) / (factor - 1)
        # Rounding is a disturbance of the state, and grows like everything else.
        assert by_b == pytest.approx(expected, rel=1e-15 * factor**steps * 10 + 1e-9)


def test_the_cliff_parts_what_rises_from_what_falls() -> None:
    unit = Unit(steps=400)
    for w in (4.6, 5.5, 7.0):
        b = float(unit.cliff(w))
        below, above = unit.end(w, [b - 1e-6, b + 1e-6])
        assert below < PASCANU_START < above
        assert above - below > 0.3
    assert np.isnan(unit.cliff(1 / (PASCANU_START * (1 - PASCANU_START)) - 1e-9))


@pytest.mark.parametrize(("activation", "w"), [("sigmoid", 6.0), ("sigmoid", -3.0), ("tanh", 2.5), ("tanh", 0.8)])
def test_fixed_points_are_fixed_and_stable_where_the_unit_returns(activation: str, w: float) -> None:
    found = fixed_points(w, activation=activation, points=201)
    for h, b, stable in zip(found.h, found.b, found.stable, strict=True):
        one = Unit(steps=1, start=float(h), activation=activation)
        assert one.end(w, b) == pytest.approx(h, abs=1e-12)
        if abs(abs(w * _slope(activation, h)) - 1) > 0.05:
            near = h + 1e-6 * (1 if h < 0.5 else -1)
            moved = Unit(steps=3, start=float(near), activation=activation).end(w, b)
            assert (abs(moved - h) < 1e-6) == stable


def _slope(activation: str, h: float) -> float:
    return h * (1 - h) if activation == "sigmoid" else 1 - h * h


@pytest.mark.parametrize(("activation", "w"), [("sigmoid", 6.0), ("sigmoid", 4.5), ("tanh", 1.5), ("tanh", 3.0)])
def test_saddle_nodes_are_the_turning_points_of_the_curve(activation: str, w: float) -> None:
    curve = fixed_points(w, activation=activation, points=200_001)
    turns = np.flatnonzero(np.diff(np.sign(np.diff(curve.b)))) + 1
    found = saddle_nodes(w, activation=activation)
    assert len(turns) == len(found) == 2
    for place, (b, h) in zip(turns, found, strict=True):
        assert curve.h[place] == pytest.approx(h, abs=1e-3)
        assert curve.b[place] == pytest.approx(b, abs=1e-6)
    assert np.all(np.diff(curve.stable.astype(int)).nonzero()[0].size == 2)


def test_weak_units_have_one_memory() -> None:
    assert saddle_nodes(4.0) == ()
    assert saddle_nodes(1.0, activation="tanh") == ()
    # Pascanu's w = 5: h (1 − h) = 1/5.
    (b, h), _ = saddle_nodes(5.0)
    assert h == pytest.approx((1 - np.sqrt(0.2)) / 2)
    assert b == pytest.approx(np.log(h / (1 - h)) - 5 * h)


def test_descent_takes_the_steps_it_says_and_clips_by_norm() -> None:
    unit = Unit()
    for threshold in (None, 0.05):
        path = descend(unit, 6.0, -2.8, learning_rate=0.3, updates=5, threshold=threshold)
        assert path.w.shape == (6,)
        for step in range(5):
            gradient = np.array(unit.gradient(path.w[step], path.b[step]))
            norm = np.linalg.norm(gradient)
            assert path.gradient_norm[step] == pytest.approx(norm)
            if threshold is not None:
                gradient *= min(1.0, threshold / norm)
            moved = np.array([path.w[step + 1] - path.w[step], path.b[step + 1] - path.b[step]])
            np.testing.assert_allclose(moved, -0.3 * gradient, rtol=1e-9)
        assert path.loss[3] == pytest.approx(unit.loss(path.w[3], path.b[3]))


def test_many_descents_are_the_single_ones() -> None:
    unit = Unit(steps=20)
    starts = np.array([[6.0, -2.8], [5.0, -2.2], [4.6, -3.0]])
    together = descend(unit, starts[:, 0], starts[:, 1], learning_rate=0.1, updates=30, threshold=1.0)
    for place, (w, b) in enumerate(starts):
        alone = descend(unit, w, b, learning_rate=0.1, updates=30, threshold=1.0)
        np.testing.assert_array_equal(together.w[:, place], alone.w)
        np.testing.assert_array_equal(together.loss[:, place], alone.loss)


def test_the_unclipped_step_from_the_wall_is_longer_than_any_clipped_one() -> None:
    unit = Unit()
    free, clipped = (descend(unit, 6.0, -2.8, learning_rate=0.3, updates=300, threshold=limit) for limit in (None, 1.0))
    longest = [np.hypot(np.diff(path.w), np.diff(path.b)).max() for path in (free, clipped)]
    assert longest[1] <= 0.3 * (1 + 1e-9)
    assert longest[0] > 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "relu"}, "it takes sigmoid or tanh"),
        ({"steps": 0}, "it takes at least 1"),
        ({"start": 1.0}, "stays between 0 and 1"),
    ],
)
def test_an_impossible_unit_is_refused_in_one_line(fields: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Unit(**fields)
