"""Whether a score is related to success: concordance within strata, with its interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rnnstudy.spec import SpecError

__all__ = ["Concordance", "concordance", "success_auc"]

RESAMPLED = 2000
"""Bootstrap samples, and permutations."""

FEWEST_SEEDS = 5
"""No interval where the runs that ended sooner than another, or later, have fewer seeds: too few to resample."""


@dataclass(frozen=True)
class Concordance:
    """How often the run with the higher score is the one that ends sooner.

    Attributes:
        value: from 0 to 1; 1/2 is no relation. NaN where no two runs can be compared.
        low, high: bootstrap 95 % interval over seeds. NaN where `value` is; where the runs that ended sooner than
            another, or those that ended later, have fewer than `FEWEST_SEEDS` seeds; and where all pairs agree, since
            all samples of them agree too.
        p: how often `value` would be so far from 1/2, or further, if the scores were assigned to the seeds at random:
            a permutation test within strata. NaN where `value` is, and with `apart`.
        pairs: the number of pairs of runs that were compared.
        strata: the number of strata.
        informative: the number of strata with a pair that can be compared.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int
    strata: int
    informative: int


def success_auc(
    score: ArrayLike, solved: ArrayLike, stratum: ArrayLike, seed: ArrayLike, *, apart: ArrayLike | None = None
) -> Concordance:
    """The area under the ROC curve for `solved`, within strata.

    The probability that, of two runs of one stratum of which exactly one solved the task, that one has the higher
    score; equal scores count one half. All pairs have equal weight: a stratum has the weight (solved · unsolved), which
    is 0 where all runs solved the task or none did. See `concordance` for the interval.
    """
    return concordance(score, np.where(np.asarray(solved, dtype=bool), 0.0, np.inf), stratum, seed, apart=apart)


def concordance(
    score: ArrayLike, time: ArrayLike, stratum: ArrayLike, seed: ArrayLike, *, apart: ArrayLike | None = None
) -> Concordance:
    """Harrell's C within strata: the probability that of two comparable runs the one with the higher score ends sooner.

    Two runs are comparable when they share a stratum and their times differ; equal scores count one half.

    Args:
        score: of each run.
        time: when each run reached its end; infinite for one that never did within its budget (censored there).
        stratum: only runs with equal values are compared; for example task, cell and length.
        seed: runs of equal seed share their initial weights or their sequences: the bootstrap draws seeds, each with
            all its runs; the permutation assigns scores to seeds, in the same way in all strata.
        apart: compare only runs that differ in this, for example in their length.

    Source: Harrell et al. 1982; with two times it is the Mann–Whitney statistic, the area under the ROC curve.
    Raises `SpecError` for arrays of different lengths, or a score that is not finite.
    """
    score, time = np.asarray(score, dtype=np.float64), np.asarray(time, dtype=np.float64)
    stratum, seed = np.asarray(stratum), np.asarray(seed)
    if not len(score) == len(time) == len(stratum) == len(seed):
        raise SpecError("concordance takes one score, time, stratum and seed for each run")
    if not np.isfinite(score).all():
        raise SpecError("concordance takes finite scores; leave out the runs that have none, and say how many")
    seeds, which = np.unique(seed, return_inverse=True)
    random = np.random.default_rng(0)
    drawn = random.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=RESAMPLED)
    priorities = random.random((RESAMPLED, len(seeds)))
    comparable, concordant = 0.0, 0.0
    resampled, permuted = np.zeros((2, RESAMPLED)), np.zeros(RESAMPLED)
    names = np.unique(stratum)
    informative, sooner, later = 0, set[int](), set[int]()
    for name in names:
        # In the order of their seeds, so that a permutation exchanges the same seeds in every stratum.
        inside = np.flatnonzero(stratum == name)
        inside = inside[np.argsort(which[inside], kind="stable")]
        of_pair = time[inside][:, None] < time[inside][None, :]
        if apart is not None:
            own = np.asarray(apart)[inside]
            of_pair = of_pair & (own[:, None] != own[None, :])
        agreeing = _agreement(of_pair, score[inside])
        comparable, concordant = comparable + of_pair.sum(), concordant + agreeing.sum()
        informative += bool(of_pair.any())
        sooner |= set(which[inside][of_pair.any(axis=1)].tolist())
        later |= set(which[inside][of_pair.any(axis=0)].tolist())
        weights = drawn[:, which[inside]].astype(np.float64)
        for row, matrix in enumerate((of_pair.astype(np.float64), agreeing)):
            resampled[row] += ((weights @ matrix) * weights).sum(axis=1)
        if of_pair.any() and apart is None:
            permuted += _permuted(of_pair, score[inside], priorities[:, which[inside]])
    if comparable == 0:
        return Concordance(np.nan, np.nan, np.nan, np.nan, 0, len(names), 0)
    value, low, high, p = float(concordant / comparable), np.nan, np.nan, np.nan
    if min(len(sooner), len(later)) >= FEWEST_SEEDS and 0 < value < 1:
        some = resampled[0] > 0
        low, high = (float(end) for end in np.quantile(resampled[1, some] / resampled[0, some], [0.025, 0.975]))
    if apart is None:
        # As far from 1/2, up to rounding. The 1 added is the observed order, which is one of the possible ones.
        further = np.abs(permuted / comparable - 0.5) >= abs(value - 0.5) - 1e-12
        p = float((1 + further.sum()) / (1 + RESAMPLED))
    return Concordance(value, low, high, p, int(comparable), len(names), informative)


def _agreement(of_pair: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(run that ended sooner, run that ended later): 1 where the first has the higher score, 1/2 where equal."""
    return of_pair * (1 + np.sign(score[:, None] - score[None, :])) / 2


def _permuted(of_pair: np.ndarray, score: np.ndarray, priorities: np.ndarray) -> np.ndarray:
    """The number of agreeing pairs of a stratum under each permutation of its scores.

    Each row of `priorities` (permutation, run) is a permutation: the order of its random numbers. Runs of one seed
    share their random number, so that strata with the same seeds exchange the same seeds.
    """
    permuted = score[np.argsort(priorities, axis=1, kind="stable")]
    sooner, later = np.nonzero(of_pair)
    return ((1 + np.sign(permuted[:, sooner] - permuted[:, later])) / 2).sum(axis=1)
