"""What is left of an informative input in the state: against slow versions from the definition, and closed forms."""

import functools
import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from rnnstudy.cells import GRU, LSTM, Elman, Jordan
from rnnstudy.probes import StateDecoder, StateDistance
from rnnstudy.probes.probe import Moment
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.probes.state_distance import next_different
from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.tasks import Adding, EmbeddedReber, LengthRange, Parity, TemporalOrder
from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import Chance, Criterion, at_steps, supervised_at_end
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

SEQUENCES = 13
# Sequences of different lengths; the mark is a number, or one of two symbols.
ADDING = Adding(length=20, variant="pascanu")
ORDER = LengthRange(task=TemporalOrder(length=10), length=14)
CASES = [
    (Elman(width=4), ADDING, 1),
    (Elman(width=4), ORDER, 2),
    (LSTM(width=3), ADDING, 2),
    (LSTM(width=3), ORDER, 1),
    (GRU(width=3), ADDING, 1),
    (Jordan(width=4), ORDER, 2),
]


class FirstNumbers(Classification):
    """Two numbers at the first step and nothing afterwards; whether their sum is positive."""

    source: ClassVar[str] = "made up"
    features: ClassVar[int] = 2
    outputs: ClassVar[int] = 2
    criterion: ClassVar[Criterion] = Criterion(0.01, "almost none wrong", "share wrong")
    chance: ClassVar[Chance] = Chance(loss=math.log(2), error=0.5)
    marked: bool = True
    constant: bool = False

    def sample(self, batch, generator):
        inputs = torch.zeros(self.steps, batch, 2)
        inputs[0] = 0.1 if self.constant else torch.randn(batch, 2, generator=generator)
        informative = at_steps(self.steps, torch.full((batch,), 0 if self.marked else -1))
        return supervised_at_end(inputs, (inputs[0].sum(-1) > 0).long(), informative)


class Laboratory:
    """Two replicas of a network on a side batch, and every sequence of it on its own, in a plain loop of steps."""

    def __init__(self, cell, task, layers=1, gain=2.0, stage="final", **changed):
        runs = tuple(Run(task=task, cell=cell, layers=layers, seed=seed) for seed in range(2))
        self.population = Population(runs)
        initial = self.population.initial_parameters()
        self.parameters = {name: changed.get(name, gain * value.detach()) for name, value in initial.items()}
        self.cell, self.task, self.layers = cell, task, layers

        @functools.cache
        def side(sequences):
            return side_batch(self.population, self.parameters, sequences, torch.device("cpu"))

        self.moment = Moment(stage, 0, self.parameters, {}, {}, None, side, cell)

    def values(self, probe):
        return {reading.name: reading.values.double().numpy() for reading in probe.read(self.moment)}

    def batch(self, replica):
        return self.task.sample(SEQUENCES, generator(self.population.runs[replica].seed, "probe"))

    def own(self, replica):
        return {name: value[replica : replica + 1].double() for name, value in self.parameters.items()}

    def states(self, replica, inputs):
        """For each layer, the states s_1, s_2, … of one sequence with these inputs (time, features), by name."""
        model, below, of_layers = self.population.model, inputs.double(), []
        for layer in range(self.layers):
            own = model.own(self.own(replica), layer)
            state = {name: torch.zeros(1, 1, width, dtype=torch.float64) for name, width in model.widths.items()}
            rows = []
            for x in below:
                projected = self.cell.project(own, x.view(1, 1, -1))
                state = self.cell.step(own, projected, state, lambda _, value: value)
                rows.append({name: value.flatten().numpy() for name, value in state.items()})
            of_layers.append({name: np.array([row[name] for row in rows]) for name in self.cell.states})
            below = torch.from_numpy(of_layers[-1][self.cell.output])
        return of_layers

    def marks(self, replica):
        """For each sequence: its first informative step, the input there, and its last supervised step."""
        batch = self.batch(replica)
        for b in range(SEQUENCES):
            step = int(batch.informative[:, b].nonzero().min())
            yield step, batch.inputs[step, b].double().numpy(), int(batch.mask[:, b].nonzero().max())


def label(name, layer, layers):
    return name if layers == 1 else f"{name}_layer{layer + 1}"


@pytest.mark.parametrize(("cell", "task", "layers"), CASES, ids=repr)
def test_the_decoder_is_ridge_regression_on_the_other_half(cell, task, layers):
    laboratory, noise = Laboratory(cell, task, layers), 0.05
    found = laboratory.values(StateDecoder(sequences=SEQUENCES, noise=noise))
    for r in range(2):
        marks, inputs = list(laboratory.marks(r)), laboratory.batch(r).inputs
        states = [laboratory.states(r, inputs[:, b]) for b in range(SEQUENCES)]
        for layer in range(layers):
            name, shares = label(cell.output, layer, layers), []
            for age in range(task.steps):
                there = [b for b in range(SEQUENCES) if marks[b][0] + age <= marks[b][2]]
                if len(there) < SEQUENCES / 2:
                    shares.append(np.nan)
                    continue
                rows = {b: states[b][layer][cell.output][marks[b][0] + age] for b in there}
                of_decoder = of_mean = 0.0
                for parity in (True, False):
                    fit = [b for b in there if (b < SEQUENCES // 2) == parity]
                    others = [b for b in there if b not in fit]
                    h, y = np.array([rows[b] for b in fit]), np.array([marks[b][1] for b in fit])
                    strength = len(fit) * (noise**2 * h.var(axis=0).mean() + 2.0**-48 * (h**2).mean())
                    predicted = Ridge(alpha=strength).fit(h, y).predict(np.array([rows[b] for b in others]))
                    wanted = np.array([marks[b][1] for b in others])
                    of_decoder += ((wanted - predicted) ** 2).sum()
                    of_mean += ((wanted - y.mean(axis=0)) ** 2).sum()
                shares.append(1 - of_decoder / of_mean)
            np.testing.assert_allclose(found[f"decoded/{name}_final"][r], shares, rtol=1e-7, atol=1e-9)
            measured = np.array(shares)[np.isfinite(shares)]
            assert len(measured) < task.steps
            assert found[f"summary/decoded_{name}_final"][r] == pytest.approx(measured[-1], rel=1e-7, abs=1e-9)
    assert len(found) == 2 * layers


@pytest.mark.parametrize(("cell", "task", "layers"), CASES, ids=repr)
def test_the_distance_is_that_of_two_sequences_run_by_hand(cell, task, layers):
    laboratory = Laboratory(cell, task, layers)
    found = laboratory.values(StateDistance(sequences=SEQUENCES))
    for r in range(2):
        marks, inputs = list(laboratory.marks(r)), laboratory.batch(r).inputs
        states = [laboratory.states(r, inputs[:, b]) for b in range(SEQUENCES)]
        others = {}
        for b in range(SEQUENCES):
            following = [(b + shift) % SEQUENCES for shift in range(1, SEQUENCES)]
            partner = next(c for c in following if not np.array_equal(marks[c][1], marks[b][1]))
            changed = inputs[:, b].clone()
            changed[marks[b][0]] = torch.from_numpy(marks[partner][1])
            others[b] = laboratory.states(r, changed)
        for layer in range(layers):
            name, at_end = label(cell.output, layer, layers), ()
            for age in range(task.steps):
                there = [b for b in range(SEQUENCES) if marks[b][0] + age <= marks[b][2]]
                row = {b: states[b][layer][cell.output][marks[b][0] + age] for b in there}
                actual = [found[f"distance/{name}{part}_final"][r][:, age] for part in ("", "_relative")]
                if not there:
                    assert np.isnan(actual).all()
                    continue
                logs = np.array(
                    [np.log10(np.linalg.norm(row[b] - others[b][layer][cell.output][marks[b][0] + age])) for b in there]
                )
                assert found[f"distance/{name}_final_zeros"][r][age] == 0
                np.testing.assert_allclose(actual[0], np.quantile(logs, QUANTILES), rtol=1e-9, atol=1e-9)
                if len(there) == 1:
                    assert np.isnan(actual[1]).all()
                    continue
                apart = [np.linalg.norm(row[b] - row[c]) ** 2 for b, c in itertools.combinations(there, 2)]
                relative = logs - np.log10(np.mean(apart)) / 2
                np.testing.assert_allclose(actual[1], np.quantile(relative, QUANTILES), rtol=1e-9, atol=1e-9)
                if len(there) >= SEQUENCES / 2:
                    at_end = (np.median(logs), np.median(relative))
            summaries = [found[f"summary/distance_{name}{part}_final"][r] for part in ("", "_relative")]
            assert summaries == pytest.approx(at_end, rel=1e-9)
    assert len(found) == 5 * layers


def test_all_states_side_by_side():
    laboratory = Laboratory(LSTM(width=3), ADDING)
    decoded = laboratory.values(StateDecoder(sequences=SEQUENCES, states="all"))
    assert set(decoded) == {"decoded/joint_final", "summary/decoded_joint_final"}
    joint = laboratory.values(StateDistance(sequences=SEQUENCES, states="all"))["distance/joint_final"]
    for r in range(2):
        marks, batch = list(laboratory.marks(r)), laboratory.batch(r)
        logs = []
        for b, (step, _, _) in enumerate(marks):
            changed = batch.inputs[:, b].clone()
            changed[step] = torch.from_numpy(marks[(b + 1) % SEQUENCES][1])
            one, other = (laboratory.states(r, inputs)[0] for inputs in (batch.inputs[:, b], changed))
            logs.append(math.log10(math.hypot(*(np.linalg.norm(one[s][step] - other[s][step]) for s in ("c", "h")))))
        np.testing.assert_allclose(joint[r][:, 0], np.quantile(logs, QUANTILES), rtol=1e-9)
    alone = Laboratory(Elman(width=3), ADDING)
    assert "decoded/h_final" in alone.values(StateDecoder(sequences=SEQUENCES, states="all"))


def linear(factor, bias=0.0, steps=40, width=3, stage="initial"):
    """h_t = factor·h_{t−1} + x_t W_xh + bias."""
    return Laboratory(
        Elman(width=width, activation="linear"), FirstNumbers(length=steps), gain=1.0, stage=stage,
        W_hh=factor * torch.eye(width).expand(2, -1, -1), b_h=torch.full((2, width), bias),
    )  # fmt: skip


def test_a_linear_network_that_only_adds_keeps_everything():
    laboratory = linear(1.0)
    decoded = laboratory.values(StateDecoder(sequences=40))
    np.testing.assert_allclose(decoded["decoded/h_initial"], 1.0, atol=1e-6)
    np.testing.assert_allclose(decoded["summary/decoded_h_initial"], 1.0, atol=1e-6)
    distance = laboratory.values(StateDistance(sequences=SEQUENCES))
    curve = distance["distance/h_initial"]
    np.testing.assert_allclose(curve, np.broadcast_to(curve[..., :1], curve.shape), atol=1e-12)
    for r in range(2):
        inputs, W_xh = laboratory.batch(r).inputs[0].double(), laboratory.parameters["W_xh"][r].double()
        logs = ((inputs - inputs.roll(-1, 0)) @ W_xh).norm(dim=-1).log10()
        np.testing.assert_allclose(curve[r, :, 0], np.quantile(logs.numpy(), QUANTILES), rtol=1e-9)
    # There is nothing else in these sequences: 1/√2 of the distance to the partner is a standard deviation.
    assert np.abs(distance["summary/distance_h_relative_initial"]).max() < 0.3


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_the_distance_in_a_linear_network_is_a_power(factor):
    # In the end, squares of the states lie beyond the range of float64.
    laboratory = linear(factor, steps=270)
    found = laboratory.values(StateDistance(sequences=20))
    np.testing.assert_allclose(np.diff(found["distance/h_initial"], axis=-1), math.log10(factor), atol=1e-9)
    np.testing.assert_allclose(np.diff(found["distance/h_relative_initial"], axis=-1), 0.0, atol=1e-9)
    # What is scaled is still there.
    decoded = laboratory.values(StateDecoder(sequences=20))["decoded/h_initial"]
    np.testing.assert_allclose(decoded, 1.0, atol=1e-6)


def test_a_trace_below_the_rounding_of_float32_is_not_kept():
    """With a bias the states converge to 2·bias: the trace 2^−age is lost in float32 after some 24 steps."""
    laboratory = linear(0.5, bias=1.0, steps=90)
    decoded = laboratory.values(StateDecoder(sequences=40))["decoded/h_initial"]
    assert (decoded[:, :12] > 0.999).all()
    assert (decoded[:, 45:] < 0.01).all()
    found = laboratory.values(StateDistance(sequences=SEQUENCES))
    np.testing.assert_allclose(np.diff(found["distance/h_initial"][..., :35], axis=-1), -math.log10(2), atol=1e-4)
    zeros = found["distance/h_initial_zeros"]
    assert (zeros[:, :35] == 0).all()
    assert (zeros[:, 55:] == 1).all()
    assert np.isnan(found["distance/h_initial"][..., 55:]).all()
    assert np.isnan(found["distance/h_relative_initial"][..., 55:]).all()
    assert np.isnan(found["summary/distance_h_initial"]).all()


def test_a_network_without_recurrence_keeps_nothing():
    laboratory = linear(0.0, steps=6)
    decoded = laboratory.values(StateDecoder(sequences=40))["decoded/h_initial"]
    np.testing.assert_allclose(decoded[:, 0], 1.0, atol=1e-6)
    np.testing.assert_allclose(decoded[:, 1:], 0.0, atol=1e-12)
    found = laboratory.values(StateDistance(sequences=SEQUENCES))
    assert found["distance/h_initial_zeros"].tolist() == [[0.0] + 5 * [1.0]] * 2
    assert np.isnan(found["distance/h_initial"][..., 1:]).all()


def test_noise_hides_what_is_small_beside_what_differs_anyway():
    """One unit keeps the mark at 10^−4 of what the other holds of the distractors: above 10^−5, and far below .01."""
    task, width = TemporalOrder(length=10), 2
    W_xh = torch.zeros(2, 6, width)
    W_xh[:, 0, 1], W_xh[:, 2:, 0] = 1e-4, torch.tensor([-1.0, -0.3, 0.4, 1.0])
    W_hh = torch.diag(torch.tensor([0.0, 1.0])).expand(2, -1, -1)
    laboratory = Laboratory(
        Elman(width=width, activation="linear"), task, W_xh=W_xh, W_hh=W_hh, b_h=torch.zeros(2, width)
    )
    read = {noise: laboratory.values(StateDecoder(noise=noise))["decoded/h_final"] for noise in (1e-5, 0.01)}
    assert (read[1e-5][:, :4] > 0.97).all()
    assert (read[0.01][:, 1:4] < 0.05).all()


@pytest.mark.parametrize("task", [Parity(length=6), FirstNumbers(length=6, marked=False)], ids=repr)
@pytest.mark.parametrize("probe", [StateDecoder(sequences=5), StateDistance(sequences=5)], ids=repr)
def test_nothing_is_read_where_no_step_is_informative_or_every_step(probe, task):
    assert probe.read(Laboratory(Elman(width=3), task).moment) == []


def test_an_input_that_is_always_the_same_leaves_nothing_to_measure():
    laboratory = Laboratory(Elman(width=3), FirstNumbers(length=6, constant=True))
    found = {**laboratory.values(StateDecoder(sequences=7)), **laboratory.values(StateDistance(sequences=7))}
    assert len(found) == 7
    assert all(np.isnan(values).all() for values in found.values())


def test_states_that_are_not_finite_are_absent():
    laboratory = linear(1e30, steps=20, stage="training")
    decoded = laboratory.values(StateDecoder(sequences=40))
    assert set(decoded) == {"decoded/h"}
    assert np.isfinite(decoded["decoded/h"][:, :10]).all()
    assert np.isnan(decoded["decoded/h"][:, 12:]).all()
    found = laboratory.values(StateDistance(sequences=5))
    assert set(found) == {"distance/h", "distance/h_relative", "distance/h_zeros"}
    assert np.isfinite(found["distance/h"][..., :10]).all()
    assert np.isnan(found["distance/h"][..., 12:]).all()


def test_the_partner_is_the_next_sequence_with_another_input():
    inputs = torch.tensor([[1.0, 1.0, 2.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0, 1.0]])
    marked = torch.ones(3, 5, dtype=torch.bool)
    marked[0, 2] = False
    partner, paired = next_different(inputs.unsqueeze(-1), marked)
    assert paired.tolist() == [[True, True, False, True, True], [False] * 5, [True] * 5]
    assert partner[0][paired[0]].tolist() == [4, 4, 4, 0]
    assert partner[2].tolist() == [3, 3, 3, 4, 3]


@pytest.mark.parametrize(
    "task", [LengthRange(task=TemporalOrder(length=10), length=21), EmbeddedReber(length=20)], ids=repr
)
@pytest.mark.parametrize("cell", [Elman(width=4), LSTM(width=3)], ids=repr)
@pytest.mark.parametrize("probe", [StateDecoder(sequences=9), StateDistance(sequences=9)], ids=repr)
def test_readings_do_not_depend_on_the_runs_beside_them(probe, cell, task):
    runs = tuple(Run(task=task, cell=cell, seed=seed) for seed in range(3))

    def readings(*chosen):
        population = Population(chosen)
        batch = side_batch(population, population.initial_parameters(), 9, torch.device("cpu"))
        return probe.read(Moment("final", 0, {}, {}, {}, None, lambda _: batch, cell))

    alone, together = [readings(run) for run in runs], readings(*runs)
    for index, reading in enumerate(together):
        for replica, own in enumerate(readings[index] for readings in alone):
            assert (own.name, own.axes, own.coordinates) == (reading.name, reading.axes, reading.coordinates)
            np.testing.assert_allclose(own.values[0], reading.values[replica], rtol=1e-9, atol=1e-9)
    assert all(len(readings) == len(together) for readings in alone)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: StateDecoder(sequences=1), "StateDecoder.sequences"),
        (lambda: StateDecoder(noise=0.0), "StateDecoder.noise"),
        (lambda: StateDecoder(states="cell"), "StateDecoder.states"),
        (lambda: StateDistance(sequences=1), "StateDistance.sequences"),
    ],
)
def test_impossible_settings_are_refused(build, words):
    with pytest.raises(SpecError, match=words):
        build()
