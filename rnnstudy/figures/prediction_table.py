"""How well a quantity known before training predicts which runs succeed."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, cells_of
from rnnstudy.figures.concordance import concordance, success_auc

__all__ = ["prediction_table"]

STRATUM = ("task", "cell", "length", "learning_rate")
"""Runs of one stratum differ in their seed alone."""


def prediction_table(
    results: RunsAndReadings, score: str, *, stratum: Sequence[str] = STRATUM, keys: Keys = None
) -> pd.DataFrame:
    """How well a column of `results.runs` known before training predicts success, within strata and across them.

    One row for each comparison, target and cell (and `all` of them). Comparison: `within strata`, pairs of runs of the
    same stratum; `across lengths`, pairs of runs that differ in their length and share all else of the stratum, which
    shows how much of a relation is due to the length alone. Target: `solved` (area under the ROC curve) and `sooner`
    (Harrell's C for `updates_to_solve`, unsolved runs censored). Columns: those of `Concordance`, runs, without_score
    (left out).

    Raises `RequestError` when the runs have no such column.
    """
    runs = chosen_runs.finished_or_diverged(results, keys)
    chosen_runs.require_columns(runs, score, advice="; add the probe GradientThroughTime to the runs")
    values = runs[score].astype(float)
    scored = runs[np.isfinite(values)]
    rows = []
    comparisons = {"within strata": list(stratum), "across lengths": [name for name in stratum if name != "length"]}
    for comparison, columns in comparisons.items():
        for cell in ("all", *cells_of(scored)):
            chosen = scored if cell == "all" else scored[scored["cell"] == cell]
            labels = chosen[columns].astype(str).agg(" | ".join, axis=1).to_numpy()
            numbers, seeds = chosen[score].astype(float).to_numpy(), chosen["seed"].to_numpy()
            apart = chosen["length"].to_numpy() if comparison == "across lengths" else None
            of_cell = len(runs) if cell == "all" else int(runs["cell"].eq(cell).sum())
            counts = {"runs": len(chosen), "without_score": of_cell - len(chosen)}
            solved, sooner = chosen_runs.true(chosen["solved"]), chosen_runs.updates_to_solve(chosen)
            for target, statistic, end in (("solved", success_auc, solved), ("sooner", concordance, sooner)):
                result = statistic(numbers, end.to_numpy(), labels, seeds, apart=apart)
                rows.append({"comparison": comparison, "target": target, "cell": cell, **vars(result), **counts})
    return pd.DataFrame(rows)
