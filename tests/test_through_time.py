"""The gradient through time is the total derivative: against products of Jacobians, the identity, and closed forms."""

import math

import pytest
import torch

from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.initialisation import Orthogonal, PyTorchDefault
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.run import Run, Training
from rnnstudy.tasks import Adding, CopyMemory, TemporalOrder
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME, WIDTH = 3, 2, 3, 4, 9, 5
ACTIVATIONS = ["tanh", "relu", "sigmoid", "linear"]
CELLS = [*(Elman(width=WIDTH, activation=activation) for activation in ACTIVATIONS), LSTM(width=WIDTH)]
CPU = torch.device("cpu")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_backwards(cell, layers, coefficients):
    """Parameters, inputs and trajectories after the backward pass of Σ coefficients ⊙ outputs (time, …, outputs)."""
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(REPLICAS)]
    parameters = {name: torch.stack([values[name] for values in drawn]).double().requires_grad_() for name in drawn[0]}
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES)
    steps = tuple(range(TIME))
    outputs, trajectories = model.forward(ReferenceEngine(), parameters, inputs, steps=steps, observed=True)
    (outputs * coefficients).sum().backward()
    return parameters, inputs, trajectories


def coefficients_at(*steps):
    coefficients = torch.zeros(TIME, REPLICAS, BATCH, OUTPUTS, dtype=torch.float64)
    coefficients[list(steps)] = noise(len(steps), REPLICAS, BATCH, OUTPUTS, seed=1)
    return coefficients


def elman_step(weights, x, s, activation):
    """h_t from s = h_{t-1}, one sequence."""
    a = x @ weights["W_xh"] + s @ weights["W_hh"] + weights["b_h"]
    return {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda a: a}[activation](a)


def lstm_step(weights, x, s):
    """(c_t, h_t) from s = (c_{t-1}, h_{t-1}), one sequence; also the gate o_t."""
    c, h = s[:WIDTH], s[WIDTH:]
    f, i, o, candidate = (x @ weights["W_xh"] + h @ weights["W_hh"] + weights["b_h"]).split(WIDTH)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(candidate)
    return torch.cat([c, torch.sigmoid(o) * torch.tanh(c)]), torch.sigmoid(o)


def carried_back(step, states, direct):
    """G_t = direct_t + J_{t+1}ᵀ G_{t+1}, with J the explicit Jacobian of one step; `states` begins with s_0."""
    carried = [direct[-1]]
    for t in range(TIME - 2, -1, -1):
        jacobian = torch.func.jacrev(lambda s, t=t: step(s, t + 1))(states[t + 1])
        carried.append(direct[t] + jacobian.T @ carried[-1])
    return carried[::-1]


LOSSES = [(TIME - 1,), (2, 5, TIME - 1), tuple(range(TIME))]


@pytest.mark.parametrize("steps", LOSSES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dl_dh_is_a_product_of_jacobians(activation, steps):
    coefficients = coefficients_at(*steps)
    parameters, inputs, [trajectory] = trained_backwards(Elman(width=WIDTH, activation=activation), 1, coefficients)
    for r in range(REPLICAS):
        weights = {name: value[r].detach() for name, value in parameters.items()}
        for b in range(BATCH):

            def step(s, t, weights=weights, r=r, b=b):
                return elman_step(weights, inputs[t, r, b], s, activation)

            states = [torch.zeros(WIDTH, dtype=torch.float64)]
            for t in range(TIME):
                states.append(step(states[-1], t))
            expected = carried_back(step, states, coefficients[:, r, b] @ weights["W_ho"].T)
            torch.testing.assert_close(trajectory.gradient("h")[:, r, b], torch.stack(expected), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("steps", LOSSES, ids=str)
def test_dl_dc_and_dl_dh_are_a_product_of_joint_jacobians(steps):
    coefficients = coefficients_at(*steps)
    parameters, inputs, [trajectory] = trained_backwards(LSTM(width=WIDTH), 1, coefficients)
    for r in range(REPLICAS):
        weights = {name: value[r].detach() for name, value in parameters.items()}
        for b in range(BATCH):

            def step(s, t, weights=weights, r=r, b=b):
                return lstm_step(weights, inputs[t, r, b], s)[0]

            states = [torch.zeros(2 * WIDTH, dtype=torch.float64)]
            for t in range(TIME):
                states.append(step(states[-1], t))
            direct = coefficients[:, r, b] @ weights["W_ho"].T
            carried = carried_back(step, states, torch.cat([torch.zeros_like(direct), direct], dim=1))
            for t in range(TIME):
                by_c, by_h = carried[t].split(WIDTH)
                # c_t is also read by h_t = o_t ⊙ tanh(c_t), in the same step.
                gate = lstm_step(weights, inputs[t, r, b], states[t])[1]
                total = by_c + by_h * gate * (1 - states[t + 1][:WIDTH].tanh() ** 2)
                torch.testing.assert_close(trajectory.gradient("h")[t, r, b], by_h, rtol=1e-10, atol=1e-14)
                torch.testing.assert_close(trajectory.gradient("c")[t, r, b], total, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_identity_that_only_total_derivatives_meet(activation, layers):
    """Σ_t h_{t-1}ᵀ (dL/dh_t ⊙ φ′(a_t)) = dL/dW_hh, for every replica and layer."""
    parameters, _, trajectories = trained_backwards(
        Elman(width=WIDTH, activation=activation), layers, coefficients_at(3, TIME - 1)
    )
    for layer, trajectory in enumerate(trajectories):
        h = trajectory.outputs.detach()
        slope = {"tanh": 1 - h**2, "relu": (h > 0).double(), "sigmoid": h * (1 - h), "linear": torch.ones_like(h)}
        before = torch.cat([torch.zeros_like(h[:1]), h[:-1]])
        actual = torch.einsum("trbi,trbj->rij", before, trajectory.gradient("h") * slope[activation])
        name = "W_hh" if layers == 1 else f"W_hh_layer{layer + 1}"
        torch.testing.assert_close(actual, parameters[name].grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_log_norms_are_the_logarithms_of_the_norms(cell):
    _, _, trajectories = trained_backwards(cell, 2, coefficients_at(TIME - 2))
    for trajectory in trajectories:
        for state in cell.states:
            norms = trajectory.gradient(state).square().sum(-1).sqrt()
            assert (trajectory.log_norms(state)[-1] == -torch.inf).all(), "no loss comes after the last but one step"
            torch.testing.assert_close(trajectory.log_norms(state)[:-1], norms[:-1].log10(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_observing_changes_neither_outputs_nor_gradients(cell):
    model = Model(cell=cell, layers=2, features=FEATURES, outputs=OUTPUTS)
    drawn = {name: value[None] for name, value in model.draw(PyTorchDefault(), generator(0, "x")).items()}
    seen = []
    for observed in (False, True):
        parameters = {name: value.clone().requires_grad_() for name, value in drawn.items()}
        inputs = noise(TIME, 1, BATCH, FEATURES).float()
        outputs, _ = model.forward(ReferenceEngine(), parameters, inputs, steps=(4, 8), observed=observed)
        outputs.square().sum().backward()
        seen.append([outputs, *(value.grad for value in parameters.values())])
    for plain, watched in zip(*seen, strict=True):
        assert torch.equal(plain, watched)


def test_the_last_layer_returns_only_the_requested_steps():
    cell = LSTM(width=WIDTH)
    model = Model(cell=cell, layers=2, features=FEATURES, outputs=OUTPUTS)
    drawn = {name: value[None].double() for name, value in model.draw(PyTorchDefault(), generator(0, "x")).items()}
    inputs = noise(TIME, 1, BATCH, FEATURES)
    everything, _ = model.forward(ReferenceEngine(), drawn, inputs, steps=tuple(range(TIME)), observed=False)
    some, _ = model.forward(ReferenceEngine(), drawn, inputs, steps=(0, 4, 8), observed=False)
    assert torch.equal(some, everything[[0, 4, 8]])


def test_a_gradient_that_was_not_requested_or_not_yet_computed_is_refused():
    cell, engine = Elman(width=WIDTH), ReferenceEngine()
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    parameters = {name: value[None].double() for name, value in model.draw(PyTorchDefault(), generator(0, "x")).items()}
    inputs = noise(TIME, 1, BATCH, FEATURES)
    unseen = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=False)
    with pytest.raises(RuntimeError, match="state 'h' was not observed; observed: none"):
        unseen.log_norms("h")
    seen = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=True)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        seen.log_norms("h")


@pytest.mark.parametrize(("radius", "steps"), [(0.9, 200), (1.0, 200), (1.3, 200), (0.25, 400), (10.0, 250)])
def test_a_linear_network_decays_by_the_logarithm_of_its_radius(radius, steps):
    """W_hh = ρQ with Q orthogonal, no input: log10 ‖dL/dh_t‖ falls by exactly log10 ρ a step, down to 10⁻²⁴⁰."""
    orthogonal = torch.linalg.qr(noise(WIDTH, WIDTH)).Q
    parameters = {
        "W_xh": torch.zeros(1, FEATURES, WIDTH, dtype=torch.float64),
        "W_hh": radius * orthogonal[None],
        "b_h": torch.zeros(1, WIDTH, dtype=torch.float64),
    }
    cell = Elman(width=WIDTH, activation="linear")
    inputs = torch.zeros(steps, 1, BATCH, FEATURES, dtype=torch.float64)
    trajectory = ReferenceEngine().unroll(cell, parameters, inputs, widths={"h": WIDTH}, observed=True)
    (trajectory.outputs[-1] * noise(1, BATCH, WIDTH, seed=1)).sum().backward()
    log_norms = trajectory.log_norms("h")
    assert log_norms.isfinite().all()
    expected = log_norms[-1] + math.log10(radius) * torch.arange(steps - 1, -1, -1, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-10)


def test_a_linear_orthogonal_run_reads_the_rate_and_half_life_of_its_gain():
    run = Run(
        task=TemporalOrder(length=40),
        cell=Elman(width=8, activation="linear"),
        initialisation=Orthogonal(gain=0.5),
        training=Training(steps=1, test_sequences=1, validation_sequences=1),
    )
    [*_, last] = train(run)
    assert last.outcome.summary["rate_initial"] == pytest.approx(math.log10(0.5), abs=1e-6)
    assert last.outcome.summary["half_life_initial"] == pytest.approx(1.0, abs=1e-5)
    assert last.outcome.summary["log10_ratio_initial"] == pytest.approx(39 * math.log10(0.5), abs=1e-5)
    profile = last.series["profile/h_initial_normalised"].values[0]
    expected = math.log10(0.5) * torch.arange(40).numpy()
    assert abs(profile - expected).max() < 1e-4  # every sequence alike: all quantiles coincide


@pytest.mark.parametrize("task", [TemporalOrder(length=12), Adding(length=12, variant="pascanu"), CopyMemory(length=3)])
@pytest.mark.parametrize("cell", [Elman(width=WIDTH), LSTM(width=WIDTH)], ids=repr)
def test_the_side_batch_holds_each_sequences_gradient_of_its_last_supervised_step(cell, task):
    """Each sequence on its own, cut to its length, with the plain loss of its last step: the same gradients."""
    population = Population(tuple(Run(task=task, cell=cell, seed=seed) for seed in range(2)))
    parameters = Learner.begin(population, CPU).parameters
    actual = side_batch(population, parameters, 6, CPU)
    assert actual.scale == 1.0
    for r, run in enumerate(population.runs):
        batch = task.sample(6, generator(run.seed, "probe"))
        own = {name: value[r : r + 1].detach().double() for name, value in parameters.items()}
        for b in range(6):
            last = int(batch.mask[:, b].nonzero().max())
            assert int(actual.last[r, b]) == last
            inputs = batch.inputs[: last + 1, None, b : b + 1].double()
            outputs, [alone] = population.model.forward(ReferenceEngine(), own, inputs, steps=(last,), observed=True)
            task.loss(outputs, batch.targets[last : last + 1, None, b : b + 1]).sum().backward()
            for state in cell.states:
                log_norms = actual.trajectories[0].log_norms(state)[: last + 1, r, b]
                torch.testing.assert_close(log_norms, alone.log_norms(state)[:, 0, 0], rtol=0, atol=1e-9)
