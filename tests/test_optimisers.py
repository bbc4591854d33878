"""A separate rate and threshold for each replica equal a separate optimiser and a separate clipping."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnstudy.optimisers  # noqa: F401  (its rules are found below)
from rnnstudy.cells import LSTM, Elman
from rnnstudy.optimisers import SGD, Adam, ClipNorm, ClipValue, RMSprop
from rnnstudy.optimisers.clipping import Clip, Rows, global_norms, replica_norms
from rnnstudy.optimisers.optimiser import Optimiser
from rnnstudy.run import Run, Training
from rnnstudy.spec import concrete
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

CPU = torch.device("cpu")
RATES = [1e-3, 1e-2, 0.1]
CLIPS = [cls for cls in concrete(Clip) if cls.__module__.startswith("rnnstudy.")]
SEPARATE = {
    Adam(): lambda weights, rate: torch.optim.Adam(weights, lr=rate),
    Adam(beta1=0.5, beta2=0.9, epsilon=1e-3): lambda w, rate: torch.optim.Adam(w, lr=rate, betas=(0.5, 0.9), eps=1e-3),
    RMSprop(): lambda weights, rate: torch.optim.RMSprop(weights, lr=rate, alpha=0.9),
    RMSprop(decay=0.99, epsilon=1e-4): lambda w, rate: torch.optim.RMSprop(w, lr=rate, alpha=0.99, eps=1e-4),
    SGD(): lambda weights, rate: torch.optim.SGD(weights, lr=rate),
    SGD(momentum=0.9): lambda weights, rate: torch.optim.SGD(weights, lr=rate, momentum=0.9),
}


def test_every_update_rule_has_its_oracle():
    rules = {cls for cls in concrete(Optimiser) if cls.__module__.startswith("rnnstudy.")}
    assert rules == {type(rule) for rule in SEPARATE}


@pytest.mark.parametrize("optimiser", SEPARATE, ids=repr)
def test_a_rate_for_each_replica_equals_separate_optimisers(optimiser):
    """200 updates on noisy gradients that point the weights towards 1: equal within 1e-6."""
    runs = [
        Run(
            task=TemporalOrder(length=10),
            cell=Elman(width=4),
            seed=seed,
            training=Training(learning_rate=rate, optimiser=optimiser, clip=None),
        )
        for seed, rate in enumerate(RATES)
    ]
    learner = Learner.begin(Population(tuple(runs)), CPU)
    alone = [[value[r].detach().clone() for value in learner.parameters.values()] for r in range(len(RATES))]
    separate = [SEPARATE[optimiser](weights, rate) for weights, rate in zip(alone, RATES, strict=True)]
    noise = torch.Generator().manual_seed(0)
    for _ in range(200):
        gradients = {}
        for index, (name, value) in enumerate(learner.parameters.items()):
            shift = torch.randn(value.shape, generator=noise)
            gradients[name] = value.detach() - 1 + shift
            for r, weights in enumerate(alone):
                weights[index].grad = weights[index] - 1 + shift[r]
        learner.update(torch.zeros(len(RATES)), gradients, gradients)
        for rule in separate:
            rule.step()
    for index, value in enumerate(learner.parameters.values()):
        for r, weights in enumerate(alone):
            torch.testing.assert_close(value[r].detach(), weights[index], rtol=0, atol=1e-6)


def gradients_of(sizes, seed):
    noise = torch.Generator().manual_seed(seed)
    scale = torch.tensor(sizes)
    return {
        "W": scale[:, None, None] * torch.randn(len(sizes), 3, 4, generator=noise),
        "b": scale[:, None] * torch.randn(len(sizes), 4, generator=noise),
    }


some_sizes = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(sizes=some_sizes, threshold=st.floats(1e-4, 1e4), seed=st.integers(0, 1000))
def test_clipping_by_norm_keeps_the_direction_and_bounds_each_replicas_norm(sizes, threshold, seed):
    before = gradients_of(sizes, seed)
    thresholds = threshold * torch.arange(1, len(sizes) + 1, dtype=torch.float64)
    after = ClipNorm().apply(before, thresholds)
    for r in range(len(sizes)):
        flat = torch.cat([before["W"][r].flatten(), before["b"][r]]).double()
        clipped = torch.cat([after["W"][r].flatten(), after["b"][r]]).double()
        norm = flat.norm()
        if norm <= thresholds[r]:
            assert torch.equal(clipped, flat)
        else:
            assert clipped.norm() == pytest.approx(thresholds[r].item(), rel=1e-6)
            torch.testing.assert_close(clipped / clipped.norm(), flat / norm, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(sizes=some_sizes, threshold=st.floats(1e-4, 1e4), seed=st.integers(0, 1000))
def test_clipping_by_value_limits_each_entry(sizes, threshold, seed):
    before = gradients_of(sizes, seed)
    thresholds = threshold * torch.arange(1, len(sizes) + 1, dtype=torch.float64)
    after = ClipValue().apply(before, thresholds)
    for name, gradient in before.items():
        for r, limit in enumerate(thresholds.float().tolist()):
            assert torch.equal(after[name][r], gradient[r].clamp(-limit, limit))


@pytest.mark.parametrize("rule", CLIPS, ids=lambda cls: cls.__name__)
def test_clipping_changes_neither_small_gradients_nor_zeros_nor_its_argument(rule):
    before = gradients_of([1e-3, 0.0], 0)
    kept = {name: value.clone() for name, value in before.items()}
    after = rule().apply(before, torch.tensor([10.0, 10.0], dtype=torch.float64))
    for name in kept:
        assert torch.equal(after[name], kept[name])
        assert torch.equal(before[name], kept[name])


def test_norms_neither_overflow_nor_underflow_where_squares_would():
    gradients = {"W": torch.tensor([[3e-30, 4e-30], [3e30, 4e30]]), "b": torch.tensor([[0.0], [1.2e31]])}
    assert replica_norms(gradients["W"]).tolist() == pytest.approx([5e-30, 5e30])
    assert global_norms(gradients).tolist() == pytest.approx([5e-30, 1.3e31])


def test_gradients_side_by_side_are_the_gradients_and_share_their_memory():
    gradients = gradients_of([1.0, 2.0, 3.0], 0)
    rows = Rows.of(gradients)
    assert Rows.of(rows) is rows
    assert list(rows) == list(gradients)
    assert rows.numbers.shape == (3, 3 * 4 + 4)
    for name, values in gradients.items():
        assert torch.equal(rows[name], values)
    rows["W"][1] = 7
    assert (rows.numbers[1, : 3 * 4] == 7).all()
    assert torch.equal(rows.norms, torch.linalg.vector_norm(rows.numbers.double(), dim=1))


THRESHOLDS = [1e-3, 1e3]


@pytest.mark.parametrize("cell", [Elman(width=5), LSTM(width=5)], ids=repr)
def test_clipping_happens_between_the_backward_pass_and_the_step(cell):
    """One step of plain SGD moves the weights by rate · clipped gradient: by rate · threshold where it was clipped."""
    runs = [
        Run(
            task=TemporalOrder(length=10),
            cell=cell,
            seed=seed,
            training=Training(
                steps=1, optimiser=SGD(), learning_rate=0.5, clip=ClipNorm(threshold=threshold),
                validation_sequences=10, test_sequences=10,
            ),
        )
        for seed, threshold in enumerate(THRESHOLDS)
    ]  # fmt: skip
    population = Population(tuple(runs))
    begin = population.initial_parameters()
    ends = {record.key: record for record in train(population, device="cpu") if record.outcome is not None}
    for r, (run, threshold) in enumerate(zip(runs, THRESHOLDS, strict=True)):
        last = ends[run.key]
        moved = math.sqrt(sum(((begin[n][r].numpy() - w).astype(float) ** 2).sum() for n, w in last.weights.items()))
        before = 10 ** last.series["gradient/global_before"].values[0]
        after = 10 ** last.series["gradient/global_after"].values[0]
        assert moved == pytest.approx(0.5 * min(threshold, before), rel=1e-3)
        assert after == pytest.approx(min(threshold, before), rel=1e-5)
        assert THRESHOLDS[0] < before < THRESHOLDS[1], "one replica is clipped, the other is not"
        parts = [s.values[0] for name, s in last.series.items() if name.endswith("_before") and "global" not in name]
        assert math.sqrt(sum(100.0**p for p in parts)) == pytest.approx(before, rel=1e-5)
        assert set(last.series) >= {f"gradient/{name}_before" for name in last.weights}
