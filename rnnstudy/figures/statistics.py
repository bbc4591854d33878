"""Intervals over runs, and their names. The unit is always a run."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

SEEDS_FOR_INTERVAL = 10
"""Below so many runs a bootstrap interval promises more than it can keep: the band is then the range of the runs."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_row(happened: pd.Series, name: str) -> dict[str, Any]:
    """Of runs of which each did something or not: how many did (`name`), of how many, the share and its interval."""
    count, runs = int(happened.sum()), len(happened)
    low, high = wilson(count, runs)
    return {name: count, "runs": runs, "share": count / runs, "wilson_low": low, "wilson_high": high}


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test on pairs: those where `one` alone is true, those where `other` alone is, and p.

    p is the two-sided binomial probability, at 1/2, of so uneven a division of the pairs that differ, or a more uneven
    one; 1 where none differ. Source: McNemar 1947.
    """
    one, other = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    return first, second, float(binomtest(first, first + second).pvalue) if first + second else 1.0


def median_and_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over the first axis (run): median, lower and upper end of the band, NaN where nothing is present.

    −inf, a gradient that is exactly zero, ranks below all numbers; NaN is absent. The band is the bootstrap 95 %
    interval of the median where `SEEDS_FOR_INTERVAL` runs have a value, the range of the runs where fewer have;
    `band_words` names it. A median or an end that would be −inf is NaN: it lies below every picture.
    """
    low, median, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    for column in range(values.shape[1]):
        present = values[:, column][~np.isnan(values[:, column])]
        if not len(present):
            continue
        median[column], low[column], high[column] = _middle(present), present.min(), present.max()
        if len(present) >= SEEDS_FOR_INTERVAL:
            drawn = np.random.default_rng(0).integers(len(present), size=(2000, len(present)))
            medians = np.sort(_middle(present[drawn]))
            # The 2.5 % points are entries, not means of two: one of them may be infinite.
            low[column], high[column] = medians[50], medians[1949]
    return tuple(np.where(np.isfinite(one), one, np.nan) for one in (median, low, high))  # pyright: ignore[reportReturnType]


def _middle(values: np.ndarray) -> np.ndarray:
    """The median over the last axis, −inf where one of the two middle values is."""
    ranked, count = np.sort(values, axis=-1), values.shape[-1]
    below, above = ranked[..., (count - 1) // 2], ranked[..., count // 2]
    return np.where(np.isfinite(below), (below + above) / 2, below)


def median_table(values: pd.DataFrame, across: str) -> pd.DataFrame:
    """Median and band over the rows of a table (run, `across`), for each column: `across`, median, low, high, runs.

    `runs` counts those that have a value there.
    """
    table = values.sort_index().sort_index(axis=1)
    numbers = table.to_numpy(float)
    median, low, high = median_and_band(numbers)
    present = (~np.isnan(numbers)).sum(axis=0)
    return pd.DataFrame({across: table.columns, "median": median, "low": low, "high": high, "runs": present})


def band_words(fewest: int, most: int) -> str:
    """What the band of `median_and_band` is, where it was made of `fewest` to `most` runs."""
    if fewest >= SEEDS_FOR_INTERVAL:
        return "95 % bootstrap interval over runs"
    return "range of the runs" if most < SEEDS_FOR_INTERVAL else "95 % bootstrap interval, or range below 10 runs"


def counted(fewest: int, most: int) -> str:
    """Words for a number of runs that differs from place to place."""
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"
