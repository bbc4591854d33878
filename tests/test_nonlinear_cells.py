"""The nonlinear recurrences since 1997, each against a loop written by hand from its equations, or a closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rnnstudy.cells import (
    CIFG,
    JANET,
    LEM,
    MGU,
    SLSTM,
    AntisymmetricRNN,
    Chrono,
    CoRNN,
    Elman,
    IndRNN,
    PeepholeLSTM,
    Published,
    PyTorchDefault,
    SpectralRadius,
)
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator

FEATURES, TIME, BATCH, WIDTH = 3, 9, 4, 5


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(cell, initialisation=None, scale=1.0, seed=0, features=FEATURES):
    """Parameters of one replica in float64, without those of the readout."""
    values = (initialisation or PyTorchDefault()).draw(cell.parameters(features, 2), cell.width, generator(seed, "x"))
    return {name: scale * value[None].double() for name, value in values.items()}


def unrolled(cell, parameters, inputs, observed=False, steps=None):
    widths = {state: cell.state_width(state, 2) for state in cell.states}
    return ReferenceEngine().unroll(cell, parameters, inputs, widths=widths, observed=observed, steps=steps)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def blocks(vector, count):
    return np.split(vector, count)


def peephole(cell, p, x, s):
    f, i, o, g = blocks(x @ p["W_xh"] + s["h"] @ p["W_hh"] + p["b_h"], 4)
    p_f, p_i, p_o = blocks(p["p"], 3)
    c = sigmoid(f + p_f * s["c"]) * s["c"] + sigmoid(i + p_i * s["c"]) * np.tanh(g)
    return {"c": c, "h": sigmoid(o + p_o * c) * np.tanh(c)}


def coupled(cell, p, x, s):
    f, o, g = blocks(x @ p["W_xh"] + s["h"] @ p["W_hh"] + p["b_h"], 3)
    c = sigmoid(f) * s["c"] + (1 - sigmoid(f)) * np.tanh(g)
    return {"c": c, "h": sigmoid(o) * np.tanh(c)}


def forget_gate_only(cell, p, x, s):
    f, g = blocks(x @ p["W_xh"] + s["h"] @ p["W_hh"] + p["b_h"], 2)
    return {"h": sigmoid(f) * s["h"] + (1 - sigmoid(f - cell.beta)) * np.tanh(g)}


def minimal_gated(cell, p, x, s):
    (x_f, x_h), (w_f, w_h) = blocks(x @ p["W_xh"] + p["b_h"], 2), np.split(p["W_hh"], 2, axis=1)
    f = sigmoid(x_f + s["h"] @ w_f)
    return {"h": (1 - f) * s["h"] + f * np.tanh(x_h + (f * s["h"]) @ w_h)}


def independent(cell, p, x, s):
    a = x @ p["W_xh"] + p["u"] * s["h"] + p["b_h"]
    return {"h": np.tanh(a) if cell.activation == "tanh" else np.maximum(a, 0)}


def oscillators(cell, p, x, s):
    driven = np.tanh(x @ p["W_xh"] + s["y"] @ p["W_yh"] + s["z"] @ p["W_zh"] + p["b_h"])
    z = s["z"] + cell.step_size * (driven - cell.frequency * s["y"] - cell.damping * s["z"])
    return {"z": z, "y": s["y"] + cell.step_size * z}


def long_expressive(cell, p, x, s):
    x_ty, x_tz, x_y, x_z = blocks(x @ p["W_xh"] + p["b_h"], 4)
    y_ty, y_tz, y_z = blocks(s["y"] @ p["W_yh"], 3)
    step_y, step_z = cell.step_size * sigmoid(x_ty + y_ty), cell.step_size * sigmoid(x_tz + y_tz)
    z = (1 - step_z) * s["z"] + step_z * np.tanh(x_z + y_z)
    return {"z": z, "y": (1 - step_y) * s["y"] + step_y * np.tanh(x_y + z @ p["W_zy"])}


def antisymmetric(cell, p, x, s):
    of_h = s["h"] @ (p["W_hh"] - p["W_hh"].T - cell.diffusion * np.eye(cell.width))
    of_x = x @ p["W_xh"] + p["b_h"]
    if cell.variant == "plain":
        return {"h": s["h"] + cell.step_size * np.tanh(of_x + of_h)}
    target, gate = blocks(of_x, 2)
    return {"h": s["h"] + cell.step_size * sigmoid(gate + of_h) * np.tanh(target + of_h)}


def scalar_memory(cell, p, x, s):
    """Without a stabiliser: weights exp(a^i), as the equations of the paper are before it is introduced."""
    i, f, z, o = blocks(x @ p["W_xh"] + s["h"] @ p["W_hh"] + p["b_h"], 4)
    c = sigmoid(f) * s["c"] + np.exp(i) * np.tanh(z)
    n = sigmoid(f) * s["n"] + np.exp(i)
    return {"m": s["m"], "c": c, "n": n, "h": sigmoid(o) * c / n}


BY_HAND = [
    (PeepholeLSTM(width=WIDTH), peephole),
    (CIFG(width=WIDTH), coupled),
    (JANET(width=WIDTH), forget_gate_only),
    (JANET(width=WIDTH, beta=0.0), forget_gate_only),
    (MGU(width=WIDTH), minimal_gated),
    (IndRNN(width=WIDTH), independent),
    (IndRNN(width=WIDTH, activation="tanh"), independent),
    (CoRNN(width=WIDTH), oscillators),
    (LEM(width=WIDTH, step_size=0.7), long_expressive),
    (AntisymmetricRNN(width=WIDTH, step_size=0.3, diffusion=0.2), antisymmetric),
    (AntisymmetricRNN(width=WIDTH, step_size=0.3, diffusion=0.2, variant="gated"), antisymmetric),
    (SLSTM(width=WIDTH), scalar_memory),
]


@pytest.mark.parametrize(("cell", "step"), BY_HAND, ids=lambda one: repr(one) if not callable(one) else one.__name__)
def test_outputs_equal_a_loop_written_by_hand(cell, step):
    parameters, inputs = drawn(cell, scale=2.0), noise(TIME, 1, BATCH, FEATURES)
    outputs = unrolled(cell, parameters, inputs).outputs
    own = {name: value[0].numpy() for name, value in parameters.items()}
    for b in range(BATCH):
        state = {name: np.zeros(WIDTH) for name in cell.states}
        for t in range(TIME):
            state = step(cell, own, inputs[t, 0, b].numpy(), state)
            np.testing.assert_allclose(outputs[t, 0, b].numpy(), state[cell.output], rtol=1e-11, atol=1e-12)


def test_the_cell_path_of_peepholes_equals_its_formula():
    """∂c_t/∂c_{t-1} at fixed h_{t-1} = f + p_f f(1 − f) c + p_i i(1 − i) C̃."""
    cell = PeepholeLSTM(width=WIDTH)
    parameters, h, c, x = drawn(cell, scale=3.0), *(noise(1, 1, WIDTH, seed=s) for s in (1, 2)), noise(1, 1, FEATURES)
    projected = cell.project(parameters, x)

    def next_c(c):
        return cell.step(parameters, projected, {"c": c, "h": h}, lambda _, value: value)["c"]

    jacobian = torch.autograd.functional.jacobian(next_c, c).view(WIDTH, WIDTH)
    gates = cell.bounded(parameters, projected, {"c": c, "h": h}, {"c": next_c(c), "h": h})
    f, i, candidate = (gates[name].values.flatten() for name in ("f", "i", "candidate"))
    p_f, p_i, _ = parameters["p"].flatten().chunk(3)
    expected = f + p_f * f * (1 - f) * c.flatten() + p_i * i * (1 - i) * candidate
    torch.testing.assert_close(jacobian, expected.diag(), rtol=0, atol=1e-14)


def test_an_active_unit_of_an_ind_rnn_changes_its_gradient_by_its_weight():
    """dL/dh_t of unit j is u_j^lag while the unit is active, here for 200 steps and weights around 1."""
    cell, time = IndRNN(width=WIDTH), 200
    u = torch.tensor([0.5, 0.9, 1.0, 1.02, 1.1], dtype=torch.float64)
    parameters = {"W_xh": noise(1, FEATURES, WIDTH).abs(), "u": u[None], "b_h": torch.full((1, WIDTH), 0.1).double()}
    trajectory = unrolled(
        cell, {n: v.requires_grad_() for n, v in parameters.items()}, noise(time, 1, 2, 3).abs(), True
    )
    trajectory.outputs[-1].sum().backward()
    lags = torch.arange(time - 1, -1, -1, dtype=torch.float64)
    found = trajectory.gradient("h")[:, 0, 0]
    torch.testing.assert_close(found, u ** lags[:, None], rtol=1e-10, atol=0)


def test_oscillators_without_coupling_are_powers_of_a_matrix():
    """W = 0: (z, y)_t = M (z, y)_{t-1} with M = [[1 − Δt ε, −Δt γ], [Δt (1 − Δt ε), 1 − Δt² γ]], here damped."""
    cell, time = CoRNN(width=1, step_size=0.1, frequency=3.0, damping=0.4), 60
    dt, gamma, epsilon = cell.step_size, cell.frequency, cell.damping
    matrix = np.array([[1 - dt * epsilon, -dt * gamma], [dt * (1 - dt * epsilon), 1 - dt * dt * gamma]])
    parameters = {name: torch.zeros_like(value).requires_grad_() for name, value in drawn(cell).items()}
    trajectory = unrolled(cell, parameters, torch.zeros(time, 1, 1, FEATURES).double(), True)
    trajectory.outputs[-1].sum().backward()
    for lag in (1, 7, 59):
        row = np.linalg.matrix_power(matrix, lag)[1]
        y = trajectory.gradient("y")[time - 1 - lag].item()
        # dL/dz_t is total: z_t is read by y_t in its own step, too.
        z = trajectory.gradient("z")[time - 1 - lag].item()
        assert y == pytest.approx(row[1], rel=1e-11)
        assert z == pytest.approx(row[0] + dt * row[1], rel=1e-11)


def test_an_antisymmetric_network_takes_steps_along_imaginary_eigenvalues():
    """Near h = 0 the Jacobian is I + ε (A − γ I), with eigenvalues 1 − εγ ± iε ω."""
    cell = AntisymmetricRNN(width=6, step_size=0.1, diffusion=0.3)
    parameters = drawn(cell, Published())
    zero = torch.zeros(1, 1, 6, dtype=torch.float64)

    def next_h(h):
        return cell.step(parameters, zero, {"h": h}, lambda _, value: value)["h"]

    values = torch.linalg.eigvals(torch.autograd.functional.jacobian(next_h, zero).view(6, 6))
    torch.testing.assert_close(values.real, torch.full((6,), 1 - 0.03, dtype=torch.float64), rtol=0, atol=1e-12)
    assert values.imag.abs().max() > 0.1


def test_the_stabiliser_of_an_slstm_changes_nothing_and_has_no_gradient():
    cell = SLSTM(width=WIDTH)
    parameters, inputs = drawn(cell, scale=2.0), noise(TIME, 1, BATCH, FEATURES)
    trajectory = unrolled(cell, {n: v.requires_grad_() for n, v in parameters.items()}, inputs, True)
    (trajectory.outputs * noise(TIME, 1, BATCH, WIDTH, seed=1)).sum().backward()
    size = trajectory.gradient("c").abs().max()
    assert trajectory.gradient("m").abs().max() < 1e-14 * size
    assert trajectory.gradient("n").abs().max() > 1e-3 * size
    state = {name: value[3].detach() for name, value in ((s, trajectory.values(s)) for s in cell.states)}
    d = noise(1, BATCH, WIDTH, seed=5)
    moved = state | {"c": state["c"] * (-d).exp(), "n": state["n"] * (-d).exp(), "m": state["m"] + d}
    projected = cell.project(parameters, inputs[4])
    after, after_moved = (cell.step(parameters, projected, s, lambda _, v: v) for s in (state, moved))
    torch.testing.assert_close(after_moved["h"], after["h"], rtol=1e-12, atol=0)
    assert not torch.allclose(moved["c"], state["c"])


def test_an_slstm_is_finite_where_its_exponential_gate_is_not():
    """Gates of e^±300, in float32 and from the first step."""
    cell = SLSTM(width=1)
    parameters = {name: torch.zeros_like(value).float() for name, value in drawn(cell, features=2).items()}
    parameters["W_xh"][0, 0, 0], parameters["W_xh"][0, 1, 2] = 1.0, 1.0
    parameters["b_h"][0, 1] = parameters["b_h"][0, 3] = 40.0
    for first, second in ((-300.0, -302.0), (300.0, 298.0), (-300.0, 300.0)):
        inputs = torch.tensor([[first, 0.5], [second, -0.25]]).view(2, 1, 1, 2)
        weights = torch.tensor([first, second], dtype=torch.float64).softmax(0)
        expected = (weights * torch.tensor([0.5, -0.25], dtype=torch.float64).tanh()).sum().item()
        assert unrolled(cell, parameters, inputs).outputs[-1].item() == pytest.approx(expected, rel=1e-5)


def test_a_coupled_cell_state_stays_between_its_candidates():
    outputs = unrolled(CIFG(width=WIDTH), drawn(CIFG(width=WIDTH), scale=30.0), noise(200, 1, BATCH, FEATURES), True)
    assert outputs.values("c").abs().max() <= 1
    assert outputs.values("c").abs().max() > 0.9


# Initial weights.


def test_published_weights_are_drawn_as_their_sources_say():
    wide, features = 60, 8

    def of(cell, rule=None):
        return {n: v[0].numpy() for n, v in drawn(cell, rule or Published(), features=features).items()}

    for values in (of(PeepholeLSTM(width=wide)), of(CIFG(width=wide))):
        for name, value in values.items():
            assert stats.kstest(value.flatten(), "norm", args=(0, 0.1)).pvalue > 1e-3, name
    janet = of(JANET(width=wide), Published(gate_bias=Chrono(longest=100)))["b_h"]
    assert not janet[wide:].any()
    assert stats.kstest(np.exp(janet[:wide]), "uniform", args=(1, 98)).pvalue > 1e-3
    assert stats.kstest(of(IndRNN(width=wide), PyTorchDefault())["u"], "uniform").pvalue > 1e-3
    bound = 1 / math.sqrt(features + 2 * wide)
    for name, value in of(CoRNN(width=wide)).items():
        assert stats.kstest(value.flatten(), "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3, name
    for name, value in of(AntisymmetricRNN(width=wide)).items():
        size = {"W_xh": features**-0.5, "W_hh": wide**-0.5}.get(name)
        assert not value.any() if size is None else stats.kstest(value.flatten(), "norm", args=(0, size)).pvalue > 1e-3
    slstm = of(SLSTM(width=wide))
    bias = dict(zip("ifzo", slstm["b_h"].reshape(4, wide), strict=True))
    assert not any(bias[gate].any() for gate in "izo")
    assert bias["f"][[0, -1]].tolist() == [5, -7]
    assert (np.diff(bias["f"]) < 0).all()
    assert not slstm["W_hh"].any()


def test_a_diagonal_is_drawn_as_published_by_every_rule_and_other_weights_are_not():
    cell = IndRNN(width=400)
    for rule in (PyTorchDefault(), Published()):
        assert drawn(cell, rule)["u"].min() >= 0
        assert drawn(cell, rule)["u"].max() > 0.9
    assert drawn(CIFG(width=400), PyTorchDefault())["W_hh"].abs().max() <= 0.05
    # A rule that a cell's source does not change draws as before.
    elman = Elman(width=20)
    for name, value in drawn(elman, Published()).items():
        assert torch.equal(value, drawn(elman, PyTorchDefault())[name])


def test_a_rule_for_square_matrices_refuses_a_cell_without_recurrent_matrices():
    with pytest.raises(SpecError, match=r"needs square recurrent matrices, and IndRNN has none"):
        Run(task=TemporalOrder(length=10), cell=IndRNN(width=4), initialisation=SpectralRadius())


def test_a_model_of_several_layers_reads_the_output_state():
    for cell, _ in BY_HAND:
        model = Model(cell=cell, layers=2, features=FEATURES, outputs=2)
        parameters = {n: v[None].double() for n, v in model.draw(PyTorchDefault(), generator(0, "x")).items()}
        outputs, layers = model.forward(
            ReferenceEngine(), parameters, noise(TIME, 1, BATCH, FEATURES), steps=(TIME - 1,), observed=False
        )
        assert outputs.shape == (1, 1, BATCH, 2)
        assert layers[0].outputs.shape == (TIME, 1, BATCH, WIDTH)
