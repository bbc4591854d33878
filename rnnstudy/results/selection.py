"""A hyper-parameter chosen on some seeds, to be reported on others."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from rnnstudy.results.results import Results
from rnnstudy.spec import RequestError


def selection_table(
    results: Results,
    by: Sequence[str],
    seeds: Collection[int],
    *,
    over: str = "learning_rate",
    labels: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """How each value of the column `over` did in validation, on the runs with these seeds alone.

    One row for each setting (the columns `by` of `results.runs`, or of `labels`, which is indexed by key) and value.
    Columns: `by`, `over`; runs; solved, those that met the criterion in two validation checks in a row; steps, the mean
    over runs of the updates to there, an unsolved or diverged run counting with its whole budget; error, the mean of
    the last validation error, infinite where a run diverged; chosen; at_edge, whether the chosen value is the lowest or
    the highest that was tried, so that a better one may lie outside.

    Chosen is, for each setting, the largest share solved; among equals the fewest `steps`, then the lowest `error`,
    then the lowest value. The test sequences are not used. Failed and pruned runs are left out.

    Raises `RequestError` when no run has these seeds.
    """
    runs = results.runs if labels is None else results.runs.join(labels)
    runs = runs[runs["seed"].isin(list(seeds)) & runs["status"].isin(["finished", "diverged"])]
    if runs.empty:
        raise RequestError(f"no run has one of the seeds {', '.join(map(str, sorted(seeds)))}")
    readings = results.readings("learning/error", keys=runs.index).dropna(subset=["value"])
    last = readings.sort_values(["key", "step"]).groupby("key", observed=True)["value"].last()
    diverged = runs["status"] == "diverged"
    steps, budget = runs["steps_to_solve"].astype(float), runs["training.steps"].astype(float)
    measured = runs.assign(
        solved=(steps.notna() & ~diverged),
        steps=steps.where(~diverged).fillna(budget),
        error=last.reindex(runs.index).astype(float).fillna(np.inf).where(~diverged, np.inf),
    )
    groups = measured.groupby([*by, over], dropna=False)
    table = groups.agg(
        runs=("seed", "size"), solved=("solved", "sum"), steps=("steps", "mean"), error=("error", "mean")
    )
    table = table.reset_index()
    ranked = table.assign(share=-table["solved"] / table["runs"]).sort_values(
        [*by, "share", "steps", "error", over], kind="stable"
    )
    settings = table.groupby(list(by), dropna=False)[over]
    table["chosen"] = table.index.isin(ranked.groupby(list(by), dropna=False).head(1).index)
    outermost = (table[over] == settings.transform("min")) | (table[over] == settings.transform("max"))
    table["at_edge"] = table["chosen"] & outermost
    return table


def chosen_values(table: pd.DataFrame, by: Sequence[str], over: str = "learning_rate") -> dict[tuple, float]:
    """The chosen value of each setting of a `selection_table`."""
    chosen = table[table["chosen"]]
    return {tuple(setting): value for *setting, value in chosen[[*by, over]].itertuples(index=False, name=None)}


def success_by_budget(runs: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """The share of `runs` that had solved the task in validation within each number of updates.

    Columns: budget, solved, runs. Exact where training stops when solved and its schedule does not depend on the
    budget: a run with a smaller budget would have been the same until then.
    """
    steps = runs["steps_to_solve"].astype(float)
    rows = [(budget, int((steps <= budget).sum()), len(runs)) for budget in budgets]
    return pd.DataFrame(rows, columns=["budget", "solved", "runs"])
