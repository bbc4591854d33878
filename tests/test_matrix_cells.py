"""Cells with something beside a plain recurrent matrix: a rotation (ExpRNN), a matrix memory (MLSTM), a delay (LMU)."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, special, stats

from rnnstudy.cells import LMU, MLSTM, ExpRNN, Published, PyTorchDefault
from rnnstudy.cells.lmu import delay_system
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes import RecurrentSpectrum
from rnnstudy.run import Run, Training
from rnnstudy.tasks import Adding
from rnnstudy.training.loop import train
from rnnstudy.training.randomness import generator

FEATURES, TIME, BATCH, WIDTH = 3, 9, 4, 5
MAPS = ["exponential", "cayley"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(cell, initialisation=None, seed=0, features=FEATURES):
    """Parameters of one replica in float64, without those of the readout."""
    values = (initialisation or PyTorchDefault()).draw(cell.parameters(features, 2), cell.width, generator(seed, "x"))
    return {name: value[None].double() for name, value in values.items()}


def unrolled(cell, parameters, inputs, engine=None, observed=True, steps=None):
    widths = {state: cell.state_width(state, 2) for state in cell.states}
    engine = engine or ReferenceEngine()
    return engine.unroll(cell, parameters, inputs, widths=widths, observed=observed, steps=steps)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def rotation(cell, w_hh):
    """Independently of torch: scipy's exponential, or the Cayley map by an inverse."""
    skew = np.triu(w_hh, 1) - np.triu(w_hh, 1).T
    if cell.map == "exponential":
        return linalg.expm(skew)
    return np.linalg.inv(np.eye(len(skew)) + skew) @ (np.eye(len(skew)) - skew)


def orthogonal(cell, p, x):
    h, w = np.zeros(WIDTH), rotation(cell, p["W_hh"])
    for x_t in x:
        a = x_t @ p["W_xh"] + h @ w
        h = np.sign(a) * np.maximum(np.abs(a) + p["b_h"], 0)
        yield h


def matrix_memory(cell, p, x):
    """Without a stabiliser, as the paper writes it before it introduces one."""
    memory, n = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH)
    w_q, w_k, w_v, w_o = np.split(p["W_xh"], 4, axis=1)
    b_q, b_k, b_v, b_o = np.split(p["b_h"], 4)
    for x_t in x:
        q, v, o = x_t @ w_q + b_q, x_t @ w_v + b_v, sigmoid(x_t @ w_o + b_o)
        k = x_t @ w_k / math.sqrt(WIDTH) + b_k
        store, forget = x_t @ p["W_xg"] + p["b_g"]
        i, f = np.exp(store), sigmoid(forget)
        memory = f * memory + i * np.outer(v, k)
        n = f * n + i * k
        yield o * (memory @ q) / max(abs(n @ q), 1)


def legendre_memory(cell, p, x):
    d, theta = cell.order, cell.window
    a = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            a[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
    b = np.array([(2 * i + 1) * (-1) ** i for i in range(d)], float)
    # Zero-order hold: θ dm/dt = A m + B u over one step with u constant, by an integral that has a closed form.
    whole = linalg.expm(a / theta)
    held = np.linalg.solve(a, (whole - np.eye(d)) @ b)
    m, h = np.zeros(d), np.zeros(cell.width)
    for x_t in x:
        u = (x_t @ p["e_x"] + h @ p["e_h"] + m @ p["e_m"])[0]
        m = whole @ m + held * u
        h = np.tanh(x_t @ p["W_xh"] + h @ p["W_hh"] + m @ p["W_mh"])
        yield h


BY_HAND = [
    *((ExpRNN(width=WIDTH, map=one), orthogonal) for one in MAPS),
    (MLSTM(width=WIDTH), matrix_memory),
    (LMU(width=WIDTH, order=4, window=7.0), legendre_memory),
]


@pytest.mark.parametrize("rule", [PyTorchDefault(), Published()], ids=repr)
@pytest.mark.parametrize(("cell", "loop"), BY_HAND, ids=lambda one: repr(one) if not callable(one) else one.__name__)
def test_outputs_equal_a_loop_written_by_hand(cell, loop, rule):
    parameters, inputs = {n: 2 * v for n, v in drawn(cell, rule).items()}, 3 * noise(TIME, 1, BATCH, FEATURES)
    outputs = unrolled(cell, parameters, inputs).outputs.detach()
    own = {name: value[0].numpy() for name, value in parameters.items()}
    for b in range(BATCH):
        expected = np.stack(list(loop(cell, own, inputs[:, 0, b].numpy())))
        np.testing.assert_allclose(outputs[:, 0, b].numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", [cell for cell, _ in BY_HAND], ids=repr)
def test_the_scaled_engine_finds_the_same_gradients(cell):
    """Its gradients are those of recomputed steps, in which what is prepared for a pass must be prepared as well."""
    found = []
    for engine in (ReferenceEngine(), ScaledEngine()):
        parameters = {n: v.requires_grad_() for n, v in drawn(cell).items()}
        trajectory = unrolled(cell, parameters, noise(TIME, 1, BATCH, FEATURES), engine)
        (trajectory.outputs * noise(TIME, 1, BATCH, WIDTH, seed=1)).sum().backward()
        found.append([v.grad for v in parameters.values()] + [trajectory.gradient(s) for s in cell.read_states])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert found[0][1].abs().max() > 1e-4


# ExpRNN.


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("rule", [PyTorchDefault(), Published()], ids=repr)
def test_the_recurrent_matrix_is_a_rotation(rule, map_):
    cell = ExpRNN(width=40, map=map_)
    w = cell.prepared({n: 5 * v for n, v in drawn(cell, rule).items()})["W_hh"][0]
    torch.testing.assert_close(w @ w.mT, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.linalg.det(w).item() == pytest.approx(1, abs=1e-12)
    assert (w - torch.eye(40)).abs().max() > 0.1


@pytest.mark.parametrize("map_", MAPS)
def test_the_rotation_and_its_gradient_are_those_of_torchs_parametrization(map_):
    """torch makes A from the lower triangle and, in its Cayley map, halves and negates it: −Uᵀ, or 2 Uᵀ."""
    cell = ExpRNN(width=6, map=map_)
    ours = drawn(cell)["W_hh"].requires_grad_()
    layer = torch.nn.Linear(6, 6, bias=False, dtype=torch.float64)
    name = {"exponential": "matrix_exp", "cayley": "cayley"}[map_]
    torch.nn.utils.parametrizations.orthogonal(layer, orthogonal_map=name, use_trivialization=False)
    factor = {"exponential": -1.0, "cayley": 2.0}[map_]
    theirs = layer.parametrizations.weight.original
    with torch.no_grad():
        theirs.copy_(factor * ours[0].mT)
    judge = noise(6, 6, seed=3)
    w = cell.prepared({"W_hh": ours})["W_hh"][0]
    torch.testing.assert_close(layer.weight, w, rtol=0, atol=1e-12)
    (w * judge).sum().backward()
    (layer.weight * judge).sum().backward()
    torch.testing.assert_close(factor * theirs.grad.mT, ours.grad[0], rtol=0, atol=1e-12)


def test_the_gradient_of_an_exponential_keeps_its_digits_whatever_its_size():
    """Against scipy's Fréchet derivative, in float32 and for gradients of 10⁻³⁰ to 10³⁰."""
    cell, judge = ExpRNN(width=6), noise(6, 6, seed=3)
    upper = drawn(cell, Published())["W_hh"] + drawn(cell)["W_hh"]
    skew = (upper.triu(1) - upper.triu(1).mT)[0].numpy()
    both = linalg.expm_frechet(skew.T, judge.numpy(), compute_expm=False)
    exact = torch.from_numpy(np.triu(both - both.T, 1))
    for scale in (1e-30, 1.0, 1e6, 1e30):
        leaf = upper.float().requires_grad_()
        (scale * cell.prepared({"W_hh": leaf})["W_hh"][0] * judge.float()).sum().backward()
        error = (leaf.grad[0].double() / scale - exact).abs().max() / exact.abs().max()
        assert error < 1e-5, scale


@pytest.mark.parametrize("map_", MAPS)
def test_without_biases_the_norm_of_the_gradient_is_kept(map_):
    """b_h = 0: dL/dh_t = dL/dh_T Wᵀ^(T−t), of the same norm at all of 500 steps."""
    cell, time = ExpRNN(width=10, map=map_), 500
    parameters = drawn(cell) | {"b_h": torch.zeros(1, 10, dtype=torch.float64)}
    w = torch.from_numpy(rotation(cell, parameters["W_hh"][0].numpy()))
    trajectory = unrolled(
        cell, {n: v.requires_grad_() for n, v in parameters.items()}, noise(time, 1, 2, FEATURES), steps=(time - 1,)
    )
    judge = noise(1, 1, 2, 10, seed=4)
    (trajectory.outputs * judge).sum().backward()
    norms = trajectory.log_norms("h")
    torch.testing.assert_close(norms, judge.norm(dim=-1).log10().expand_as(norms), rtol=0, atol=1e-12)
    back = judge[0, 0] @ torch.linalg.matrix_power(w.T, time - 1)
    torch.testing.assert_close(trajectory.gradient("h")[0, 0], back, rtol=0, atol=1e-11)


def test_only_inactive_units_lose_gradient():
    """∂h_t/∂h_{t-1} = W diag(|a| + b > 0), with a bias so negative that about half of the units are inactive."""
    cell = ExpRNN(width=8)
    parameters = drawn(cell) | {"b_h": torch.full((1, 8), -0.5, dtype=torch.float64)}
    prepared, x, h = cell.prepared(parameters), noise(1, 1, FEATURES), noise(1, 1, 8, seed=2)
    projected = cell.project(parameters, x)

    def next_h(h):
        return cell.step(prepared, projected, {"h": h}, lambda _, value: value)["h"]

    jacobian = torch.autograd.functional.jacobian(next_h, h).view(8, 8)
    a = projected + h @ prepared["W_hh"]
    active = (a.abs() > 0.5).flatten().double()
    assert 0 < active.sum() < 8
    torch.testing.assert_close(jacobian, (prepared["W_hh"][0] * active).mT, rtol=0, atol=1e-14)


def test_published_rotations_turn_pairs_of_units():
    """W has the eigenvalues e^{±iv}: v uniform in ±π (henaff); v uniform in 0 … π/2 under the Cayley map (cayley)."""
    for cell, low, high in (
        (ExpRNN(width=601), -math.pi, math.pi),
        (ExpRNN(width=601, map="cayley", angles="cayley"), 0.0, math.pi / 2),
    ):
        w = cell.prepared(drawn(cell, Published()))["W_hh"][0].numpy()
        blocks = [w[k : k + 2, k : k + 2] for k in range(0, 600, 2)]
        angles = np.array([math.atan2(block[0, 1], block[0, 0]) for block in blocks])
        assert stats.kstest(angles, "uniform", args=(low, high - low)).pvalue > 1e-3
        rest = w - linalg.block_diag(*blocks, np.eye(1))
        assert abs(rest).max() < 1e-12
    others = drawn(ExpRNN(width=601), Published(), features=8)
    assert stats.kstest(others["W_xh"].flatten().numpy(), "norm", args=(0, 0.5)).pvalue > 1e-3
    assert stats.kstest(others["b_h"].flatten().numpy(), "uniform", args=(-0.01, 0.02)).pvalue > 1e-3


# MLSTM.


def test_the_stabiliser_of_an_mlstm_changes_nothing_and_has_no_gradient():
    cell = MLSTM(width=WIDTH)
    parameters, inputs = {n: 3 * v for n, v in drawn(cell).items()}, noise(TIME, 1, BATCH, FEATURES)
    trajectory = unrolled(cell, {n: v.requires_grad_() for n, v in parameters.items()}, inputs)
    (trajectory.outputs * noise(TIME, 1, BATCH, WIDTH, seed=1)).sum().backward()
    size = trajectory.gradient("C").abs().max()
    assert trajectory.gradient("m").abs().max() < 1e-13 * size
    assert trajectory.gradient("n").abs().max() > 1e-3 * size
    state = {name: trajectory.values(name)[3].detach() for name in cell.states}
    d = noise(1, BATCH, 1, seed=5)
    moved = state | {"C": state["C"] * (-d).exp(), "n": state["n"] * (-d).exp(), "m": state["m"] + d}
    projected = cell.project(parameters, inputs[4])
    after, after_moved = (cell.step(parameters, projected, s, lambda _, v: v) for s in (state, moved))
    torch.testing.assert_close(after_moved["h"], after["h"], rtol=1e-12, atol=0)
    assert not torch.allclose(moved["C"], state["C"])


def test_an_mlstm_recalls_the_value_of_a_key():
    """Three pairs under orthogonal keys of norm 1 and open gates: the query that equals a key reads its value."""
    d = 4
    cell = MLSTM(width=d)
    keys, values = torch.linalg.qr(noise(d, d)).Q[:3], noise(3, d, seed=1)
    states = {name: torch.zeros(1, 1, cell.state_width(name, 1), dtype=torch.float64) for name in cell.states}
    for k, v in zip(keys, values, strict=True):
        gates = torch.tensor([40.0, 0.0, 40.0], dtype=torch.float64)
        row = torch.cat([k, k, v, gates[:1].expand(d), gates[1:]])
        states = cell.step({}, row.view(1, 1, -1), states, lambda _, value: value)
    memory = states["C"].view(d, d)
    for k, v in zip(keys, values, strict=True):
        torch.testing.assert_close(memory @ k, v, rtol=0, atol=1e-12)
    torch.testing.assert_close(states["h"].flatten(), values[-1], rtol=0, atol=1e-12)


def test_the_memory_path_of_an_mlstm_is_the_product_of_its_forget_gates():
    """dL/dC_t = dL/dC_T ∏ f while the denominator is its floor: C is linear and every number has the same factor."""
    cell, time = MLSTM(width=3), 30
    parameters = {n: 0.1 * v for n, v in drawn(cell).items()}
    parameters["b_g"] = torch.tensor([[-3.0, 2.0]], dtype=torch.float64)
    inputs = noise(time, 1, 1, FEATURES)
    trajectory = unrolled(cell, {n: v.requires_grad_() for n, v in parameters.items()}, inputs, steps=(time - 1,))
    trajectory.outputs.sum().backward()
    forget = (inputs[:, 0, 0] @ parameters["W_xg"][0, :, 1] + 2.0).sigmoid()
    # The states are relative to e^m: dL/d(C e^m) has the closed form.
    found = (trajectory.gradient("C") * (-trajectory.values("m")).exp())[:, 0, 0].detach()
    factors = torch.stack([forget[t + 1 :].prod() for t in range(time)])
    torch.testing.assert_close(found, factors[:, None] * found[-1], rtol=1e-10, atol=0)
    assert found[0].abs().max() > 0


def test_an_mlstm_is_finite_where_its_exponential_gate_is_not():
    """Gates of e^±300 in float32, and a memory that has forgotten for so long that exp(−m) leaves the range."""
    cell = MLSTM(width=2)
    for stores, forget in (((300.0, 298.0), 40.0), ((-300.0, 300.0), 40.0), ((-300.0,) * 40, -8.0)):
        parameters = {n: torch.zeros_like(v).float() for n, v in drawn(cell, features=1).items()}
        parameters["W_xg"][0, 0, 0] = 1.0
        parameters["b_g"][0, 1] = forget
        parameters["b_h"][0] = torch.tensor([1.0, 0, 1, 0, 0.5, -0.25, 40, 40])
        leaves = {n: v.requires_grad_() for n, v in parameters.items()}
        trajectory = unrolled(cell, leaves, torch.tensor(stores).view(-1, 1, 1, 1))
        trajectory.outputs.sum().backward()
        expected = [0.5, -0.25] if max(stores) > 0 else [0.0, 0.0]
        np.testing.assert_allclose(trajectory.outputs[-1].flatten().detach().numpy(), expected, rtol=1e-5, atol=1e-30)
        assert all(value.grad.isfinite().all() for value in leaves.values())
        assert trajectory.gradient("C").isfinite().all()


def test_published_weights_of_an_mlstm():
    values = {n: v[0].numpy() for n, v in drawn(MLSTM(width=60), Published(), features=8).items()}
    assert stats.kstest(values["W_xh"].flatten(), "norm", args=(0, math.sqrt(2 / 40))).pvalue > 1e-3
    assert not values["b_h"].any()
    assert not values["W_xg"].any()
    several = [drawn(MLSTM(width=2), Published(), seed=seed)["b_g"][0] for seed in range(300)]
    store, forget = torch.stack(several).T.numpy()
    assert (forget == 3).all()
    assert stats.kstest(store, "norm", args=(0, 0.1)).pvalue > 1e-3


# LMU.


def delayed(m, ago, window):
    """The signal `ago` steps before the last, read from the memory m by Legendre polynomials."""
    return sum(special.eval_legendre(i, 2 * ago / window - 1) * m_i for i, m_i in enumerate(m))


def test_the_memory_of_an_lmu_holds_its_window():
    """A sum of slow waves, read back at several delays within the window; beyond what polynomials of order 11 hold,
    nothing but rounding is lost. The signal is held over a step, so that its middle lies half a step back."""
    order, window = 12, 100.0
    a, b = delay_system(order, window)

    def signal(t):
        return np.sin(2 * np.pi * t / 90) + 0.5 * np.cos(2 * np.pi * t / 140)

    m, last = np.zeros((order, 1)), 600
    for t in range(last + 1):
        m = a @ m + b * signal(t)
    for ago in (5, 25, 50, 75, 95):
        assert delayed(m[:, 0], ago, window) == pytest.approx(signal(last + 0.5 - ago), abs=2e-3)


def test_the_gradient_through_the_memory_of_an_lmu_is_a_power_of_its_matrix():
    """W_hh = e_h = e_m = 0: dL/dm_t = Āᵀ^(T−t) dL/dm_T."""
    cell, time = LMU(width=4, order=6, window=20.0), 80
    parameters = drawn(cell, Published())
    for name in ("e_h", "e_m", "W_hh"):
        parameters[name].zero_()
    trajectory = unrolled(
        cell, {n: v.requires_grad_() for n, v in parameters.items()}, noise(time, 1, 1, FEATURES), steps=(time - 1,)
    )
    trajectory.outputs.sum().backward()
    found = trajectory.gradient("m")[:, 0, 0].numpy()
    a, _ = delay_system(6, 20.0)
    for t in (0, 40, 78):
        expected = np.linalg.matrix_power(a.T, time - 1 - t) @ found[-1]
        np.testing.assert_allclose(found[t], expected, rtol=1e-9, atol=1e-16)
    assert abs(linalg.eigvals(a)).max() < 1


def test_published_weights_of_an_lmu():
    values = {n: v[0].numpy() for n, v in drawn(LMU(width=60, order=30), Published(), features=8).items()}
    assert (
        stats.kstest(values["e_h"].flatten(), "uniform", args=(-math.sqrt(3 / 60), 2 * math.sqrt(3 / 60))).pvalue > 1e-3
    )
    assert abs(values["e_x"]).max() <= math.sqrt(3 / 8)
    assert not values["e_m"].any()
    for name, rows in (("W_xh", 8), ("W_hh", 60), ("W_mh", 30)):
        size = math.sqrt(2 / (rows + 60))
        assert stats.kstest(values[name].flatten(), "norm", args=(0, size)).pvalue > 1e-3, name


# All of them.


@pytest.mark.parametrize("cell", [ExpRNN(width=6), MLSTM(width=3), LMU(width=6, order=3)], ids=repr)
def test_a_run_trains_and_its_gradients_and_spectrum_are_read(cell):
    training = Training(steps=30, batch=8, learning_rate=1e-2, validation_sequences=16, test_sequences=16)
    task = Adding(length=10, variant="pascanu")
    *_, last = train(Run(task=task, cell=cell, training=training, probes=(RecurrentSpectrum(),)), device="cpu")
    assert last.outcome.status == "finished"
    if isinstance(cell, ExpRNN):
        radii = last.series["recurrent/W_hh_radius"].values
        np.testing.assert_allclose(radii, 1, atol=1e-6)
