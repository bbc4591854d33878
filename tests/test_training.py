"""The training loop: its data, when a run stops, how it is evaluated; and replicas do not affect each other."""

import itertools
import math
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

import rnnstudy
from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.initialisation import Gaussian, Orthogonal
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.optimisers import SGD, ClipNorm
from rnnstudy.probes import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import Adding, CopyMemory, TemporalOrder
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task, cross_entropy, mean_over_supervised, misclassified
from rnnstudy.training import batches as batches_module
from rnnstudy.training.batches import TrainingBatches, fixed_batches
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU = torch.device("cpu")
SMALL = {"validation_sequences": 20, "test_sequences": 30}


class TwoClasses(Task):
    """Three steps of noise; the class asked for at the last step does not depend on it."""

    source: ClassVar[str] = "made up"
    loss_unit: ClassVar[str] = "nats"
    length: int = 3

    @property
    def features(self):
        return 2

    @property
    def outputs(self):
        return 2

    @property
    def criterion(self):
        return Criterion(0.01, "less than 1 % wrong", "share wrong")

    @property
    def chance(self):
        return Chance(loss=math.log(2), error=0.5)

    def classes(self, batch, source):
        raise NotImplementedError

    def sample(self, batch, generator):
        targets = torch.zeros(self.steps, batch, dtype=torch.long)
        mask = torch.zeros(self.steps, batch, dtype=torch.bool)
        mask[-1] = True
        inputs = torch.randn(self.steps, batch, 2, generator=generator)
        targets[-1] = self.classes(batch, generator)
        lengths = torch.full((batch,), self.steps)
        return Batch(inputs=inputs, targets=targets, mask=mask, lengths=lengths, informative=mask)

    def loss(self, outputs, targets):
        return cross_entropy(outputs, targets)

    def measures(self, outputs, targets, mask):
        return {"error": mean_over_supervised(misclassified(outputs, targets), mask)}


class AlwaysOne(TwoClasses):
    """Solved by the readout's bias."""

    def classes(self, batch, source):
        return torch.ones(batch, dtype=torch.long)


class Coin(TwoClasses):
    """It cannot be solved, but a single sequence can be guessed."""

    def classes(self, batch, source):
        return torch.randint(2, (batch,), generator=source)


def ended(runs, **options):
    """The last record of each run."""
    return {record.key: record for record in train(runs, device="cpu", **options) if record.outcome is not None}


def equal_weights(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def library_outputs(weights, inputs, nonlinearity="tanh"):
    """The outputs of torch.nn.RNN and Linear with our weights: (time, batch, outputs)."""
    features, width = weights["W_xh"].shape
    network = torch.nn.RNN(features, width, nonlinearity=nonlinearity)
    with torch.no_grad():
        network.weight_ih_l0.copy_(torch.from_numpy(weights["W_xh"]).T)
        network.weight_hh_l0.copy_(torch.from_numpy(weights["W_hh"]).T)
        network.bias_ih_l0.copy_(torch.from_numpy(weights["b_h"]))
        network.bias_hh_l0.zero_()
        return network(inputs)[0] @ torch.from_numpy(weights["W_ho"]) + torch.from_numpy(weights["b_o"])


def test_training_equals_a_plain_loop_over_torch_nn():
    """Ten updates with Adam and clipping, on the data of the run's data seed."""
    training = Training(steps=10, learning_rate=1e-2, check_every=5, **SMALL)
    run = Run(task=TemporalOrder(length=12), cell=Elman(width=6), seed=3, data_seed=8, training=training)
    population = Population((run,))
    start = {name: value[0] for name, value in population.initial_parameters().items()}
    network, readout = torch.nn.RNN(6, 6), torch.nn.Linear(6, 4)
    with torch.no_grad():
        network.weight_ih_l0.copy_(start["W_xh"].T)
        network.weight_hh_l0.copy_(start["W_hh"].T)
        network.bias_ih_l0.copy_(start["b_h"])
        network.bias_hh_l0.zero_()
        readout.weight.copy_(start["W_ho"].T)
        readout.bias.copy_(start["b_o"])
    network.bias_hh_l0.requires_grad_(False)
    learned = [*(p for p in network.parameters() if p.requires_grad), *readout.parameters()]
    adam = torch.optim.Adam(learned, lr=1e-2)
    drawn = run.task.sample(64 * 20, generator(8, "training", 0))
    losses = []
    for step in range(10):
        part = drawn.part(20 * step, 20 * step + 20)
        loss = torch.nn.functional.cross_entropy(readout(network(part.inputs)[0][-1]), part.targets[-1])
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        adam.step()
        losses.append(loss.item())
    last = ended(run)[run.key]
    np.testing.assert_allclose(last.series["learning/loss"].values, losses, rtol=1e-5)
    np.testing.assert_allclose(last.weights["W_hh"], network.weight_hh_l0.detach().T.numpy(), atol=1e-5)
    np.testing.assert_allclose(last.weights["W_ho"], readout.weight.detach().T.numpy(), atol=1e-5)


def test_errors_are_those_of_the_final_weights_on_separate_sequences():
    training = Training(steps=30, check_every=30, other_lengths=(15, 30), **SMALL)
    run = Run(task=TemporalOrder(length=12), cell=Elman(width=6), seed=1, data_seed=2, training=training)
    last = ended(run)[run.key]

    def error(task, purpose, sequences):
        drawn = task.sample(sequences, generator(2, purpose))
        predicted = library_outputs(last.weights, drawn.inputs)[-1].argmax(-1)
        return (predicted != drawn.targets[-1]).double().mean().item()

    assert last.outcome.summary["error"] == pytest.approx(error(run.task, "test", 30))
    assert last.series["learning/error"].values[-1] == pytest.approx(error(run.task, "validation", 20))
    generalisation = last.series["generalisation/error"]
    assert generalisation.coordinates == {"length": (15.0, 30.0)}
    expected = [error(run.task.with_length(length), f"length {length}", 20) for length in (15, 30)]
    np.testing.assert_allclose(generalisation.values, [expected], rtol=1e-6)


def test_training_validation_and_test_sequences_are_different_ones():
    drawn = [
        TemporalOrder(length=12).sample(20, generator(0, purpose, index)).inputs
        for purpose, index in [("training", 0), ("training", 1), ("validation", 0), ("test", 0), ("probe", 0)]
    ]
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)


def batches_of(runs, start, count):
    return list(itertools.islice(TrainingBatches(Population(runs), start, CPU), count))


def same_batches(one, other):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("inputs", "targets", "mask", "last")
    )


BASE = Run(task=Adding(length=20, variant="pascanu"), cell=Elman(width=4), training=Training(batch=3))


def test_equal_data_seeds_see_equal_sequences_whatever_else_differs():
    expected = batches_of((BASE.replace(data_seed=5),), 0, 5)
    for other in (
        BASE.replace(data_seed=5, cell=LSTM(width=9)),
        BASE.replace(data_seed=5, seed=77, initialisation=Gaussian(std=1), layers=2),
        BASE.replace(seed=5),
    ):
        assert same_batches(expected, batches_of((other,), 0, 5))
    assert not torch.equal(expected[0].inputs, batches_of((BASE.replace(data_seed=6),), 0, 1)[0].inputs)


def test_data_do_not_depend_on_the_population():
    runs = tuple(BASE.replace(seed=seed, data_seed=data) for seed, data in enumerate((9, 4, 9, 6)))
    together = batches_of(runs, 60, 8)
    assert Population(runs).data_seeds == (4, 6, 9)
    for replica, run in enumerate(runs):
        for batch, alone in zip(together, batches_of((run,), 60, 8), strict=True):
            assert torch.equal(batch.inputs[:, replica], alone.inputs[:, 0])
            assert torch.equal(batch.last[replica], alone.last[0])


@pytest.mark.parametrize("start", [1, 63, 64, 70, 128])
def test_data_resume_in_the_middle_of_a_block(start):
    assert same_batches(batches_of((BASE,), start, 6), batches_of((BASE,), 0, start + 6)[start:])


def test_data_of_a_block_that_is_drawn_in_parts_resume_too(monkeypatch):
    monkeypatch.setattr(batches_module, "MOST_NUMBERS_DRAWN", 10 * BASE.task.steps * 3 * 2)
    assert same_batches(batches_of((BASE,), 67, 70), batches_of((BASE,), 0, 137)[67:])


def test_fixed_sequences_do_not_depend_on_how_they_are_cut():
    population = Population((BASE, BASE.replace(seed=1)))
    whole = torch.cat([batch.inputs for batch in fixed_batches(population, "test", 1100, CPU)], dim=2)
    parts = torch.cat([batch.inputs for batch in fixed_batches(population, "test", 1100, CPU, most=37)], dim=2)
    assert whole.shape[2] == 1100
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("task", [Adding(length=20, variant="pascanu"), CopyMemory(length=4)], ids=repr)
def test_the_loss_of_a_batch_is_the_mean_over_each_sequences_supervised_steps(task):
    [batch] = batches_of((BASE.replace(task=task),), 0, 1)
    drawn = task.sample(64 * 3, generator(0, "training", 0)).part(0, 3)
    outputs = torch.randn(len(batch.steps), 1, 3, task.outputs, generator=torch.Generator().manual_seed(0))
    of_all, of_last = batch.loss(task, outputs), batch.loss_of_last_step(task, outputs)
    for b in range(3):
        supervised = drawn.mask[:, b].nonzero().flatten().tolist()
        losses = [
            task.loss(outputs[i : i + 1, :, b : b + 1], drawn.targets[t : t + 1, None, b : b + 1]).item()
            for i, t in enumerate(batch.steps)
            if t in supervised
        ]
        assert of_all[0, b].item() == pytest.approx(np.mean(losses), rel=1e-5)
        assert of_last[0, b].item() == pytest.approx(losses[-1], rel=1e-5)
        assert int(batch.last[0, b]) == supervised[-1]


@pytest.mark.parametrize("cell", [Elman(width=6), LSTM(width=6)], ids=repr)
def test_a_member_of_a_population_is_the_run_alone_for_a_step(cell):
    runs = [
        Run(
            task=TemporalOrder(length=12), cell=cell, seed=seed, data_seed=seed // 2, initialisation=initialisation,
            training=Training(steps=1, learning_rate=rate, clip=ClipNorm(threshold=threshold), **SMALL),
        )
        for seed, rate, threshold, initialisation in [
            (0, 1e-3, 1.0, Orthogonal()), (1, 1e-2, 0.01, Orthogonal(gain=2)), (2, 1e-1, 5.0, Gaussian(std=0.1)),
        ]
    ]  # fmt: skip
    together = ended(Population(tuple(runs)))
    for run in runs:
        alone = ended(run)[run.key]
        for name, value in alone.weights.items():
            np.testing.assert_allclose(together[run.key].weights[name], value, rtol=1e-5, atol=1e-6)


def solving(stop_when_solved, errors):
    """The outcomes, and which replicas were active, after these errors (replica) at 10, 20, 30 and 35 updates."""
    training = Training(steps=35, check_every=10, stop_when_solved=stop_when_solved, **SMALL)
    runs = [BASE.replace(task=TemporalOrder(length=12), training=training, seed=seed) for seed in range(len(errors[0]))]
    learner = Learner.begin(Population(tuple(runs)), CPU)
    active = []
    for step, now in zip((10, 20, 30, 35), errors, strict=True):
        learner.step = step
        learner.after_validation({"error": torch.tensor(now, dtype=torch.float64)})
        active.append(learner.verdicts.active.tolist())
    learner.finish({"error": torch.tensor(errors[-1], dtype=torch.float64)})
    return [record.outcome for record in learner.last_records("reference")], active


@pytest.mark.parametrize("stop_when_solved", [True, False])
def test_steps_to_solve_is_the_first_of_two_passes_in_a_row(stop_when_solved):
    outcomes, active = solving(
        stop_when_solved,
        [
            [0.0, 0.0, 0.0, 0.5, 0.01],
            [0.0, 0.5, 0.5, 0.5, 0.01],
            [0.5, 0.0, 0.0, 0.5, 0.01],
            [0.5, 0.0, 0.5, 0.0, 0.01],
        ],
    )
    assert [outcome.steps_to_solve for outcome in outcomes] == [10, 30, None, None, None]
    assert [outcome.step for outcome in outcomes] == ([20, 35, 35, 35, 35] if stop_when_solved else [35] * 5)
    assert [row[0] for row in active] == ([True, False, False, False] if stop_when_solved else [True] * 4)
    assert [outcome.solved for outcome in outcomes] == [False, True, False, True, False], "the test sequences decide"


def test_a_run_stops_two_checks_after_it_has_learned():
    training = Training(steps=400, check_every=5, learning_rate=0.05, batch=8, **SMALL)
    run = Run(task=AlwaysOne(), cell=Elman(width=3), training=training, initialisation=Gaussian(std=1.0), seed=4)
    last = ended(run)[run.key]
    errors = dict(zip(last.series["learning/error"].steps.tolist(), last.series["learning/error"].values, strict=True))
    passed = [step for step, error in errors.items() if error < 0.01]
    first = next(step for step in passed if step + 5 in passed)
    assert errors[5] >= 0.01, "not solved from the beginning"
    assert last.outcome.status == "finished"
    assert (last.outcome.steps_to_solve, last.outcome.step, last.step) == (first, first + 5, first + 5)
    assert last.outcome.solved is True
    assert max(max(series.steps) for series in last.series.values()) == first + 5


def test_a_run_that_has_learned_keeps_its_weights_while_others_go_on():
    training = Training(steps=100, check_every=5, batch=8, optimiser=SGD(momentum=0.9), **SMALL)
    learns, idles = (
        Run(
            task=AlwaysOne(), cell=Elman(width=3), seed=4, initialisation=Gaussian(std=1.0),
            training=training.replace(learning_rate=rate),
        )
        for rate in (0.5, 1e-9)
    )  # fmt: skip
    together, alone = ended([learns, idles]), ended(learns)[learns.key]
    assert together[idles.key].outcome.step == 100
    assert together[learns.key].outcome.step == alone.outcome.step < 100
    for name, value in alone.weights.items():
        np.testing.assert_allclose(together[learns.key].weights[name], value, rtol=1e-4, atol=1e-5)


def test_passing_on_the_validation_sequences_is_not_being_solved():
    """Half of the runs guess the single validation sequence; the test sequences show that none has learned."""
    training = Training(steps=40, check_every=10, learning_rate=1e-9, validation_sequences=1, test_sequences=200)
    runs = [Run(task=Coin(), cell=Elman(width=3), seed=seed, training=training) for seed in range(8)]
    outcomes = [record.outcome for record in ended(runs).values()]
    assert {outcome.steps_to_solve for outcome in outcomes} == {10, None}
    assert {outcome.step for outcome in outcomes if outcome.steps_to_solve} == {20}
    assert {outcome.solved for outcome in outcomes} == {False}


def exploding(rates, steps=12):
    training = Training(steps=steps, check_every=steps, batch=5, optimiser=SGD(), clip=None, **SMALL)
    return [
        Run(
            task=Adding(length=12), cell=Elman(width=4, activation="relu"), seed=seed,
            initialisation=Orthogonal(), training=training.replace(learning_rate=rate),
        )
        for seed, rate in enumerate(rates)
    ]  # fmt: skip


def plain_divergence(run, steps):
    """The step at which loss or gradient is no longer finite, in a loop over torch.nn."""
    start = {name: value[0] for name, value in Population((run,)).initial_parameters().items()}
    network, readout = torch.nn.RNN(2, 4, nonlinearity="relu"), torch.nn.Linear(4, 1)
    with torch.no_grad():
        network.weight_ih_l0.copy_(start["W_xh"].T)
        network.weight_hh_l0.copy_(start["W_hh"].T)
        network.bias_ih_l0.copy_(start["b_h"])
        network.bias_hh_l0.zero_()
        readout.weight.copy_(start["W_ho"].T)
        readout.bias.copy_(start["b_o"])
    learned = [network.weight_ih_l0, network.weight_hh_l0, network.bias_ih_l0, *readout.parameters()]
    drawn = run.task.sample(64 * 5, generator(run.seed, "training", 0))
    for step in range(steps):
        part = drawn.part(5 * step, 5 * step + 5)
        loss = (readout(network(part.inputs)[0][-1]) - part.targets[-1]).square().mean()
        for parameter in learned:
            parameter.grad = None
        loss.backward()
        if not all(value.isfinite().all() for value in (loss, *(parameter.grad for parameter in learned))):
            return step
        with torch.no_grad():
            for parameter in learned:
                parameter -= run.training.learning_rate * parameter.grad
    return None


def test_a_run_that_explodes_has_diverged_and_the_other_replicas_do_not_change():
    runs, calm = exploding([1e-3, 1000.0, 1e-2]), exploding([1e-3, 1e-3, 1e-2])
    records, without = ended(Population(tuple(runs))), ended(Population(tuple(calm)))
    bad = records[runs[1].key]
    step = plain_divergence(runs[1], 12)
    assert step is not None
    assert 1 <= step <= 10
    assert (bad.outcome.status, bad.outcome.step, bad.step) == ("diverged", step, step)
    assert bad.outcome.solved is None
    assert "error" not in bad.outcome.summary
    assert f"at step {step}" in bad.outcome.reason
    loss = bad.series["learning/loss"]
    assert loss.steps.tolist() == list(range(step + 1))
    assert np.isfinite(loss.values[:step]).all(), "the last finite readings are kept"
    assert "learning/error" not in bad.series, "the first check came later"
    for replica in (0, 2):
        one, other = records[runs[replica].key], without[calm[replica].key]
        assert one.outcome.status == "finished"
        assert equal_weights(one.weights, other.weights)
        assert one.outcome.summary == other.outcome.summary
        for name, series in one.series.items():
            assert np.array_equal(series.values, other.series[name].values, equal_nan=True), name


def test_the_weights_of_a_diverged_run_stay_as_they_were():
    early, late = exploding([1e-3, 1000.0], steps=11), exploding([1e-3, 1000.0], steps=30)
    one, other = ended(early)[early[1].key], ended(late)[late[1].key]
    assert one.outcome.step == other.outcome.step
    assert all(np.array_equal(one.weights[name], other.weights[name], equal_nan=True) for name in one.weights)


def test_a_run_with_infinite_weights_after_the_last_update_has_diverged():
    [run] = exploding([1e38], steps=1)
    last = ended(run)[run.key]
    assert np.isfinite(last.series["learning/loss"].values).all()
    assert (last.outcome.status, last.outcome.step, last.outcome.solved) == ("diverged", 1, None)


def test_when_all_have_diverged_training_ends_at_the_next_check():
    [run] = exploding([1000.0], steps=100)
    run = run.replace(training=run.training.replace(check_every=20))
    reports = []
    last = ended(run, progress=reports.append)[run.key]
    assert last.outcome.status == "diverged"
    told = [(report.step, report.steps, report.active) for report in reports if report.phase == "training"]
    assert told == [(0, 100, 1), (10, 100, 1), (20, 100, 0)]
    assert (reports[-1].phase, reports[-1].active) == ("testing", 0)


def test_a_pruned_run_ends_where_it_is_and_the_other_replicas_do_not_change(tmp_path):
    run = Run(task=Coin(), cell=Elman(width=3), training=Training(steps=40, check_every=10, **SMALL))
    runs = [run.replace(seed=seed) for seed in range(3)]
    checks = []

    def prune(check):
        checks.append(check)
        return {runs[1].key, "of another population"} if check.step == 20 else ()

    saved = tmp_path / "pruned.pt"
    steps = iter([False] * 25 + [True])
    list(train(Population(tuple(runs)), prune=prune, checkpoint=saved, stop=lambda: next(steps)))
    last = ended(Population(tuple(runs)), prune=prune, checkpoint=saved)
    undisturbed = ended(Population(tuple(runs)))
    assert [(check.step, len(check.errors)) for check in checks] == [(10, 3), (20, 3), (30, 2), (40, 2)]
    for check in checks:
        for key, error in check.errors.items():
            readings = undisturbed[key].series["learning/error"]
            assert error == pytest.approx(readings.values[readings.steps.tolist().index(check.step)])
    pruned = last[runs[1].key]
    assert (pruned.outcome.status, pruned.outcome.step, pruned.step) == ("pruned", 20, 20)
    assert (pruned.outcome.solved, pruned.weights) == (None, None)
    assert "error" not in pruned.outcome.summary
    assert pruned.series["learning/error"].steps.tolist() == [10, 20]
    for run in (runs[0], runs[2]):
        assert equal_weights(last[run.key].weights, undisturbed[run.key].weights)
        assert last[run.key].outcome.summary == undisturbed[run.key].outcome.summary


def test_when_all_are_pruned_training_ends_at_once_without_a_test():
    run = Run(task=Coin(), cell=Elman(width=3), training=Training(steps=40, check_every=10, **SMALL))
    last = ended(run, prune=lambda check: check.errors.keys())[run.key]
    assert (last.outcome.status, last.outcome.step) == ("pruned", 10)
    assert last.series["learning/loss"].steps.tolist() == list(range(10)), "one before each update"


def test_progress_reports_the_numbers_of_the_last_check():
    run = Run(task=Coin(), cell=Elman(width=3), training=Training(steps=25, check_every=10, **SMALL))
    reports = []
    last = ended([run, run.replace(seed=1)], progress=reports.append)
    assert [report.phase for report in reports] == ["measuring", *(4 * ["training"]), "testing"]
    reports = [report for report in reports if report.phase == "training" and report.step]
    assert [(report.step, report.active) for report in reports] == [(10, 2), (20, 2), (25, 2)]
    errors = [record.series["learning/error"].values for record in last.values()]
    assert [report.error for report in reports] == pytest.approx(np.min(errors, axis=0).tolist())
    losses = np.array([record.series["learning/loss"].values[[9, 19, 24]] for record in last.values()])
    assert [report.loss for report in reports] == pytest.approx(np.sort(losses, axis=0)[0].tolist()), (
        "torch's lower median"
    )


class Compiling(ReferenceEngine):
    """Says that it compiles."""

    def compiles(self, cell):
        return True


def test_progress_tells_when_kernels_are_compiled():
    run = Run(task=Coin(), cell=Elman(width=3), training=Training(steps=1, **SMALL))
    reports = []
    ended(run, engine=Compiling(), progress=reports.append)
    assert [report.phase for report in reports] == ["measuring", "compiling", "training", "testing"]


def test_records_between_add_up_to_the_last_one():
    run = Run(task=Coin(), cell=LSTM(width=3), training=Training(steps=25, check_every=10, **SMALL))
    records = list(train([run, run.replace(seed=1)], device="cpu"))
    for key in {record.key for record in records}:
        *between, last = [record for record in records if record.key == key]
        assert [record.outcome for record in between] == [None] * len(between)
        assert [record.step for record in between] == [10, 20, 25, 25]
        assert [record.time for record in between] == sorted(record.time for record in between)
        assert last.weights is not None
        for name, series in last.series.items():
            parts = [record.series[name] for record in between if name in record.series]
            assert np.array_equal(np.concatenate([part.steps for part in parts]), series.steps), name
            assert np.array_equal(np.concatenate([part.values for part in parts]), series.values, equal_nan=True), name


def test_runs_that_cannot_train_in_lockstep_train_one_after_another():
    runs = [
        Run(task=Coin(), cell=cell, seed=seed, training=Training(steps=3, **SMALL), probes=(ParameterGradients(),))
        for seed in range(2)
        for cell in (Elman(width=3), LSTM(width=3))
    ]
    assert list(ended(runs)) == [runs[0].key, runs[2].key, runs[1].key, runs[3].key]


def test_a_run_twice_gives_the_same_bits():
    run = Run(task=TemporalOrder(length=12), cell=LSTM(width=5), training=Training(steps=15, check_every=5, **SMALL))
    one, other = ended(run)[run.key], ended(run)[run.key]
    assert equal_weights(one.weights, other.weights)
    assert one.outcome.summary == other.outcome.summary


def test_the_global_generator_and_the_floating_point_mode_are_left_alone():
    before = torch.get_rng_state()
    ended(Run(task=TemporalOrder(length=12), cell=LSTM(width=5), training=Training(steps=2, **SMALL)))
    assert torch.equal(torch.get_rng_state(), before)
    assert sys.float_info.min / 2 > 0, "denormal numbers are numbers again"


def test_the_package_exports_the_names_in_its_all():
    for name in rnnstudy.__all__:
        assert callable(getattr(rnnstudy, name)), name
    assert rnnstudy.Run is Run
    run = Run(task=Coin(), cell=Elman(width=3), training=Training(steps=1, **SMALL))
    assert [record.key for record in rnnstudy.train(run)][-1] == run.key


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:99", "cuda:-3", ""])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(RequestError, match="device '"):
        next(train(BASE, device=device))


def test_a_checkpoint_belongs_to_one_population(tmp_path):
    with pytest.raises(RequestError, match="a checkpoint belongs to one population"):
        next(train([BASE, BASE.replace(cell=LSTM())], checkpoint=tmp_path / "file"))
