"""Gated linear recurrences: loops by hand, closed forms, initial weights, what probes read of them."""

import logging
import math

import numpy as np
import pytest
import torch
from scipy import stats

from rnnstudy.cells import LRU, RGLRU, S4D, S6, SRU, IndRNN, MinGRU, MinLSTM, Published, PyTorchDefault
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.rg_lru import STEEPEST, bounded_root
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes import LyapunovExponents, RecurrentSpectrum
from rnnstudy.probes.gradient_by_lag import by_lag, recurrence_parameters
from rnnstudy.probes.probe import BackwardPass, Moment
from rnnstudy.spec import SpecError, concrete
from rnnstudy.training.randomness import generator

FEATURES, TIME, BATCH, WIDTH = 3, 9, 2, 5


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(cell, initialisation=None, features=FEATURES, seed=0):
    """Parameters of one replica in float64."""
    values = (initialisation or Published()).draw(cell.parameters(features, 2), cell.width, generator(seed, "x"))
    return {name: value[None].double() for name, value in values.items()}


def unrolled(cell, parameters, inputs, observed=False, engine=None):
    widths = {state: cell.state_width(state, 2) for state in cell.states}
    return (engine or ReferenceEngine()).unroll(cell, parameters, inputs, widths=widths, observed=observed)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def g(a):
    return np.where(a >= 0, a + 0.5, sigmoid(a))


def minimal_gru(cell, p, x, s):
    z, candidate = np.split(x @ p["W_xh"] + p["b_h"], 2)
    candidate = g(candidate) if cell.candidate == "positive" else candidate
    s = (1 - sigmoid(z)) * s + sigmoid(z) * candidate
    return s, s


def minimal_lstm(cell, p, x, s):
    f, i, candidate = np.split(x @ p["W_xh"] + p["b_h"], 3)
    f, i = sigmoid(f), sigmoid(i)
    s = f / (f + i) * s + i / (f + i) * (g(candidate) if cell.candidate == "positive" else candidate)
    return s, s


def linear_unit(cell, p, x, s):
    width = cell.width
    lam = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    gamma = {
        "learned": lambda: np.exp(p["log_gamma"]),
        "exact": lambda: np.sqrt(1 - abs(lam) ** 2),
        "none": lambda: 1.0,
    }
    b = p["W_B"][:, :width] + 1j * p["W_B"][:, width:]
    c = p["W_C"][:width] - 1j * p["W_C"][width:]
    s = lam * s + gamma[cell.normalisation]() * (x @ b)
    return s, (s @ c).real + x @ p["W_D"]


def real_gated(cell, p, x, s):
    u = x @ p["W_xu"]
    r, i = (sigmoid(part) for part in np.split(u @ p["W_ug"] + p["b_g"], 2))
    a = np.exp(-cell.sharpness * r * np.log1p(np.exp(p["Lambda"])))
    s = a * s + np.sqrt(1 - a**2) * i * u
    return s, s


def state_space(cell, p, x, s):
    shape = (cell.width, cell.state_size)
    a = (-np.exp(p["log_A"]) + 1j * p["A_im"]).reshape(shape)
    dt, u = np.exp(p["log_dt"])[:, None], x @ p["W_xu"]
    c_re, c_im = np.split(p["C"], 2)
    s = np.exp(dt * a) * s + (np.exp(dt * a) - 1) / a * u[:, None]
    return s, 2 * ((c_re + 1j * c_im).reshape(shape) * s).sum(1).real + p["D"] * u


def selective(cell, p, x, s):
    u = x @ p["W_xu"]
    low, b, c = np.split(u @ p["W_u"], [cell.rank, cell.rank + cell.state_size])
    dt = np.log1p(np.exp(low @ p["W_dt"] + p["b_dt"]))[:, None]
    s = np.exp(dt * -np.exp(p["log_A"]).reshape(cell.width, -1)) * s + dt * u[:, None] * b
    return s, s @ c + p["D"] * u


def simple(cell, p, x, s):
    f, r, driven, past = np.split(x @ p["W_xh"] + np.pad(p["b_h"], (0, 2 * cell.width)), 4)
    s = sigmoid(f) * s + (1 - sigmoid(f)) * driven
    shown = np.tanh(s) if cell.activation == "tanh" else s
    return s, sigmoid(r) * shown + (1 - sigmoid(r)) * past


BY_HAND = [
    *((MinGRU(width=WIDTH, candidate=one), minimal_gru) for one in ("positive", "linear")),
    *((MinLSTM(width=WIDTH, candidate=one), minimal_lstm) for one in ("positive", "linear")),
    *((LRU(width=WIDTH, normalisation=one), linear_unit) for one in ("learned", "exact", "none")),
    (RGLRU(width=WIDTH), real_gated),
    *((S4D(width=WIDTH, state_size=3, spectrum=one), state_space) for one in ("lin", "inv")),
    (S6(width=20, state_size=3), selective),
    *((SRU(width=WIDTH, activation=one), simple) for one in ("tanh", "linear")),
]
CELLS = [cell for cell, _ in BY_HAND]


def test_every_diagonal_cell_has_a_loop_by_hand():
    found = {cls for cls in concrete(DiagonalCell) if cls.__module__.startswith("rnnstudy.")}
    assert found == {type(cell) for cell in CELLS}


@pytest.mark.parametrize(("cell", "step"), BY_HAND, ids=lambda one: repr(one) if not callable(one) else one.__name__)
def test_outputs_equal_a_loop_written_by_hand(cell, step):
    parameters, inputs = drawn(cell), noise(TIME, 1, BATCH, FEATURES)
    outputs = unrolled(cell, parameters, inputs).outputs
    own = {name: value[0].numpy() for name, value in parameters.items()}
    for b in range(BATCH):
        state = np.zeros((cell.width, cell.state_size)) if isinstance(cell, S4D | S6) else np.zeros(cell.width)
        for t in range(TIME):
            state, output = step(cell, own, inputs[t, 0, b].numpy(), state)
            np.testing.assert_allclose(outputs[t, 0, b].numpy(), output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_the_jacobian_is_the_product_of_the_factors(cell):
    """∂s_T/∂s_1 = diag(a_T ⊙ … ⊙ a_2), of complex numbers as 2 × 2 blocks, from the scaled engine's Jacobians."""
    parameters = {n: v.requires_grad_() for n, v in drawn(cell).items()}
    inputs = noise(TIME, 1, BATCH, FEATURES)
    trajectory = unrolled(cell, parameters, inputs, True, ScaledEngine())
    trajectory.outputs[-1].sum().backward()
    units = cell.state_width(cell.states[0], 2)
    product = torch.eye(units, dtype=torch.float64).expand(1, BATCH, -1, -1)
    for jacobian in list(trajectory.jacobians())[1:]:
        product = jacobian[..., :units, :units] @ product
        assert not jacobian[..., units:].any(), "no later step reads the output"
    with torch.no_grad():
        rows = inputs.transpose(0, 1).reshape(1, -1, FEATURES)
        a, b = cell.coefficients(parameters, cell.project(parameters, rows))
        a = a.expand_as(b).view(TIME, BATCH, units)[1:]
    if cell.complex_state:
        factor = torch.complex(*a.chunk(2, dim=-1)).prod(0)
        expected = torch.cat(
            [
                torch.cat([factor.real.diag_embed(), -factor.imag.diag_embed()], -1),
                torch.cat([factor.imag.diag_embed(), factor.real.diag_embed()], -1),
            ],
            -2,
        )
    else:
        expected = a.prod(0).diag_embed()
    torch.testing.assert_close(product[0], expected, rtol=1e-10, atol=1e-15)


def test_a_min_lstm_is_right_where_both_gates_are_closed():
    """f/(f + i) = 1/(1 + e^(a_i − a_f)) for gates of e^−200."""
    cell = MinLSTM(width=1, candidate="linear")
    parameters = {"W_xh": torch.zeros(1, 1, 3), "b_h": torch.tensor([[-200.0, -201.0, 4.0]])}
    a, b = cell.coefficients(parameters, cell.project(parameters, torch.zeros(1, 1, 1)))
    assert a.item() == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-5)
    assert b.item() == pytest.approx(4 / (1 + math.exp(1)), rel=1e-5)


def test_small_steps_of_a_state_space_model_keep_their_digits():
    """b̄ = (ā − 1)/A tends to Δ: in float32 the difference ā − 1 alone would keep two digits of it."""
    cell = S4D(width=1, state_size=2)
    parameters = {n: v.float() for n, v in drawn(cell, features=1).items()}
    parameters["log_dt"].fill_(math.log(1e-5))
    parameters["W_xu"].fill_(1.0)
    _, b = cell.coefficients(parameters, torch.ones(1, 1, 1))
    found = torch.complex(*b.flatten().chunk(2)).numpy()
    exact = np.array([(np.exp(1e-5 * a) - 1) / a for a in (-0.5 + 0j, -0.5 + 1j * np.pi)])
    assert (abs(found - exact) < 1e-6 * abs(exact)).all()


def test_the_slope_of_the_root_is_bounded():
    square = torch.tensor([0.0, 1e-9, 0.25, 0.81], dtype=torch.float64, requires_grad=True)
    root = bounded_root(square)
    torch.testing.assert_close(root, square.sqrt())
    root.sum().backward()
    np.testing.assert_allclose(square.grad.numpy(), [STEEPEST, STEEPEST, 1.0, 0.5 / 0.9], rtol=1e-12)


def test_normalisation_keeps_the_size_of_the_state():
    """White inputs of variance 1: E|s|² = γ² |x B|² / (1 − |λ|²), whatever |λ| (Orvieto et al. 2023, section 3.4)."""
    cell = LRU(width=8, r_min=0.8, r_max=0.95)
    parameters = drawn(cell, features=1)
    parameters["W_B"] = torch.cat([torch.ones(1, 1, 8), torch.zeros(1, 1, 8)], -1).double()
    states = unrolled(cell, parameters, noise(100, 1, 400, 1), True).values("s")[-1, 0]
    sizes = states.square().mean(0).view(2, 8).sum(0)
    np.testing.assert_allclose(sizes.numpy(), np.ones(8), rtol=0.25)


# Initial weights.


def test_rings_have_uniform_squares():
    def diagonals(cell, rule=None, seed=0):
        of_role = {name: one for name, one in cell.parameters(3, 2).items() if one.role == "diagonal"}
        values = (rule or Published()).draw(of_role, cell.width, generator(seed, "x"))
        return {name: value[None].double() for name, value in values.items()}

    def moduli(cell, rule):
        values = diagonals(cell, rule)
        if isinstance(cell, RGLRU):
            return torch.exp(-cell.sharpness * torch.nn.functional.softplus(values["Lambda"]))[0].numpy()
        return cell.fixed_moduli(values)[0].numpy()

    for cell, low, high in ((LRU(width=3000, r_min=0.3, r_max=0.9), 0.3, 0.9), (RGLRU(width=3000), 0.9, 0.999)):
        for rule in (PyTorchDefault(), Published()):
            squares = moduli(cell, rule) ** 2
            assert stats.kstest(squares, "uniform", args=(low**2, high**2 - low**2)).pvalue > 1e-3
    values = diagonals(LRU(width=3000))
    assert stats.kstest(values["theta"][0].exp().numpy(), "uniform", args=(0, 2 * math.pi)).pvalue > 1e-3
    lam = np.exp(-np.exp(values["nu"][0].numpy()))
    np.testing.assert_allclose(np.exp(values["log_gamma"][0].numpy()), np.sqrt(1 - lam**2), rtol=1e-5)
    many = [diagonals(LRU(width=20_000), seed=seed) for seed in range(5)]
    assert all(value.isfinite().all() for values in many for value in values.values())


def test_state_space_models_begin_as_published():
    lin, inv = (drawn(S4D(width=3, state_size=4, spectrum=one)) for one in ("lin", "inv"))
    assert torch.equal(lin["log_A"], torch.full((1, 12), 0.5).log().double())
    np.testing.assert_allclose(lin["A_im"][0].numpy(), np.pi * np.tile(np.arange(4), 3), rtol=1e-6)
    expected = [8 / np.pi * (8 / (2 * n + 1) - 1) for n in range(4)]
    np.testing.assert_allclose(inv["A_im"][0].numpy(), np.tile(expected, 3), rtol=1e-6)
    steps = drawn(S4D(width=2000, state_size=1))["log_dt"][0].numpy()
    assert stats.kstest(steps, "uniform", args=(math.log(0.001), math.log(100))).pvalue > 1e-3
    mamba = drawn(S6(width=2000, state_size=3))
    np.testing.assert_allclose(mamba["log_A"][0].exp().view(2000, 3)[7].numpy(), [1, 2, 3], rtol=1e-6)
    steps = torch.nn.functional.softplus(mamba["b_dt"])[0].log().numpy()
    assert stats.kstest(steps, "uniform", args=(math.log(0.001), math.log(100))).pvalue > 1e-3


def test_an_impossible_ring_is_refused():
    with pytest.raises(SpecError, match=r"LRU.r_min is 0.9 and r_max is 0.5; r_min must be at most r_max"):
        LRU(r_min=0.9, r_max=0.5)
    with pytest.raises(SpecError, match=r"RGLRU.r_max is 1.5; it must be between 0 and 1"):
        RGLRU(r_max=1.5)


# What probes read.


def moment_of(cell, parameters, layers=None):
    side = BackwardPass((), cell.read_states, torch.full((1, BATCH), TIME - 1), layers=layers or ())
    return Moment("initial", 0, parameters, {}, {}, None, lambda _: side, cell)


def test_the_spectrum_of_a_diagonal_is_its_largest_and_its_smallest_modulus():
    for cell, moduli in ((LRU(width=WIDTH), lambda p: (-p["nu"].exp()).exp()), (IndRNN(width=WIDTH), lambda p: p["u"])):
        parameters = drawn(cell)
        readings = {one.name: one.values.item() for one in RecurrentSpectrum().read(moment_of(cell, parameters))}
        assert readings == {
            "summary/recurrent_diagonal_radius_initial": pytest.approx(moduli(parameters).max().item()),
            "summary/recurrent_diagonal_least_initial": pytest.approx(moduli(parameters).min().item()),
        }


def test_a_spectrum_that_depends_on_the_input_is_told_and_not_silently_missing(caplog):
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        for _ in range(2):
            assert RecurrentSpectrum().read(moment_of(MinGRU(width=7), drawn(MinGRU(width=7)))) == []
    assert len(caplog.messages) == 1
    assert "RecurrentSpectrum reads nothing of MinGRU, whose factors depend on its input" in caplog.messages[0]


def test_lyapunov_exponents_are_the_means_of_the_factors_logarithms():
    cell = MinGRU(width=WIDTH)
    parameters = {n: v.requires_grad_() for n, v in drawn(cell).items()}
    inputs = noise(TIME, 1, BATCH, FEATURES)
    trajectory = unrolled(cell, parameters, inputs, True, ScaledEngine())
    trajectory.outputs[-1].sum().backward()
    [readings, _] = LyapunovExponents().read(moment_of(cell, parameters, [trajectory]))
    with torch.no_grad():
        a, _ = cell.coefficients(parameters, cell.project(parameters, inputs.transpose(0, 1).reshape(1, -1, FEATURES)))
        means = a.view(TIME, BATCH, WIDTH).log().mean(0).sort(dim=-1, descending=True).values
    torch.testing.assert_close(readings.values[0, 2], means.median(0).values * 0 + means.mean(0), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (LRU(width=WIDTH), ["nu", "theta", "log_gamma"]),
        (MinGRU(width=WIDTH), ["W_xh"]),
        (S6(width=WIDTH, state_size=2), ["b_dt", "log_A"]),
        (IndRNN(width=WIDTH), ["u"]),
    ],
    ids=repr,
)
def test_contributions_by_lag_add_up_to_the_gradient(cell, names):
    assert recurrence_parameters(cell) == names
    parameters = {n: v.requires_grad_() for n, v in drawn(cell).items()}
    trajectory = unrolled(cell, parameters, noise(TIME, 1, BATCH, FEATURES), True, ScaledEngine())
    trajectory.outputs[-1].square().sum().backward()
    side = BackwardPass((), cell.states, torch.full((1, BATCH), TIME - 1), layers=[trajectory])
    found = by_lag(trajectory, side)
    assert list(found) == names
    for name, (log_norms, cosines) in found.items():
        assert log_norms[:3].isfinite().all(), name
        assert cosines[-1].item() == pytest.approx(1.0, abs=1e-9)
