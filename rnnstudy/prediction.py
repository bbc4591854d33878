"""Does a quantity known before training go together with success? Concordance within strata, with its interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnstudy.spec import SpecError

RESAMPLED = 2000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Concordance:
    """How often the run with the higher score is the one that ends sooner.

    Attributes:
        value: from 0 to 1; 1/2 is no relation. NaN where no two runs can be compared.
        low, high: bootstrap 95 % interval over seeds. NaN with `value`.
        pairs: of runs that were compared.
        strata: how many there are.
        informative: how many of them have a pair that can be compared.
    """

    value: float
    low: float
    high: float
    pairs: int
    strata: int
    informative: int


def success_auc(
    score: npt.ArrayLike, solved: npt.ArrayLike, stratum: npt.ArrayLike, seed: npt.ArrayLike
) -> Concordance:
    """The area under the ROC curve for `solved`, within strata.

    The chance that, of two runs of one stratum of which one solved the task, that one has the higher score; equal
    scores count one half. Pairs of all strata count alike, so that a stratum weighs (solved · unsolved), and one in
    which all runs solved the task or none did says nothing. See `concordance` for the interval.
    """
    return concordance(score, np.where(np.asarray(solved, dtype=bool), 0.0, np.inf), stratum, seed)


def concordance(score: npt.ArrayLike, time: npt.ArrayLike, stratum: npt.ArrayLike, seed: npt.ArrayLike) -> Concordance:
    """Harrell's C within strata: the chance that of two comparable runs the one with the higher score ends sooner.

    Two runs are comparable when they share a stratum and their times differ; equal scores count one half.

    Args:
        score: of each run.
        time: when each run reached its end; infinite for one that never did within its budget (censored there).
        stratum: what each run may be compared within, for example its task, cell and length.
        seed: runs of equal seed share their initial weights or their sequences: the bootstrap draws seeds, and all runs
            of a seed with it.

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
    drawn = np.random.default_rng(0).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=RESAMPLED)
    comparable, concordant = 0.0, 0.0
    resampled = np.zeros((2, RESAMPLED))
    names = np.unique(stratum)
    informative = 0
    for name in names:
        inside = stratum == name
        of_pair = (time[inside][:, None] < time[inside][None, :]).astype(np.float64)
        difference = np.sign(score[inside][:, None] - score[inside][None, :])
        agreeing = of_pair * (1 + difference) / 2
        comparable, concordant = comparable + of_pair.sum(), concordant + agreeing.sum()
        informative += bool(of_pair.any())
        weights = drawn[:, which[inside]].astype(np.float64)
        for place, matrix in enumerate((of_pair, agreeing)):
            resampled[place] += ((weights @ matrix) * weights).sum(axis=1)
    if comparable == 0:
        return Concordance(np.nan, np.nan, np.nan, 0, len(names), 0)
    there = resampled[0] > 0
    low, high = np.quantile(resampled[1, there] / resampled[0, there], [0.025, 0.975])
    return Concordance(
        float(concordant / comparable), float(low), float(high), int(comparable), len(names), informative
    )
