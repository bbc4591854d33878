"""Concordance within strata: scikit-learn's AUC, counting by hand, and permutations."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rnnstudy.figures.concordance import concordance, success_auc
from rnnstudy.spec import SpecError


def test_one_stratum_is_the_area_under_the_roc_curve() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        score, solved = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.4
        found = success_auc(score, solved, np.zeros(30), np.arange(30))
        assert found.value == pytest.approx(roc_auc_score(solved, score))
        assert found.pairs == solved.sum() * (~solved).sum()


def test_strata_weigh_by_their_pairs_and_runs_of_different_strata_are_not_compared() -> None:
    rng = np.random.default_rng(2)
    stratum = np.repeat(["a", "b", "c", "d"], [12, 20, 8, 6])
    score = rng.normal(size=46) + 10 * (stratum == "b")
    solved = rng.random(46) < np.where(stratum == "b", 0.7, 0.3)
    solved[stratum == "d"] = True
    found = success_auc(score, solved, stratum, np.arange(46))
    aucs, weights = [], []
    for name in "abc":
        inside = stratum == name
        weights.append(solved[inside].sum() * (~solved[inside]).sum())
        aucs.append(roc_auc_score(solved[inside], score[inside]) if weights[-1] else 0.0)
    assert found.value == pytest.approx(np.average(aucs, weights=weights))
    assert (found.strata, found.informative, found.pairs) == (4, 3, sum(weights))


def test_a_difference_between_strata_alone_is_no_prediction() -> None:
    stratum = np.repeat([0, 1], 40)
    solved = np.tile([True, False], 40)
    solved[stratum == 0] |= np.arange(40) % 4 != 3
    score = stratum * -5.0
    assert success_auc(score, solved, stratum, np.arange(80)).value == 0.5


def test_concordance_counts_pairs_by_hand() -> None:
    rng = np.random.default_rng(3)
    score = rng.integers(0, 5, 14).astype(float)
    time = np.where(rng.random(14) < 0.3, np.inf, rng.integers(1, 6, 14).astype(float))
    stratum = rng.integers(0, 2, 14)
    pairs, agreeing = 0, 0.0
    for i, j in itertools.permutations(range(14), 2):
        if stratum[i] == stratum[j] and time[i] < time[j]:
            pairs += 1
            agreeing += 1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
    found = concordance(score, time, stratum, np.arange(14))
    assert found.pairs == pairs
    assert found.value == pytest.approx(agreeing / pairs)


def test_over_all_permutations_of_the_score_the_mean_is_one_half() -> None:
    time = np.array([1.0, 2.0, 2.0, np.inf, 3.0])
    values = [
        concordance(np.array(order, dtype=float), time, np.zeros(5), np.arange(5)).value
        for order in itertools.permutations(range(5))
    ]
    assert np.mean(values) == pytest.approx(0.5)
    assert max(values) == 1.0


def test_the_interval_holds_the_truth_of_planted_scores() -> None:
    # Score N(1, 1) for solved runs, N(0, 1) for the others: AUC = Φ(1/√2) = 0.760.
    held = 0
    for number in range(25):
        rng = np.random.default_rng(100 + number)
        solved = np.arange(60) % 2 == 0
        found = success_auc(rng.normal(size=60) + solved, solved, np.arange(60) // 20, np.arange(60))
        held += found.low <= 0.7602 <= found.high
    assert 20 <= held <= 25


def test_runs_of_one_seed_are_drawn_together() -> None:
    # Thirty copies of two seeds say no more than two seeds do: the one pair there is, or nothing.
    score, solved = np.tile([1.0, 0.0], 30), np.tile([True, False], 30)
    found = success_auc(score, solved, np.repeat(np.arange(30), 2), np.tile([0, 1], 30))
    assert (found.value, found.pairs) == (1.0, 30)
    assert np.isnan([found.low, found.high]).all(), "two seeds are too few, however many copies there are"
    assert found.p == 1.0, "either way of dealing two scores to two seeds is as far from 1/2"
    rng = np.random.default_rng(0)
    noise = rng.normal(size=12)
    apart = success_auc(noise, np.arange(12) % 2 == 0, np.zeros(12), np.arange(12))
    copies = success_auc(
        np.tile(noise, 9), np.tile(np.arange(12) % 2 == 0, 9), np.repeat(np.arange(9), 12), np.tile(np.arange(12), 9)
    )
    assert (copies.value, copies.low, copies.high) == pytest.approx((apart.value, apart.low, apart.high))


def test_nothing_to_compare_is_said_and_bad_scores_are_refused() -> None:
    found = success_auc([0.1, 0.2, 0.3], [True] * 3, ["a"] * 3, [0, 1, 2])
    assert np.isnan([found.value, found.low, found.high]).all()
    assert (found.pairs, found.informative) == (0, 0)
    with pytest.raises(SpecError, match="finite scores"):
        success_auc([0.1, np.nan], [True, False], [0, 0], [0, 1])
    with pytest.raises(SpecError, match="for each run"):
        success_auc([0.1], [True, False], [0, 0], [0, 1])


def test_the_permutation_test_is_right_about_chance() -> None:
    """Scores without any relation are called significant at 5 % in about 5 % of cases, however few runs solved."""
    for count in (1, 2, 5):
        called = 0
        for number in range(200):
            rng = np.random.default_rng(1000 * count + number)
            solved = np.arange(10) < count
            called += success_auc(rng.normal(size=10), solved, np.zeros(10), np.arange(10)).p <= 0.05
        # With one run of ten solved no order is rarer than 2 in 10.
        assert called <= 20 if count > 1 else called == 0


def test_the_permutation_test_counts_orders_as_all_permutations_do() -> None:
    time = np.array([1.0, 2.0, 2.0, np.inf, 3.0])
    score = np.array([4.0, 3.0, 1.0, 0.0, 2.0])
    found = concordance(score, time, np.zeros(5), np.arange(5))
    values = [
        concordance(score[list(order)], time, np.zeros(5), np.arange(5)).value
        for order in itertools.permutations(range(5))
    ]
    exact = np.mean(np.abs(np.array(values) - 0.5) >= abs(found.value - 0.5) - 1e-12)
    assert found.p == pytest.approx(exact, abs=0.015)


def test_strata_with_the_same_seeds_exchange_the_same_seeds() -> None:
    # Ten copies of one stratum, their runs in other orders, know no more than one of them does.
    rng = np.random.default_rng(5)
    score, solved = rng.normal(size=8), np.arange(8) < 4
    alone = success_auc(score, solved, np.zeros(8), np.arange(8))
    order = np.concatenate([rng.permutation(8) for _ in range(10)])
    copies = success_auc(score[order], solved[order], np.repeat(np.arange(10), 8), order)
    assert copies.p == pytest.approx(alone.p)


def test_no_interval_where_few_runs_stand_on_a_side() -> None:
    rng = np.random.default_rng(6)
    score = rng.normal(size=12)
    few = success_auc(score, np.arange(12) < 4, np.zeros(12), np.arange(12))
    enough = success_auc(score, np.arange(12) < 5, np.zeros(12), np.arange(12))
    assert np.isfinite([few.value, few.p]).all()
    assert np.isnan([few.low, few.high]).all()
    assert enough.low < enough.value < enough.high


def test_runs_that_do_not_differ_in_what_sets_them_apart_are_not_compared() -> None:
    score, solved = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])
    length = np.array([10, 10, 20, 20])
    everywhere = success_auc(score, solved, np.zeros(4), [0, 1, 0, 1])
    apart = success_auc(score, solved, np.zeros(4), [0, 1, 0, 1], apart=length)
    assert (everywhere.pairs, everywhere.value) == (4, 0.75)
    # The pairs of unlike length: 4 against 1, in order, and 2 against 3, not.
    assert (apart.pairs, apart.value) == (2, 0.5)
    assert np.isnan(apart.p)
