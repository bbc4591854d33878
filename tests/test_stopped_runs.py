"""Runs that have stopped are no longer computed; the others stay as they were, to the bit, also after a resume."""

import numpy as np
import pytest
import torch

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.optimisers import SGD, Adam, ClipNorm
from rnnstudy.probes import GradientThroughTime, ParameterGradients, SingularValues
from rnnstudy.run import Run, Training
from rnnstudy.tasks import Adding, CopyMemory, EmbeddedReber, Parity, TemporalOrder
from rnnstudy.training import checkpoint
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

RATES = (0.01, 0.02, 0.005, 1e38, 0.01)
"""Of the five runs; the fourth diverges."""


def five(task, cell, optimiser=None, **training):
    training = Training(
        steps=60, batch=6, check_every=10, validation_sequences=20, test_sequences=30,
        optimiser=optimiser or Adam(), clip=None, **training,
    )  # fmt: skip
    probes = (GradientThroughTime(sequences=4), ParameterGradients(every=3), SingularValues(every=20, sequences=2))
    return Population(
        tuple(
            Run(task=task, cell=cell, seed=seed, probes=probes, training=training.replace(learning_rate=rate))
            for seed, rate in enumerate(RATES)
        )
    )


class Pruning:
    """Prunes the first two runs, at 20 and 40 updates, and keeps the errors that it was shown."""

    def __init__(self, population):
        self.keys, self.shown = population.keys, []

    def __call__(self, check):
        self.shown.append((check.step, dict(check.errors)))
        return {20: self.keys[:1], 40: self.keys[1:2]}.get(check.step, ())


def trained(population, engine="compiled", **options):
    pruning = Pruning(population)
    records = train(population, device="cpu", engine=engine, prune=pruning, **options)
    return {record.key: record for record in records if record.outcome}, pruning.shown


def assert_equal(one, other, exact=True):
    equal = np.testing.assert_array_equal if exact else lambda a, b: np.testing.assert_allclose(a, b, 1e-2, 1e-4)
    assert one.keys() == other.keys()
    for key in one:
        a, b = one[key], other[key]
        assert (a.step, a.outcome.status, a.outcome.solved, a.outcome.steps_to_solve) == (
            b.step, b.outcome.status, b.outcome.solved, b.outcome.steps_to_solve,
        )  # fmt: skip
        assert a.outcome.summary.keys() == b.outcome.summary.keys()
        assert a.series.keys() == b.series.keys()
        for name, value in a.outcome.summary.items():
            equal(value, b.outcome.summary[name])
        for name, series in a.series.items():
            np.testing.assert_array_equal(series.steps, b.series[name].steps)
            equal(series.values, b.series[name].values)
        assert (a.weights is None) == (b.weights is None)
        for name, value in (a.weights or {}).items():
            equal(value, b.weights[name])


def all_computed(monkeypatch):
    """Stopped runs stay in the computation from now on."""
    monkeypatch.setattr(Learner, "drop_stopped", lambda self: None)


@pytest.mark.parametrize("optimiser", [Adam(), SGD(momentum=0.9)], ids=repr)
@pytest.mark.parametrize(
    "task", [TemporalOrder(length=12), Parity(length=6), Adding(length=12), CopyMemory(length=4)], ids=repr
)
@pytest.mark.parametrize("cell", [Elman(width=7), LSTM(width=7), GRU(width=7)], ids=repr)
def test_results_are_the_same_to_the_bit_as_with_stopped_runs_computed_to_the_end(cell, task, optimiser, monkeypatch):
    population = five(task, cell, optimiser)
    without, shown = trained(population)
    all_computed(monkeypatch)
    computed, shown_then = trained(population)
    statuses = [without[key].outcome.status for key in population.keys]
    assert statuses[:2] == ["pruned", "pruned"]
    assert "diverged" in statuses
    assert_equal(without, computed)
    assert repr(shown) == repr(shown_then), "a search sees the same errors"


def test_where_supervised_steps_differ_between_sequences_results_are_the_same_to_rounding(monkeypatch):
    """The readout sees the steps at which any sequence of the population is supervised, and sums over them."""
    population = five(EmbeddedReber(length=12), Elman(width=7))
    population = Population(tuple(run.replace(probes=(ParameterGradients(),)) for run in population.runs))
    without, _ = trained(population)
    all_computed(monkeypatch)
    assert_equal(without, trained(population)[0], exact=False)


@pytest.mark.parametrize("engine", [CompiledEngine, ReferenceEngine])
def test_a_stopped_run_is_not_computed(engine, monkeypatch):
    counts = []
    unroll = engine.unroll_layer

    def counted(self, run):
        counts.append(run.inputs.shape[1])
        return unroll(self, run)

    monkeypatch.setattr(engine, "unroll_layer", counted)
    outcomes, _ = trained(five(TemporalOrder(length=12), Elman(width=7)), engine=engine())
    assert [outcome.outcome.status for outcome in outcomes.values()][3] == "diverged"
    # 20 updates and 2 checks of all five, and one update more; 20 + 2 without the pruned and the diverged run, …
    assert counts[:60].count(5) < 30
    assert sorted(set(counts)) == [2, 3, 4, 5] or sorted(set(counts)) == [2, 3, 5]
    # The test sequences, at the end, are evaluated for all.
    assert counts[-1] == 5


@pytest.mark.parametrize("optimiser", [Adam(), SGD(momentum=0.9)], ids=repr)
@pytest.mark.parametrize("after", [15, 20, 21, 35, 45])
def test_a_resumed_population_goes_on_without_its_stopped_runs(after, optimiser, tmp_path):
    population, path = five(TemporalOrder(length=12), LSTM(width=7), optimiser), tmp_path / "checkpoint.pt"
    whole, _ = trained(population)
    updates = iter(range(1000))
    assert trained(population, checkpoint=path, stop=lambda: next(updates) == after)[0] == {}
    live = Learner.resume(population, torch.device("cpu"), path).live
    assert len(live.runs) == (4 if after <= 20 else 3 if after < 40 else 2)
    assert_equal(trained(population, checkpoint=path)[0], whole)


def test_a_checkpoint_of_an_older_version_knows_the_errors_of_stopped_runs_from_their_readings(tmp_path, monkeypatch):
    population, path = five(TemporalOrder(length=12), Elman(width=7)), tmp_path / "checkpoint.pt"
    updates = iter(range(1000))
    trained(population, checkpoint=path, stop=lambda: next(updates) == 35)
    resumed = Learner.resume(population, torch.device("cpu"), path)
    state = checkpoint.load_checkpoint(path, population.keys)
    state["replicas"].pop("error")
    state.pop("positions")
    checkpoint.save_checkpoint(path, state)
    older = Learner.resume(population, torch.device("cpu"), path)
    assert torch.equal(older.verdicts.error[1:3].float(), resumed.verdicts.error[1:3].float())


def test_thresholds_and_rates_stay_with_their_runs(monkeypatch):
    runs = [
        run.replace(training=run.training.replace(clip=ClipNorm(threshold=0.1 * (index + 1))))
        for index, run in enumerate(five(TemporalOrder(length=12), Elman(width=7)).runs)
    ]
    without, _ = trained(Population(tuple(runs)))
    all_computed(monkeypatch)
    assert_equal(without, trained(Population(tuple(runs)))[0])
