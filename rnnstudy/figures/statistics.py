"""Medians, shares and intervals over runs, and their names. One observation is one run."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, wilcoxon

from rnnstudy.figures.chosen_runs import ordered

__all__ = [
    "SEEDS_FOR_INTERVAL",
    "band_words",
    "counted",
    "holm",
    "mcnemar",
    "median_and_band",
    "signed_ranks",
    "wilson",
]

SEEDS_FOR_INTERVAL = 10
"""With fewer runs a bootstrap interval is not reliable: the band is then the range of the runs."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_row(happened: pd.Series, name: str) -> dict[str, Any]:
    """The number of runs for which `happened` is true (as `name`), of how many, their share and its interval."""
    count, runs = int(happened.sum()), len(happened)
    low, high = wilson(count, runs)
    return {name: count, "runs": runs, "share": count / runs, "wilson_low": low, "wilson_high": high}


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test on pairs: how often `first` alone is true, how often `second` alone is, and p.

    p is the two-sided binomial probability, at 1/2, of such an uneven split of the pairs that differ, or a more uneven
    one; 1 where none differ. Source: McNemar 1947.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    return alone, other, float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0


def signed_ranks(differences: np.ndarray) -> float:
    """The two-sided p of Wilcoxon's signed-rank test on `differences`, one a pair; 1 where no pair differs.

    Pairs that do not differ are left out, as in Wilcoxon 1945.
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for the number of tests, so that any rejection at level α is wrong with probability at most α.

    In ascending order, p_(i) becomes the largest of (m − j + 1) p_(j) over j ≤ i, at most 1. Source: Holm 1979.
    """
    order, adjusted, highest = np.argsort(p_values, kind="stable"), np.empty(len(p_values)), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted.tolist()


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
        median[column], low[column], high[column] = _median(present), present.min(), present.max()
        if len(present) >= SEEDS_FOR_INTERVAL:
            drawn = np.random.default_rng(0).integers(len(present), size=(2000, len(present)))
            medians = np.sort(_median(present[drawn]))
            # The 2.5 % points are entries, not means of two: one of them may be infinite.
            low[column], high[column] = medians[50], medians[1949]
    return tuple(np.where(np.isfinite(part), part, np.nan) for part in (median, low, high))


def _median(values: np.ndarray) -> np.ndarray:
    """The median over the last axis, −inf where one of the two middle values is."""
    ranked, count = np.sort(values, axis=-1), values.shape[-1]
    below, above = ranked[..., (count - 1) // 2], ranked[..., count // 2]
    return np.where(np.isfinite(below), (below + above) / 2, below)


def median_of(values: np.ndarray) -> tuple[float, float, float]:
    """Median and band of one value for each run."""
    return tuple(float(part[0]) for part in median_and_band(values[:, None]))


def medians_of(frame: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """`median_of` a column with one value for each run, for each group of `by`: the median under the column's own name,
    low, high, and runs (those with a value)."""
    rows = [
        [*labels, *median_of(group[column].to_numpy(float)), group[column].count()]
        for labels, group in frame.groupby(list(by))
    ]
    return pd.DataFrame(rows, columns=[*by, column, "low", "high", "runs"])


def medians_by(frame: pd.DataFrame, by: Sequence[str], across: str, **ranks: Callable[[Any], Any]) -> pd.DataFrame:
    """Median and band over runs of the column `value`, for each group of `by` and each value of `across`.

    Columns: `by`, `across`, median, low, high, runs (those with a value there), of_runs (all runs of the group). A row
    is left out where less than half of the runs have a value, or their median is below all numbers. Rows are `ordered`,
    with `ranks`.
    """
    columns = [*by, across, "median", "low", "high", "runs", "of_runs"]
    parts = []
    for labels, group in frame.groupby(list(by)) if len(frame) else ():
        table = group.pivot(index="key", columns=across, values="value")
        median, low, high = median_and_band(table.to_numpy(float))
        numbers = {"median": median, "low": low, "high": high, "runs": table.notna().sum().to_numpy()}
        part = pd.DataFrame({**dict(zip(by, labels, strict=True)), across: table.columns, **numbers})
        present = (part["runs"] * 2 >= len(table)) & part["median"].notna()
        parts.append(part[present].assign(of_runs=len(table)))
    return ordered(pd.concat(parts), [*by, across], **ranks) if parts else pd.DataFrame(columns=columns)


def band_words(runs: pd.Series) -> str:
    """The name of the bands of `median_and_band` that were made of so many runs each."""
    if runs.min() >= SEEDS_FOR_INTERVAL:
        return "95 % bootstrap interval over runs"
    return "range of the runs" if runs.max() < SEEDS_FOR_INTERVAL else "95 % bootstrap interval, or range below 10 runs"


def counted(runs: pd.Series) -> str:
    """Numbers of runs in words: `10 runs`, or `8 to 10 runs` where they differ."""
    fewest, most = int(runs.min()), int(runs.max())
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"
