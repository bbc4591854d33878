"""Weight decay, schedules, Omega, truncation, h-detach: each against its definition, step by step."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from rnnstudy.cells import GRU, LSTM, Elman, Jordan
from rnnstudy.cells.initialisation import Orthogonal, PyTorchDefault
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.optimisers import (
    SGD,
    Adam,
    ClipNorm,
    Constant,
    CosineDecay,
    HDetach,
    LinearDecay,
    Omega,
    RMSprop,
    Truncation,
    WeightDecay,
)
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import Adding, CopyMemory, TemporalOrder
from rnnstudy.training.batches import TrainingBatches, gradient_cuts
from rnnstudy.training.grouping import populations
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU = torch.device("cpu")
FEATURES, OUTPUTS, BATCH, TIME, WIDTH = 3, 2, 4, 9, 5
SMALL = {"validation_sequences": 10, "test_sequences": 10}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ended(runs, **options):
    """The last record of each run."""
    return {record.key: record for record in train(runs, device="cpu", **options) if record.outcome is not None}


def one_run(cell=None, task=None, **training):
    return Run(
        task=task or TemporalOrder(length=10), cell=cell or Elman(width=4), training=Training(**{**SMALL, **training})
    )


# Weight decay and schedules.

RATES, STRENGTHS = [1e-3, 1e-2, 0.1], [0.5, 0.0, 0.02]
SEPARATE = {
    Adam(): lambda weights, rate, decay: torch.optim.AdamW(weights, lr=rate, weight_decay=decay),
    # For plain SGD alone, decay of the weights and its addition to the gradient are the same.
    SGD(): lambda weights, rate, decay: torch.optim.SGD(weights, lr=rate, weight_decay=decay),
}
SCHEDULED = {
    Constant(): lambda rule, steps: torch.optim.lr_scheduler.ConstantLR(rule, factor=1.0),
    LinearDecay(final=0.1): lambda rule, steps: torch.optim.lr_scheduler.LinearLR(
        rule, start_factor=1.0, end_factor=0.1, total_iters=steps
    ),
    CosineDecay(): lambda rule, steps: torch.optim.lr_scheduler.CosineAnnealingLR(rule, T_max=steps),
}


@pytest.mark.parametrize("schedule", SCHEDULED, ids=repr)
@pytest.mark.parametrize("optimiser", SEPARATE, ids=repr)
def test_decay_and_schedule_of_each_replica_equal_separate_optimisers(optimiser, schedule):
    """100 updates in float64 on noisy gradients that pull the weights towards 1; the rates are float32's."""
    steps = 100
    runs = [
        one_run(
            steps=steps, learning_rate=rate, optimiser=optimiser, clip=None, schedule=schedule,
            weight_decay=WeightDecay(strength=strength),
        ).replace(seed=seed)
        for seed, (rate, strength) in enumerate(zip(RATES, STRENGTHS, strict=True))
    ]  # fmt: skip
    population = Population(tuple(runs))
    begin = {name: value.double() for name, value in population.initial_parameters().items()}
    learner = Learner(population, CPU, begin)
    alone = [[value[r].detach().clone() for value in learner.parameters.values()] for r in range(len(RATES))]
    separate = [SEPARATE[optimiser](alone[r], RATES[r], STRENGTHS[r]) for r in range(len(RATES))]
    schedules = [SCHEDULED[schedule](rule, steps) for rule in separate]
    source = torch.Generator().manual_seed(0)
    for _ in range(steps):
        gradients = {}
        for index, (name, value) in enumerate(learner.parameters.items()):
            shift = torch.randn(value.shape, generator=source, dtype=torch.float64)
            gradients[name] = value.detach() - 1 + shift
            for r, weights in enumerate(alone):
                weights[index].grad = weights[index] - 1 + shift[r]
        learner.update(torch.zeros(len(RATES)), gradients, gradients)
        for rule, scheduler in zip(separate, schedules, strict=True):
            rule.step()
            scheduler.step()
    for index, value in enumerate(learner.parameters.values()):
        for r, weights in enumerate(alone):
            torch.testing.assert_close(value[r].detach(), weights[index], rtol=0, atol=3e-7)


@pytest.mark.parametrize("optimiser", [Adam(), RMSprop(), SGD(momentum=0.9)], ids=repr)
def test_without_a_gradient_the_weights_decay_geometrically(optimiser):
    run = one_run(learning_rate=0.1, optimiser=optimiser, weight_decay=WeightDecay(strength=0.3), steps=40)
    learner = Learner.begin(Population((run,)), CPU)
    begin = {name: value.detach().clone() for name, value in learner.parameters.items()}
    none = {name: torch.zeros_like(value) for name, value in begin.items()}
    for _ in range(20):
        learner.update(torch.zeros(1), none, none)
    for name, value in learner.parameters.items():
        torch.testing.assert_close(value.detach(), begin[name] * (1 - 0.1 * 0.3) ** 20, rtol=1e-5, atol=0)


def test_weights_of_a_stopped_run_do_not_decay():
    runs = tuple(one_run(weight_decay=WeightDecay(strength=0.5), learning_rate=0.1).replace(seed=s) for s in range(2))
    learner = Learner.begin(Population(runs), CPU)
    begin = learner.parameters["W_hh"].detach().clone()
    gradients = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
    learner.update(torch.tensor([math.nan, 0.0]), gradients, gradients)
    assert torch.equal(learner.parameters["W_hh"][0], begin[0])
    torch.testing.assert_close(learner.parameters["W_hh"][1].detach(), 0.95 * begin[1])


def test_a_warm_up_rises_to_the_whole_rate_and_what_follows_begins_there():
    constant = [Constant(warm_up=4).factor(step, 10) for step in range(10)]
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]
    linear = [LinearDecay(warm_up=2, final=0.5).factor(step, 6) for step in range(6)]
    assert linear == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625]
    cosine = [CosineDecay(warm_up=1, final=0.2).factor(step, 5) for step in range(5)]
    half = math.sqrt(0.5)
    assert cosine == pytest.approx([1.0, 1.0, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half)])
    with pytest.raises(SpecError, match="warms up for 10 updates; they must be fewer than the 10 of training"):
        Training(steps=10, schedule=CosineDecay(warm_up=10))


def test_the_schedule_scales_the_step_of_a_run():
    """One update of plain SGD at a quarter of the rate moves the weights a quarter as far."""
    moved = []
    for schedule in (Constant(), Constant(warm_up=4)):
        run = one_run(steps=5, learning_rate=0.5, optimiser=SGD(), clip=None, schedule=schedule)
        learner = Learner.begin(Population((run,)), CPU)
        begin = learner.parameters["W_hh"].detach().clone()
        gradients = {name: torch.ones_like(value) for name, value in learner.parameters.items()}
        learner.update(torch.zeros(1), gradients, gradients)
        moved.append((learner.parameters["W_hh"].detach() - begin).mean().item())
    assert moved == pytest.approx([-0.5, -0.125])


# Omega.

SLOPES = {
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "linear": np.ones_like,
    "relu": lambda h: (h > 0).astype(float),
}


def omega_by_hand(w_hh, h, delta, slope, bound):
    """Section 3.1 of the paper and its code, one step and sequence at a time; h and delta (time, batch, width)."""
    numerator = denominator = 0.0
    for h_t, delta_t in zip(h, delta, strict=True):
        terms, lives = [], []
        for h_tb, delta_tb in zip(h_t, delta_t, strict=True):
            back = w_hh @ (delta_tb * slope(h_tb))
            n, d = back @ back, delta_tb @ delta_tb
            terms.append((n / d - 1) ** 2 if d >= bound else 0.0)
            lives.append(d >= bound)
        numerator += np.mean(terms)
        denominator += np.mean(lives)
    return numerator / denominator, denominator / len(h)


def backpropagated(cell, replicas=2, at=(3, TIME - 1)):
    """Parameters and trajectory after the backward pass of the mean over the batch of a made-up loss."""
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    drawn = [model.draw(PyTorchDefault(), generator(seed, "x")) for seed in range(replicas)]
    parameters = {n: (2 * torch.stack([values[n] for values in drawn])).double().requires_grad_() for n in drawn[0]}
    inputs = noise(TIME, replicas, BATCH, FEATURES)
    outputs, [trajectory] = model.forward(ReferenceEngine(), parameters, inputs, steps=at, observed=True)
    (outputs.tanh() * noise(*outputs.shape, seed=1)).sum((0, -1)).mean(-1).sum().backward()
    return parameters, inputs, trajectory


@pytest.mark.parametrize("activation", SLOPES)
def test_omega_is_its_definition(activation):
    cell = Elman(width=WIDTH, activation=activation)
    parameters, _, trajectory = backpropagated(cell)
    h, delta = trajectory.values("h"), trajectory.gradient("h")
    norms = delta.square().sum(-1).flatten().sort().values
    # One bound below all norms (steps after the loss have none), one that leaves out a third.
    for bound in (1e-20, norms[len(norms) // 3].item() * 1.0001):
        rule = Omega(strength=3.0, bound=bound)
        term = rule.term(cell, parameters["W_hh"], h, delta)
        for r in range(2):
            w, own_h, own_delta = parameters["W_hh"][r].detach().numpy(), h[:, r].numpy(), delta[:, r].numpy()
            value, live = omega_by_hand(w, own_h, own_delta, SLOPES[activation], bound)
            assert term.value[r].item() == pytest.approx(value, rel=1e-10)
            assert term.live[r].item() == pytest.approx(live, rel=1e-12)
            for i, j in itertools.product(range(WIDTH), repeat=2):
                step = np.zeros_like(w)
                step[i, j] = 1e-6
                above, below = (
                    omega_by_hand(x, own_h, own_delta, SLOPES[activation], bound)[0] for x in (w + step, w - step)
                )
                assert term.gradient[r, i, j].item() == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-7)


def test_omega_is_made_of_the_states_and_their_total_derivatives():
    """h by a loop in numpy; δ_{t-1} = W_hh (δ_t ⊙ φ′_t) + the direct part, from the last step to the first."""
    parameters, inputs, trajectory = backpropagated(Elman(width=WIDTH), at=(TIME - 1,))
    values = {name: value[0].detach().numpy() for name, value in parameters.items()}
    h, before = [], np.zeros((BATCH, WIDTH))
    for t in range(TIME):
        before = np.tanh(inputs[t, 0].numpy() @ values["W_xh"] + before @ values["W_hh"] + values["b_h"])
        h.append(before)
    np.testing.assert_allclose(trajectory.values("h")[:, 0].numpy(), h, rtol=0, atol=1e-12)
    o = h[-1] @ values["W_ho"] + values["b_o"]
    coefficients = noise(1, 2, BATCH, OUTPUTS, seed=1)[0, 0].numpy()
    delta = (1 - np.tanh(o) ** 2) * coefficients / BATCH @ values["W_ho"].T
    for t in range(TIME - 1, -1, -1):
        np.testing.assert_allclose(trajectory.gradient("h")[t, 0].numpy(), delta, rtol=0, atol=1e-14)
        delta = delta * (1 - h[t] ** 2) @ values["W_hh"].T


def test_omega_of_an_orthogonal_linear_network_is_that_of_its_gain():
    """‖δ W_hhᵀ‖² = ρ²‖δ‖²: Omega = (ρ² − 1)², nothing at ρ = 1; and its gradient leads there."""
    cell, h, delta = Elman(width=WIDTH, activation="linear"), noise(6, 3, 4, WIDTH), noise(6, 3, 4, WIDTH, seed=1)
    q = torch.linalg.qr(noise(WIDTH, WIDTH, seed=2)).Q
    gains = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    term = Omega(strength=1).term(cell, gains[:, None, None] * q, h, delta)
    torch.testing.assert_close(term.value, (gains**2 - 1) ** 2, rtol=0, atol=1e-12)
    # d/dρ of (ρ² − 1)² along Q, averaged over directions of δ, has the sign of ρ − 1.
    along = (term.gradient * q).sum((1, 2))
    torch.testing.assert_close(along, 4 * gains * (gains**2 - 1), rtol=0, atol=1e-10)


def test_omega_is_zero_when_no_gradient_is_large_enough():
    term = Omega(strength=1).term(Elman(width=2), noise(1, 2, 2), noise(3, 1, 4, 2), 1e-11 * noise(3, 1, 4, 2, seed=1))
    assert (term.value.item(), term.live.item(), term.gradient.abs().max().item()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("layers", [1, 2])
def test_omega_is_added_to_the_gradient_of_w_hh_before_clipping(layers):
    """One update of a population with a strength for each replica, against an update without it."""
    rate, strengths = 0.5, (0.0, 2.0, 4.0)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=4), layers=layers, seed=3)
    training = Training(steps=1, learning_rate=rate, optimiser=SGD(), clip=ClipNorm(threshold=0.05), **SMALL)
    plain = ended(base.replace(training=training.replace(clip=None)))[
        base.replace(training=training.replace(clip=None)).key
    ]
    runs = [base.replace(training=training.replace(omega=Omega(strength=strength))) for strength in strengths]
    assert len(populations(runs)) == 1
    actual = ended(runs)

    population = Population((base.replace(training=training),))
    learner = Learner.begin(population, CPU)
    batch = next(TrainingBatches(population, 0, CPU))
    outputs, trajectories = population.model.forward(
        ReferenceEngine(), learner.parameters, batch.inputs, steps=batch.steps, observed=True
    )
    learner.backward(batch.loss(base.task, outputs).mean(-1))
    begin = {name: value[0].detach() for name, value in learner.parameters.items()}
    gradient = {name: (begin[name] - torch.from_numpy(plain.weights[name])) / rate for name in begin}
    terms = {}
    for layer, trajectory in enumerate(trajectories):
        name = "W_hh" if layers == 1 else f"W_hh_layer{layer + 1}"
        h, delta = trajectory.values("h")[:, 0].double().numpy(), trajectory.gradient("h")[:, 0].double().numpy()
        terms[name] = omega_by_hand(begin[name].double().numpy(), h, delta, SLOPES["tanh"], 1e-20)
    rule = Omega(strength=1)
    for run, strength in zip(runs, strengths, strict=True):
        last = actual[run.key]
        full = dict(gradient)
        for layer, name in enumerate(terms):
            trajectory = trajectories[layer]
            term = rule.term(base.cell, begin[name][None], trajectory.values("h"), trajectory.gradient("h"))
            full[name] = full[name] + strength * term.gradient[0]
            suffix = name.removeprefix("W_hh")
            assert last.series[f"learning/omega{suffix}"].values[0] == pytest.approx(terms[name][0], rel=1e-4)
            assert last.series[f"learning/omega_live{suffix}"].values[0] == pytest.approx(terms[name][1], rel=1e-6)
            norm = math.log10(full[name].norm().item())
            assert last.series[f"gradient/{name}_before"].values[0] == pytest.approx(norm, abs=1e-3)
        size = math.sqrt(sum(value.square().sum().item() for value in full.values()))
        assert size > 0.05
        for name, value in full.items():
            expected = begin[name] - rate * value * 0.05 / size
            np.testing.assert_allclose(last.weights[name], expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", [LSTM(), GRU(), Jordan()], ids=repr)
def test_omega_is_refused_where_it_is_not_defined(cell):
    with pytest.raises(SpecError, match=rf"Omega is defined for the Elman cell, not for {type(cell).__name__}"):
        one_run(cell=cell, omega=Omega(strength=1))


# Truncation and h-detach.

CELLS = [Elman(width=WIDTH), LSTM(width=WIDTH), GRU(width=WIDTH), Jordan(width=WIDTH)]


def parameters_for(model, replicas=1):
    drawn = [model.draw(PyTorchDefault(), generator(seed, "x")) for seed in range(replicas)]
    return {n: (2 * torch.stack([values[n] for values in drawn])).double().requires_grad_() for n in drawn[0]}


def gradients_of(parameters, objective):
    actual = torch.autograd.grad(objective, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(parameters.items(), actual, strict=True)}


def by_hand(model, parameters, x, coefficients, constant):
    """The objective of one sequence x (time, features): a loop over layers and steps.

    Before step t of a layer, the states for which `constant(layer, t, name)` is true are made constants.
    """
    cell, below = model.cell, list(x.view(-1, 1, 1, x.shape[-1]))
    for layer in range(model.layers):
        own = model.own(parameters, layer)
        state = {name: torch.zeros(1, 1, width, dtype=x.dtype) for name, width in model.widths.items()}
        above = []
        for t, x_t in enumerate(below):
            read = {name: value.detach() if constant(layer, t, name) else value for name, value in state.items()}
            state = cell.step(own, cell.project(own, x_t), read, lambda _, value: value)
            above.append(state[cell.output])
        below = above
    outputs = torch.stack(below)[:, 0, 0]
    if not cell.owns_readout:
        outputs = outputs @ parameters["W_ho"][0] + parameters["b_o"][0]
    return (outputs.tanh() * coefficients).sum()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 3, 4, TIME - 1, TIME, 50])
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_truncated_gradients_are_those_of_chunks_aligned_to_each_sequences_end(cell, window, layers):
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    parameters, inputs = parameters_for(model), noise(TIME, 1, BATCH, FEATURES)
    ends = torch.tensor([TIME, TIME - 1, TIME - 4, TIME])
    coefficients = noise(TIME, 1, BATCH, OUTPUTS, seed=1) * (torch.arange(TIME)[:, None] < ends)[:, None, :, None]
    places = Truncation(window=window).cut_mask(layers, TIME, ends, torch.Generator())
    cuts = [{state: places[layer][:, None] for state in cell.states} for layer in range(layers)]
    outputs, _ = model.forward(ReferenceEngine(), parameters, inputs, steps=range(TIME), observed=False, cuts=cuts)
    actual = gradients_of(parameters, (outputs.tanh() * coefficients).sum())

    total = 0.0
    for b in range(BATCH):
        end = int(ends[b])
        starts = set(range(end - window, 0, -window))
        total = total + by_hand(
            model, parameters, inputs[:, 0, b], coefficients[:, 0, b], lambda _, t, name, s=starts: t in s
        )
    expected = gradients_of(parameters, total)
    for name in parameters:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=1e-12)
    whole, _ = model.forward(ReferenceEngine(), parameters, inputs, steps=range(TIME), observed=False)
    assert torch.equal(outputs, whole), "values are as without cuts"
    full = gradients_of(parameters, (whole.tanh() * coefficients).sum())
    name = model.label("W_xh", 0)
    assert torch.allclose(actual[name], full[name], rtol=0, atol=1e-12) == (window >= TIME)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_no_gradient_leaves_the_last_chunk(cell):
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    parameters, inputs = parameters_for(model, 2), noise(TIME, 2, BATCH, FEATURES)
    windows = (3, 5)
    ends = torch.full((BATCH,), TIME)
    masks = torch.stack([Truncation(window=w).cut_mask(1, TIME, ends, torch.Generator())[0] for w in windows], dim=1)
    cuts = [dict.fromkeys(cell.states, masks)]
    outputs, [cut] = model.forward(ReferenceEngine(), parameters, inputs, steps=(TIME - 1,), observed=True, cuts=cuts)
    outputs.square().sum().backward()
    outputs, [whole] = model.forward(ReferenceEngine(), parameters, inputs, steps=(TIME - 1,), observed=True)
    outputs.square().sum().backward()
    for r, window in enumerate(windows):
        for state in cell.states:
            assert not cut.gradient(state)[: TIME - window, r].any()
            assert (cut.log_norms(state)[: TIME - window, r] == -torch.inf).all()
            inside = slice(TIME - window, TIME)
            torch.testing.assert_close(
                cut.gradient(state)[inside, r], whole.gradient(state)[inside, r], rtol=0, atol=1e-13
            )


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("layers", [1, 2])
def test_h_detach_cuts_the_path_through_h_where_it_was_drawn(layers, probability):
    cell = LSTM(width=WIDTH)
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    parameters, inputs = parameters_for(model), noise(TIME, 1, BATCH, FEATURES)
    coefficients = noise(TIME, 1, BATCH, OUTPUTS, seed=1)
    ends = torch.full((BATCH,), TIME)
    places = HDetach(probability=probability).cut_mask(layers, TIME, ends, torch.Generator().manual_seed(2))
    assert (places == places[:, :, :1]).all(), "one draw for the batch"
    cuts = [{"h": places[layer][:, None]} for layer in range(layers)]
    outputs, _ = model.forward(ReferenceEngine(), parameters, inputs, steps=range(TIME), observed=False, cuts=cuts)
    actual = gradients_of(parameters, (outputs.tanh() * coefficients).sum())
    total = sum(
        by_hand(
            model, parameters, inputs[:, 0, b], coefficients[:, 0, b],
            lambda layer, t, name: name == "h" and bool(places[layer, t, 0]),
        )
        for b in range(BATCH)
    )  # fmt: skip
    for name, expected in gradients_of(parameters, total).items():
        torch.testing.assert_close(actual[name], expected, rtol=0, atol=1e-12)


def test_with_every_h_detached_the_cell_path_alone_is_left():
    """dL/dc_{t-1} = f_t ⊙ dL/dc_t, with the loss at the last step."""
    cell = LSTM(width=WIDTH)
    model = Model(cell=cell, layers=1, features=FEATURES, outputs=OUTPUTS)
    parameters, inputs = parameters_for(model), noise(TIME, 1, BATCH, FEATURES)
    cuts = [{"h": torch.ones(TIME, 1, BATCH, dtype=torch.bool)}]
    outputs, [trajectory] = model.forward(
        ReferenceEngine(), parameters, inputs, steps=(TIME - 1,), observed=True, cuts=cuts
    )
    outputs.square().sum().backward()
    h, carried = trajectory.values("h"), trajectory.gradient("c")
    for t in range(1, TIME):
        a = inputs[t] @ parameters["W_xh"] + h[t - 1] @ parameters["W_hh"] + parameters["b_h"][:, None]
        forget = torch.sigmoid(a[..., :WIDTH]).detach()
        torch.testing.assert_close(carried[t - 1], forget * carried[t], rtol=0, atol=1e-14)
    assert not trajectory.gradient("h")[:-1].any()


def masks_of(runs, step):
    population = Population(tuple(runs))
    batch = next(TrainingBatches(population, step, CPU))
    return gradient_cuts(population, step, batch)


def test_h_detachs_draws_belong_to_the_seed_and_the_update():
    runs = [
        one_run(LSTM(width=4), TemporalOrder(length=400), batch=2, h_detach=HDetach(probability=p)).replace(seed=s)
        for s, p in enumerate((0.25, 0.5, 0.5))
    ]
    [together], [again], [later] = masks_of(runs, 7), masks_of(runs, 7), masks_of(runs, 8)
    assert set(together) == {"h"}
    assert torch.equal(together["h"], again["h"])
    assert not torch.equal(together["h"], later["h"])
    for r, run in enumerate(runs):
        [alone] = masks_of([run], 7)
        assert torch.equal(alone["h"][:, 0], together["h"][:, r])
        share, p = together["h"][:, r].double().mean().item(), run.training.h_detach.probability
        assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / 400)
    assert not torch.equal(together["h"][:, 1], together["h"][:, 2])
    with_window = [run.replace(training=run.training.replace(truncation=Truncation(window=30))) for run in runs]
    [both] = masks_of(with_window, 7)
    assert set(both) == {"c", "h"}
    assert torch.equal(both["h"], together["h"] | both["c"])
    assert both["c"][:, 0, 0].nonzero().flatten().tolist() == [*range(10, 400, 30)]


def test_the_last_updates_are_whole_and_training_without_cuts_has_no_masks():
    run = one_run(LSTM(width=4), steps=10, h_detach=HDetach(whole_at_end=3))
    assert [masks_of([run], step) is None for step in range(10)] == [False] * 7 + [True] * 3
    assert masks_of([one_run(LSTM(width=4))], 0) is None
    with pytest.raises(SpecError, match=r"HDetach.whole_at_end is 11; it must be at most the 10 updates"):
        one_run(LSTM(width=4), steps=10, h_detach=HDetach(whole_at_end=11))
    with pytest.raises(SpecError, match=r"Elman\(width=4\) has no c, use an LSTM"):
        one_run(Elman(width=4), h_detach=HDetach())


@pytest.mark.parametrize(
    ("methods", "same"),
    [
        ({"truncation": Truncation(window=12)}, True),
        ({"truncation": Truncation(window=4)}, False),
        ({"h_detach": HDetach(probability=0)}, True),
        ({"h_detach": HDetach(probability=0.5)}, False),
        ({"weight_decay": WeightDecay(strength=0)}, True),
        ({"schedule": LinearDecay(final=1)}, True),
        ({"schedule": LinearDecay(final=0.5)}, False),
    ],
    ids=repr,
)
def test_a_method_that_cuts_nowhere_changes_nothing(methods, same):
    run = Run(task=Adding(length=12), cell=LSTM(width=4), training=Training(steps=8, **SMALL))
    other = run.replace(training=run.training.replace(**methods))
    # On one engine, because the reference engine trains the runs with cuts.
    one, two = (ended(each, engine="reference")[each.key].weights for each in (run, other))
    assert all(np.array_equal(one[name], two[name]) for name in one) == same


METHODS = {
    "schedule": CosineDecay(warm_up=5),
    "weight_decay": WeightDecay(strength=0.1),
    "truncation": Truncation(window=4),
}
EVERYTHING = [
    (Elman(width=4), {**METHODS, "omega": Omega(strength=2)}),
    (LSTM(width=4), {**METHODS, "h_detach": HDetach(probability=0.5, whole_at_end=20)}),
]


def population_with(cell, methods, steps=70):
    training = Training(
        steps=steps, batch=2, check_every=10, stop_when_solved=False, learning_rate=1e-2, **SMALL, **methods
    )
    base = Run(
        task=CopyMemory(length=3), cell=cell, training=training,
        probes=(ParameterGradients(), GradientThroughTime(every=4, sequences=5)),
    )  # fmt: skip
    return Population(
        (base, base.replace(seed=1, training=training.replace(truncation=Truncation(window=7), learning_rate=1e-3)))
    )


@pytest.mark.parametrize(("cell", "methods"), EVERYTHING, ids=repr)
def test_an_interrupted_run_with_every_method_equals_one_never_interrupted(cell, methods, tmp_path):
    runs = population_with(cell, methods)
    whole, pieces = ended(runs), {}
    for updates in (13, 40, 10**9):
        calls = itertools.count()
        stop = lambda calls=calls, updates=updates: next(calls) >= updates  # noqa: E731
        pieces.update(ended(runs, checkpoint=tmp_path / "file", checkpoint_seconds=0.0, stop=stop))
    for key, record in whole.items():
        twin = pieces[key]
        assert dataclasses.replace(record.outcome, seconds=0) == dataclasses.replace(twin.outcome, seconds=0)
        assert all(np.array_equal(value, twin.weights[name]) for name, value in record.weights.items())
        assert record.series.keys() == twin.series.keys()
        for name, series in record.series.items():
            assert np.array_equal(series.values, twin.series[name].values, equal_nan=True), name


@pytest.mark.parametrize(("cell", "methods"), EVERYTHING, ids=repr)
def test_a_member_of_a_population_with_every_method_is_the_run_alone(cell, methods):
    runs = population_with(cell, methods, steps=21).runs
    runs = [run.replace(training=run.training.replace(steps=21, test_sequences=5)) for run in runs]
    together = ended(Population(tuple(runs)))
    for run in runs:
        alone = ended(run)[run.key]
        for name, value in alone.weights.items():
            np.testing.assert_allclose(together[run.key].weights[name], value, rtol=1e-3, atol=1e-4)


# Which engine trains.


class Plain(ReferenceEngine):
    """Supports the Elman cell alone, and no training method."""

    name = "plain"

    def serves(self, cell, needs):
        return not needs and type(cell) is Elman


@pytest.mark.parametrize(
    ("cell", "methods", "engine"),
    [
        (Elman(width=4), {}, "plain"),
        (Elman(width=4), {"weight_decay": WeightDecay(), "schedule": CosineDecay()}, "plain"),
        (Elman(width=4), {"omega": Omega(strength=1)}, "reference"),
        (Elman(width=4), {"truncation": Truncation(window=3)}, "reference"),
        (LSTM(width=4), {}, "reference"),
        (LSTM(width=4), {"h_detach": HDetach(whole_at_end=2)}, "reference"),
    ],
    ids=repr,
)
def test_the_reference_engine_trains_the_runs_that_the_engine_does_not_support(cell, methods, engine):
    run = one_run(cell, steps=2, **methods)
    assert ended(run, engine=Plain())[run.key].outcome.engine == engine


def test_methods_make_other_runs_and_their_numbers_train_together():
    plain = one_run(LSTM(width=4))
    variants = [
        one_run(LSTM(width=4), **{name: rule})
        for name, rules in {
            "truncation": [Truncation(window=3), Truncation(window=4)],
            "h_detach": [HDetach(probability=0.1), HDetach(probability=0.2), HDetach(whole_at_end=5)],
            "weight_decay": [WeightDecay(strength=0.1), WeightDecay(strength=0.2)],
            "schedule": [Constant(warm_up=2), LinearDecay(), CosineDecay()],
        }.items()
        for rule in rules
    ]
    assert len({run.key for run in [plain, *variants]}) == 11
    assert sorted(len(population.runs) for population in populations([plain, *variants])) == [1, 1, 1, 1, 1, 2, 2, 2]
    orthogonal = [one_run(omega=Omega(strength=s)).replace(initialisation=Orthogonal()) for s in (1, 2)]
    assert len(populations(orthogonal)) == 1
