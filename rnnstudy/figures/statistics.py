"""Intervals over runs, and their names. The unit is always a run."""

import numpy as np
from scipy.stats import binomtest

SEEDS_FOR_INTERVAL = 10
"""Below so many runs a bootstrap interval promises more than it can keep: the band is then the range of the runs."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def median_and_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over the first axis (run): median, lower and upper end of the band, NaN where nothing is present.

    The band is the bootstrap 95 % interval of the median from `SEEDS_FOR_INTERVAL` runs on, the range of the runs below
    that; `band_words` names it.
    """
    low, median, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    somewhere = np.isfinite(values).any(axis=0)
    present = values[:, somewhere]
    if present.size:
        median[somewhere] = np.nanmedian(present, axis=0)
        low[somewhere], high[somewhere] = np.nanmin(present, axis=0), np.nanmax(present, axis=0)
    if len(values) >= SEEDS_FOR_INTERVAL and present.size:
        drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        for column in np.flatnonzero(somewhere):
            resampled = values[:, column][drawn]
            medians = np.nanmedian(resampled[np.isfinite(resampled).any(axis=1)], axis=1)
            low[column], high[column] = np.quantile(medians, [0.025, 0.975])
    return median, low, high


def band_words(fewest: int, most: int) -> str:
    """What the band of `median_and_band` is, where it was made of `fewest` to `most` runs."""
    if fewest >= SEEDS_FOR_INTERVAL:
        return "95 % bootstrap interval over runs"
    return "range of the runs" if most < SEEDS_FOR_INTERVAL else "95 % bootstrap interval, or range below 10 runs"


def counted(fewest: int, most: int) -> str:
    """Words for a number of runs that differs from place to place."""
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"
