"""How runs came out: one row for each cell, length and setting."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

MEDIANS = ("steps_to_solve", "error", "log10_ratio_initial", "log10_ratio_final")
"""Columns whose medians over the runs of a row are given; NaN where no run of the row has a value."""


def outcome_table(runs: pd.DataFrame, settings: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each cell, length and combination of `settings`.

    Columns: `cell`, `length`, those of `settings` that `runs` has (None where a run has no such field), `runs`,
    `solved` (a diverged run counts as unsolved), `diverged`, and the columns `MEDIANS`. The log10 ratios compare the
    gradient at the first step with that at the last supervised one, in decades, before and after training.
    `runs` is `Results.runs`.
    """
    by = ["cell", "length", *(name for name in settings if name in runs.columns)]
    rows = []
    groups: Any = runs.groupby(by, dropna=False, sort=True)
    for row, group in groups:
        values = [None if pd.isna(value) else value for value in row]
        diverged = int(group["status"].eq("diverged").sum())
        counts = {"runs": len(group), "solved": solved_count(group), "diverged": diverged}
        medians = {name: median(group, name) for name in MEDIANS}
        rows.append(dict(zip(by, values, strict=True)) | counts | medians)
    table = pd.DataFrame(rows, columns=[*by, "runs", "solved", "diverged", *MEDIANS])
    return table.astype({name: object for name in by})


def solved_count(runs: Any) -> int:
    """How many runs of a data frame solved their task; a diverged run was not judged and does not count."""
    return int(runs["solved"].eq(True).fillna(False).sum())


def median(runs: Any, column: str) -> float:
    """The median of a column of a data frame; NaN where no run has a value."""
    found = runs[column].median() if column in runs else None
    return float("nan") if found is None or pd.isna(found) else float(found)
