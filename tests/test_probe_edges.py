"""What a probe reads of a run does not depend on the runs beside it, nor on how many sequences are asked for."""

import random
from typing import ClassVar

import numpy as np
import pytest
import torch

from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.cell import Parameter
from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.probes import GradientByLag, GradientThroughTime, SingularValues
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import EmbeddedReber, LengthRange, TemporalOrder
from rnnstudy.training import evaluation
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

CPU = torch.device("cpu")
BRIEF = Training(steps=2, batch=3, check_every=2, validation_sequences=5, test_sequences=5)


def last_records(runs):
    return {record.key: record for record in train(runs, device="cpu") if record.outcome}


@pytest.mark.parametrize("cell", [Elman(width=4), LSTM(width=3)], ids=repr)
@pytest.mark.parametrize(
    "task", [LengthRange(task=TemporalOrder(length=10), length=21), EmbeddedReber(length=20)], ids=repr
)
@pytest.mark.parametrize("together", [1, 2, 4])
def test_readings_of_variable_lengths_do_not_depend_on_the_runs_beside_them(task, cell, together, monkeypatch):
    probes = (SingularValues(sequences=2), SingularValues(sequences=1, every=2), GradientByLag(sequences=2))
    runs = [Run(task=task, cell=cell, seed=seed, training=BRIEF, probes=probes[::2]) for seed in range(4)]
    alone = {run.key: last_records(run)[run.key] for run in runs}
    monkeypatch.setattr(evaluation, "replicas_probed_together", lambda *_: together)
    for key, record in last_records(runs).items():
        assert record.series.keys() == alone[key].series.keys()
        for name, series in record.series.items():
            assert series.coordinates == alone[key].series[name].coordinates
            assert series.values.shape == alone[key].series[name].values.shape
            if name.endswith("_initial"):
                np.testing.assert_allclose(series.values, alone[key].series[name].values, rtol=1e-5, atol=1e-6)


def test_a_lag_is_that_of_the_step_at_which_it_was_measured():
    """The lags of a variable-length task are those of its longest sequences: 1, 2, 4, … and T − 1."""
    task = LengthRange(task=TemporalOrder(length=10), length=21)
    run = Run(task=task, cell=Elman(width=4), training=BRIEF, probes=(SingularValues(sequences=2),))
    series = last_records(run)[run.key].series["singular_values/h_initial"]
    assert series.coordinates["lag"] == (1.0, 2.0, 4.0, 8.0, 16.0, 20.0)
    population = Population((run,))
    batch = side_batch(population, population.initial_parameters(), 2, CPU)
    [layer] = batch.layers
    jacobians = dict(zip(reversed(range(21)), layer.jacobians(backwards=True), strict=True))
    for index, lag in enumerate((1, 2, 4, 8, 16, 20)):
        values = []
        for b in range(2):
            last = int(batch.last[0, b])
            if lag > last:
                continue
            product = torch.eye(4, dtype=torch.float64)
            for t in range(last, last - lag, -1):
                product = product @ jacobians[t][0, b]
            values.append(torch.linalg.svdvals(product)[0].log10().item())
        measured = series.values[0, 2, 0, index]
        assert np.isnan(measured) if not values else measured == pytest.approx(np.median(values), rel=1e-5)


@pytest.mark.parametrize("sequences", [1001, 2300])
def test_any_number_of_sequences_is_read(sequences):
    population = Population((Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=BRIEF),))
    parameters = population.initial_parameters()
    whole, first = (side_batch(population, parameters, count, CPU) for count in (sequences, 1000))
    assert whole.last.shape == (1, sequences)
    torch.testing.assert_close(whole.labelled()[0][1][:, :, :1000], first.labelled()[0][1], rtol=1e-10, atol=1e-10)


def test_a_run_with_more_than_a_thousand_sequences_trains():
    run = Run(
        task=TemporalOrder(length=10),
        cell=Elman(width=3),
        training=BRIEF,
        probes=(GradientThroughTime(sequences=1001),),
    )
    assert last_records(run)[run.key].outcome.status == "finished"


def test_zero_times_a_power_beyond_range_is_zero():
    values = BlockFloat(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), torch.tensor([3000, -3000])).values()
    assert values.tolist() == [[0.0, float("inf")], [0.0, 0.0]]


class Plain(Elman):
    """A user's own cell."""

    source: ClassVar[str] = "made up"


class Dropped(Plain):
    def step(self, parameters, projected, state, observe):
        h = torch.tanh(projected + state["h"] @ parameters["W_hh"])
        return {"h": observe("h", torch.nn.functional.dropout(h, 0.5))}


class Noisy(Plain):
    def step(self, parameters, projected, state, observe):
        return {"h": observe("h", torch.tanh(projected + state["h"] @ parameters["W_hh"]) + random.random())}


class NoisyInput(Plain):
    def project(self, parameters, inputs):
        return super().project(parameters, inputs) + float(np.random.default_rng().random())


class Broken(Plain):
    def parameters(self, features, outputs):
        return {**super().parameters(features, outputs), "more": Parameter("bias", (2,), ("h",))}

    def step(self, parameters, projected, state, observe):
        raise ZeroDivisionError


@pytest.mark.parametrize("cell", [Dropped(width=3), Noisy(width=3), NoisyInput(width=3)], ids=repr)
def test_a_cell_with_random_numbers_in_its_step_is_refused(cell):
    before = torch.get_rng_state()
    with pytest.raises(SpecError, match=f"a step of {type(cell).__name__} draws random numbers"):
        Run(task=TemporalOrder(length=10), cell=cell, training=BRIEF)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cell_without_random_numbers_is_not_refused_and_a_broken_one_is_told_of_later():
    for cell in (Plain(width=3), Broken(width=3)):
        Run(task=TemporalOrder(length=10), cell=cell, training=BRIEF)
