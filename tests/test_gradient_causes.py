"""Signal against noise of the gradient by lag, and what each step back takes from it, against plain float64 loops."""

import numpy as np
import pytest
import torch

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.initialisation import Orthogonal
from rnnstudy.probes import BackwardGain, GradientSignal
from rnnstudy.probes.gradient_signal import mean_against_error
from rnnstudy.probes.probe import Moment
from rnnstudy.run import Run
from rnnstudy.tasks import Adding, LengthRange, TemporalOrder
from rnnstudy.training.batches import fixed_batch
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.population import Population

CPU = torch.device("cpu")
SEQUENCES = 8
TASKS = [TemporalOrder(length=12), LengthRange(task=TemporalOrder(length=10), length=16)]


def read(probe, population, stage="final"):
    """The probe's readings by name, as arrays (replica, …)."""
    parameters = population.initial_parameters()
    side = lambda sequences: side_batch(population, parameters, sequences, CPU)  # noqa: E731
    moment = Moment(stage, 0, parameters, {}, {}, None, side, population.model.cell)
    return {reading.name: reading.values.numpy() for reading in probe.read(moment)}


def plain_passes(population, replica):
    """For each sequence of the side batch: inputs, gradients at pre-activations and states, and τ_b, by autograd.

    The pre-activations of step t are the leaves; the first gates are x_t W_xh + b_h."""
    batch = fixed_batch(population, "probe", SEQUENCES, CPU)
    own = {name: value[replica : replica + 1].double() for name, value in population.initial_parameters().items()}
    cell, model = population.model.cell, population.model
    for b in range(SEQUENCES):
        last = int(batch.last[replica, b])
        x = batch.inputs[: last + 1, replica, b].double()
        gates = [(x_t @ own["W_xh"][0] + own["b_h"][0]).view(1, 1, -1).requires_grad_() for x_t in x]
        state = {name: torch.zeros(1, 1, width, dtype=torch.float64) for name, width in model.widths.items()}
        states = []
        for step_gates in gates:
            state = cell.step(own, step_gates, state, lambda _, value: value)
            for value in state.values():
                value.retain_grad()
            states.append(state)
        outputs = (state["h"][0] @ own["W_ho"][0] + own["b_o"][0]).view(1, 1, 1, -1)
        index = batch.steps.index(last)
        population.task.loss(
            outputs, batch.targets[index, replica, b].view(1, 1, 1, *batch.targets.shape[3:])
        ).sum().backward()
        at_gates = torch.stack([step_gates.grad.view(-1) for step_gates in gates])
        at_states = {name: torch.stack([each[name].grad.view(-1) for each in states]) for name in model.widths}
        yield x, at_gates, at_states, last


def population_of(cell, task):
    return Population(tuple(Run(task=task, cell=cell, initialisation=Orthogonal(), seed=seed) for seed in range(2)))


@pytest.mark.parametrize("cell", [Elman(width=4), LSTM(width=3), GRU(width=3)], ids=repr)
@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_signal_against_noise_is_that_of_a_plain_loop(cell, task):
    population = population_of(cell, task)
    found = read(GradientSignal(sequences=SEQUENCES), population)
    for replica in range(2):
        by_lag = {}
        for x, at_gates, _, last in plain_passes(population, replica):
            for lag in range(last + 1):
                by_lag.setdefault(lag, []).append(torch.outer(x[last - lag], at_gates[last - lag]).flatten().numpy())
        for lag in range(found["signal/W_xh_final"].shape[1]):
            contributions = np.array(by_lag.get(lag, []))
            measured = [found[f"signal/W_xh{suffix}_final"][replica, lag] for suffix in ("", "_to_noise", "_halves")]
            if len(contributions) < SEQUENCES / 2:
                assert np.isnan(measured).all()
                continue
            mean = contributions.mean(0)
            error = np.sqrt(contributions.var(0, ddof=1).sum() / len(contributions))
            expected = [np.log10(np.linalg.norm(mean)), np.log10(np.linalg.norm(mean) / error)]
            np.testing.assert_allclose(measured[:2], expected, rtol=0, atol=1e-9)
            if len(contributions) == SEQUENCES:
                one, two = contributions[: SEQUENCES // 2].mean(0), contributions[SEQUENCES // 2 :].mean(0)
                cosine = one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
                assert measured[2] == pytest.approx(cosine, abs=1e-9)


def test_the_means_over_lags_add_up_to_the_gradient_of_the_input_weights():
    population = population_of(Elman(width=4), Adding(length=9))
    total = 0.0
    for x, at_gates, _, last in plain_passes(population, 0):
        total = total + sum(torch.outer(x[t], at_gates[t]) for t in range(last + 1)) / SEQUENCES
    side = side_batch(population, population.initial_parameters(), SEQUENCES, CPU)
    complete = side.layers[0].parameter_gradients()["W_xh"].values()[0] / SEQUENCES
    torch.testing.assert_close(complete, total, rtol=1e-9, atol=1e-15)


def test_equal_vectors_are_all_signal_and_random_ones_are_noise():
    noise = torch.Generator().manual_seed(0)
    exists = torch.ones(1, 60, dtype=torch.bool)
    ratio = lambda vectors: [float(value) for value in mean_against_error(vectors @ vectors.mT, exists)][1]  # noqa: E731
    random = torch.randn(400, 1, 60, 300, generator=noise, dtype=torch.float64)
    assert np.mean([ratio(vectors) ** 2 for vectors in random]) == pytest.approx(1.0, abs=0.02)
    # Mean of norm 1, variance 1 in each of 300 directions: (‖m‖/s)² is about 1 + 60/300.
    shifted = random + torch.nn.functional.one_hot(torch.tensor(0), 300)
    assert np.mean([ratio(vectors) ** 2 for vectors in shifted]) == pytest.approx(1 + 60 / 300, abs=0.03)
    assert ratio(torch.ones(1, 60, 3, dtype=torch.float64)) > 1e6


def test_signal_survives_where_the_gradient_leaves_the_range_of_floats():
    population = population_of(Elman(width=4, activation="linear"), TemporalOrder(length=80))
    parameters = population.initial_parameters()
    parameters["W_hh"] = 1e-6 * parameters["W_hh"]
    side = lambda sequences: side_batch(population, parameters, sequences, CPU)  # noqa: E731
    moment = Moment("final", 0, parameters, {}, {}, None, side, population.model.cell)
    found = {reading.name: reading.values for reading in GradientSignal(sequences=SEQUENCES).read(moment)}
    assert (found["signal/W_xh_final"][:, -1] < -400).all()
    assert found["signal/W_xh_to_noise_final"].isfinite().all()


class OwnProjection(Elman):
    """A cell that reads its input in its own way."""

    def project(self, parameters, inputs):
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs.tanh(), parameters["W_xh"])


def test_a_cell_that_reads_its_input_in_its_own_way_has_no_reading():
    assert OwnProjection.project is not Cell.project
    assert read(GradientSignal(sequences=4), population_of(OwnProjection(width=3), TASKS[0])) == {}


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_gains_of_a_vanilla_rnn_are_those_of_a_plain_loop_and_add_up(task):
    population = population_of(Elman(width=4), task)
    found = read(BackwardGain(sequences=SEQUENCES), population)
    weights = population.initial_parameters()["W_hh"].double()
    for replica in range(2):
        activation, matrix = {}, {}
        for _, at_gates, at_states, last in plain_passes(population, replica):
            arriving, passed = at_states["h"], at_gates @ weights[replica].T
            for lag in range(last + 1):
                t = last - lag
                activation.setdefault(lag, []).append((at_gates[t].norm() / arriving[t].norm()).log10().item())
                matrix.setdefault(lag, []).append((passed[t].norm() / at_gates[t].norm()).log10().item())
        for lag, values in activation.items():
            known = len(values) >= SEQUENCES / 2
            for name, all_values in (("activation", values), ("matrix", matrix[lag])):
                expected = np.mean(all_values) if known else np.nan
                np.testing.assert_allclose(found[f"gain/{name}_final"][replica, lag], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        found["gain/step_final"], found["gain/activation_final"] + found["gain/matrix_final"], rtol=0, atol=1e-9
    )


def test_gates_by_lag_are_those_of_the_equations_and_a_linear_network_has_the_gain_of_its_matrix():
    population = population_of(LSTM(width=3), TASKS[0])
    found = read(BackwardGain(sequences=SEQUENCES), population)
    assert "gain/activation_final" not in found
    batch = fixed_batch(population, "probe", SEQUENCES, CPU)
    parameters = {name: value.double() for name, value in population.initial_parameters().items()}
    h = c = torch.zeros(2, SEQUENCES, 3, dtype=torch.float64)
    forget = []
    for x in batch.inputs.double():
        gates = x @ parameters["W_xh"] + h @ parameters["W_hh"] + parameters["b_h"].unsqueeze(1)
        f, i, o, candidate = gates.split(3, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
        h = o.sigmoid() * c.tanh()
        forget.append(f.sigmoid().mean((1, 2)))
    np.testing.assert_allclose(found["gates/f_final"], torch.stack(forget[::-1], 1).numpy(), rtol=0, atol=1e-9)

    linear = Population(
        (Run(task=TASKS[0], cell=Elman(width=4, activation="linear"), initialisation=Orthogonal(gain=0.5)),)
    )
    found = read(BackwardGain(sequences=SEQUENCES), linear)
    np.testing.assert_allclose(found["gain/matrix_final"], np.log10(0.5), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["gain/activation_final"], 0.0, rtol=0, atol=1e-12)
