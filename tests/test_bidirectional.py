"""Bidirectional layers against torch.nn with copied weights, in float64: outputs, every gradient, gradients by step."""

import functools

import pytest
import torch

from rnnstudy import figures, train
from rnnstudy.cells import GRU, LRU, LSTM, Elman, Jordan
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.optimisers import Truncation
from rnnstudy.probes import (
    BackwardGain,
    GradientByLag,
    GradientThroughTime,
    RecurrentSpectrum,
    StateDecoder,
    StateDistance,
)
from rnnstudy.probes.first_informative import FirstInformative
from rnnstudy.probes.probe import Moment
from rnnstudy.probes.reading import MEDIAN
from rnnstudy.probes.state_distance import next_different
from rnnstudy.results import from_records
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import CopyMemory, SelectiveCopying, TemporalOrder
from rnnstudy.tasks.task import supervision
from rnnstudy.training.batches import fixed_batch
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME, WIDTH = 3, 2, 2, 4, 7, 5
LENGTHS = torch.tensor([7, 4, 6, 5])
CLOSE = {"rtol": 0, "atol": 1e-10}
LIBRARY = {Elman: torch.nn.RNN, LSTM: torch.nn.LSTM, GRU: torch.nn.GRU}
ONE_STEP = {Elman: torch.nn.RNNCell, LSTM: torch.nn.LSTMCell, GRU: torch.nn.GRUCell}
BLOCKS = {Elman: [0], LSTM: [1, 0, 3, 2], GRU: [0, 1, 2]}
"""Where torch.nn's blocks (i, f, g, o of an LSTM) stand among ours (f, i, o, C̃)."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(cell, layers, ends_only, block=None):
    model = Model(
        cell=cell,
        layers=layers,
        features=FEATURES,
        outputs=OUTPUTS,
        bidirectional=True,
        ends_only=ends_only,
        block=block,
    )
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(REPLICAS)]
    return model, {n: torch.stack([one[n] for one in drawn]).double().requires_grad_() for n in drawn[0]}


def to_torch(cell, values):
    """A matrix (in, out) or a bias, in torch.nn's order of blocks and orientation."""
    parts = values.chunk(len(BLOCKS[type(cell)]), dim=-1)
    joined = torch.cat([parts[index] for index in BLOCKS[type(cell)]], dim=-1)
    return joined.mT if joined.ndim == 2 else joined


def library(cell, layers, ours, replica, gradients=False):
    """torch.nn's weights of a replica by name: ours, or the gradients of ours."""
    found = {}
    for layer in range(layers):
        for theirs, suffix in ((f"_l{layer}", ""), (f"_l{layer}_reverse", "_reverse")):
            ending = (f"_layer{layer + 1}" if layers > 1 else "") + suffix
            own = {n: ours[n + ending] for n in ("W_xh", "W_hh", "b_h", "b_hn") if n + ending in ours}
            own = {n: (value.grad if gradients else value.detach())[replica] for n, value in own.items()}
            found["weight_ih" + theirs] = to_torch(cell, own["W_xh"])
            found["weight_hh" + theirs] = to_torch(cell, own["W_hh"])
            found["bias_ih" + theirs] = to_torch(cell, own["b_h"])
            # Ours is the sum of torch.nn's two biases, but for the candidate of the GRU.
            found["bias_hh" + theirs] = (
                found["bias_ih" + theirs].clone() if gradients else 0 * found["bias_ih" + theirs]
            )
            if "b_hn" in own:
                found["bias_hh" + theirs][-WIDTH:] = own["b_hn"]
    return found


def judged(ends_only):
    """The steps of which outputs are read, and what they are multiplied by before they are summed."""
    judge = noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1)
    steps = torch.arange(TIME)[:, None, None, None]
    ends = LENGTHS[:, None] - 1
    judge = judge * (steps == ends if ends_only else steps <= ends)
    used = tuple(judge.flatten(1).any(1).nonzero().flatten().tolist())
    return used, judge[list(used)]


@pytest.mark.parametrize("engine", [ReferenceEngine(), ScaledEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize("ends_only", [True, False], ids=["many to one", "synchronised"])
@pytest.mark.parametrize(("cell", "layers"), [(Elman(width=WIDTH), 1), (LSTM(width=WIDTH), 2), (GRU(width=WIDTH), 2)])
def test_equals_torch_nn_on_sequences_of_different_lengths(cell, layers, ends_only, engine):
    model, ours = network(cell, layers, ends_only)
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES).requires_grad_()
    steps, judge = judged(ends_only)
    ends = (LENGTHS - 1).expand(REPLICAS, -1)
    outputs, _ = model.forward(engine, ours, inputs, steps=steps, observed=True, ends=ends)
    (outputs * judge).sum().backward()
    for replica in range(REPLICAS):
        theirs = LIBRARY[type(cell)](FEATURES, WIDTH, layers, bidirectional=True, dtype=torch.float64)
        theirs.load_state_dict(library(cell, layers, ours, replica))
        own = inputs.detach()[:, replica].clone().requires_grad_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(own, LENGTHS, enforce_sorted=False)
        hidden, last = theirs(packed)
        if ends_only:
            last = last[0] if isinstance(last, tuple) else last
            read = torch.cat([last[-2], last[-1]], dim=-1).expand(len(steps), -1, -1)
        else:
            read = torch.nn.utils.rnn.pad_packed_sequence(hidden, total_length=TIME)[0][list(steps)]
        expected = read @ ours["W_ho"].detach()[replica] + ours["b_o"].detach()[replica]
        (expected * judge[:, replica]).sum().backward()
        used = judge[:, replica] != 0
        torch.testing.assert_close(outputs[:, replica][used], expected[used], **CLOSE)
        torch.testing.assert_close(inputs.grad[:, replica], own.grad, **CLOSE)
        found = library(cell, layers, ours, replica, gradients=True)
        for name, value in theirs.named_parameters():
            torch.testing.assert_close(found[name], value.grad, msg=lambda text, name=name: f"{name}: {text}", **CLOSE)


def one_direction(cell, weights, inputs):
    """h_1, …, h_T of torch.nn's cell, each with its gradient kept; for an LSTM also c."""
    step = ONE_STEP[type(cell)](inputs.shape[-1], WIDTH, dtype=torch.float64)
    step.load_state_dict(weights)
    state, found = None, []
    for x in inputs:
        state = step(x, state)
        found.append(state if isinstance(state, tuple) else (state,))
        for value in found[-1]:
            value.retain_grad()
    return found


def totals(states):
    """dL/dh_t, and for an LSTM dL/dc_t: on a CPU torch.nn's cell computes h_t from the c_t that it returns."""
    return {name: torch.stack([one[i].grad for one in states]) for i, name in enumerate("hc"[: len(states[0])])}


@pytest.mark.parametrize("ends_only", [True, False], ids=["many to one", "synchronised"])
@pytest.mark.parametrize("cell", [Elman(width=WIDTH), LSTM(width=WIDTH), GRU(width=WIDTH)], ids=repr)
def test_the_gradient_of_every_step_of_both_directions_equals_torch_nns(cell, ends_only):
    model, ours = network(cell, 1, ends_only)
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES)
    steps = (TIME - 1,) if ends_only else tuple(range(TIME))
    judge = noise(len(steps), REPLICAS, BATCH, OUTPUTS, seed=1)
    outputs, trajectories = model.forward(ScaledEngine(), ours, inputs, steps=steps, observed=True)
    (outputs * judge).sum().backward()
    in_time = model.in_time(trajectories)
    for replica in range(REPLICAS):
        weights = library(cell, 1, ours, replica)
        both = []
        for ending, read in (("_l0", inputs), ("_l0_reverse", inputs.flip(0))):
            own = {n.removesuffix(ending): v for n, v in weights.items() if n.endswith(ending)}
            both.append(one_direction(cell, own, read[:, replica]))
        forward, reverse = both
        pairs = [(forward[-1], reverse[-1])] if ends_only else list(zip(forward, reversed(reverse), strict=True))
        read = torch.stack([torch.cat([one[0], other[0]], dim=-1) for one, other in pairs])
        expected = read @ ours["W_ho"].detach()[replica] + ours["b_o"].detach()[replica]
        (expected * judge[:, replica]).sum().backward()
        for own, timed, states in zip(trajectories, in_time, both, strict=True):
            for name, values in totals(states).items():
                torch.testing.assert_close(own.gradient(name)[:, replica], values, **CLOSE)
                norms = values.norm(dim=-1).log10()
                norms = norms.flip(0) if states is reverse else norms
                torch.testing.assert_close(timed.log_norms(name)[:, replica], norms, **CLOSE)


@pytest.mark.parametrize(
    ("engine", "cell"),
    [(CompiledEngine(), LSTM(width=WIDTH)), (GraphEngine(), GRU(width=WIDTH)), (ScanEngine(), LRU(width=WIDTH))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_engine_agrees_with_the_reference(engine, cell):
    found = []
    for other, dtype in ((ReferenceEngine(), torch.float64), (engine, torch.float32)):
        model, double = network(cell, 2, ends_only=False)
        parameters = {name: value.detach().to(dtype).requires_grad_() for name, value in double.items()}
        steps, judge = judged(ends_only=False)
        outputs, trajectories = model.forward(
            other,
            parameters,
            noise(TIME, REPLICAS, BATCH, FEATURES).to(dtype),
            steps=steps,
            observed=True,
            ends=(LENGTHS - 1).expand(REPLICAS, -1),
        )
        (outputs * judge.to(dtype)).sum().backward()
        gradients = [value.grad.double() for value in parameters.values()]
        norms = [one.log_norms(state).clamp(min=-20) for one in trajectories for state in cell.states]
        found.append([outputs[judge != 0].double(), *gradients, *norms])
    for one, expected in zip(*reversed(found), strict=True):
        assert (one - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max().item())


def run_of(task, **given):
    training = Training(steps=4, batch=6, check_every=2, validation_sequences=6, test_sequences=6)
    return Run(**{"task": task, "cell": Elman(width=WIDTH), "bidirectional": True, "training": training, **given})


@pytest.mark.parametrize("task", [TemporalOrder(length=10), CopyMemory(length=3)])
def test_lags_count_from_the_end_of_each_direction(task):
    """The mirror image: reversed in time, the reverse direction has the profile of a forward one."""
    population = Population((run_of(task, layers=2),))
    batch = side_batch(population, population.initial_parameters(), 6, torch.device("cpu"))
    labels = [label for label, _ in batch.labelled()]
    assert labels == ["h_layer1", "h_layer1_reverse", "h_layer2", "h_layer2_reverse"]
    many_to_one = population.model.ends_only
    assert many_to_one == (supervision(task) == "at the end") == isinstance(task, TemporalOrder)
    for label, norms in batch.labelled():
        at_end = norms.gather(0, batch.last[None])
        assert at_end.isfinite().all(), label
        if label.startswith("h_layer2"):
            # Nothing is read after the end of either direction, and everything up to it reaches the loss.
            later = torch.arange(len(norms))[:, None, None] > batch.last
            assert (norms[later] == -torch.inf).all()
            assert norms[~later].isfinite().all()


def test_probes_tracking_and_training_take_both_directions():
    probes = (GradientThroughTime(every=2), GradientByLag(), BackwardGain(), RecurrentSpectrum(every=2))
    cut = Training(steps=4, batch=6, validation_sequences=6, test_sequences=6, truncation=Truncation(window=3))
    for given in ({}, {"training": cut}):
        *_, record = train(run_of(TemporalOrder(length=10), probes=probes, **given))
        assert record.outcome.status == "finished"
        assert {"log10_ratio_initial", "log10_ratio_initial_h_reverse", "rate_final_h_reverse"} <= set(
            record.outcome.summary
        )


def test_results_and_figures_take_both_directions():
    run = run_of(TemporalOrder(length=10), training=Training(steps=1, validation_sequences=2, test_sequences=2))
    results = from_records(train(run), [run])
    by_lag = results.readings("profile/h_reverse_initial")
    assert set(by_lag["lag"]) == set(range(10))
    picture = figures.gradient_by_lag(results, states=("h", "h_reverse"))
    assert set(picture.data["state"]) == {"h", "h_reverse"}


def test_a_reverse_matrix_has_its_own_readings():
    population = Population((run_of(TemporalOrder(length=10)),))
    parameters = population.initial_parameters()
    readings = RecurrentSpectrum().read(Moment("training", 0, parameters, {}, {}, None, cell=Elman(width=WIDTH)))
    found = {reading.name: reading.values for reading in readings}
    expected = torch.linalg.svdvals(parameters["W_hh_reverse"].double())[:, 0]
    torch.testing.assert_close(found["recurrent/W_hh_reverse_largest_singular_value"], expected)


def test_what_one_input_leaves_is_followed_in_the_order_in_which_each_direction_reads():
    """The distance at age 0 of the reverse state, computed step by step from the end of the sequences."""
    population = Population((run_of(TemporalOrder(length=10)),))
    parameters, count = population.initial_parameters(), 8
    side = functools.cache(lambda n: side_batch(population, parameters, n, torch.device("cpu")))
    moment = Moment("initial", 0, parameters, {}, {}, None, side, Elman(width=WIDTH))
    found = {reading.name: reading.values for reading in StateDistance(sequences=count).read(moment)}
    batch = side(count)
    first = FirstInformative.of(batch)
    partner, paired = next_different(first.inputs, first.marked)
    weights = {name: parameters[f"{name}_reverse"][0].double() for name in ("W_xh", "W_hh", "b_h")}
    distances = []
    for b in range(count):
        states, step = [], int(first.step[0, b])
        for own in (batch.inputs[step, 0, b], first.inputs[0, partner[0, b]]):
            h = torch.zeros(WIDTH, dtype=torch.float64)
            for t in range(int(batch.last[0, b]), step - 1, -1):
                x = own if t == step else batch.inputs[t, 0, b]
                h = (x @ weights["W_xh"] + h @ weights["W_hh"] + weights["b_h"]).tanh()
            states.append(h)
        distances.append((states[0] - states[1]).norm().log10())
    assert paired.all()
    expected = torch.stack(distances).quantile(0.5)
    torch.testing.assert_close(found["distance/h_reverse_initial"][0, MEDIAN, 0], expected, **CLOSE)
    assert not StateDecoder(sequences=8).read(moment)[1].values.isnan().any()


def test_the_contrast_of_informative_inputs_is_of_what_the_network_reads():
    population = Population((run_of(TemporalOrder(length=10)),))
    parameters = population.initial_parameters()
    batch = side_batch(population, parameters, 8, torch.device("cpu"))
    drawn = fixed_batch(population, "probe", 8, torch.device("cpu"))
    inputs = drawn.inputs.double().requires_grad_()
    double = {name: value.double() for name, value in parameters.items()}
    outputs, _ = population.model.forward(
        ReferenceEngine(), double, inputs, steps=drawn.steps, observed=False, ends=drawn.last
    )
    drawn.loss_of_last_step(population.task, outputs).sum().backward()
    torch.testing.assert_close(batch.input_log_norms(), inputs.grad.norm(dim=-1).log10(), **CLOSE)


def test_what_has_no_second_direction_is_refused_in_one_line():
    with pytest.raises(SpecError, match=r"^SelectiveCopying is supervised at some steps, of which the first is none"):
        run_of(SelectiveCopying(length=40))
    with pytest.raises(SpecError, match=r"^Jordan is its own readout and cannot be part of bidirectional layers; use"):
        run_of(TemporalOrder(length=10), cell=Jordan(width=WIDTH))
