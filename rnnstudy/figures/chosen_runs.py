"""Which runs and readings a figure is made of, in a fixed order."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from rnnstudy.figures.style import cell_position
from rnnstudy.spec import RnnstudyError, SpecError, nearest

PROBE_ADVICE = "add the probe GradientThroughTime to the runs"


class Results(Protocol):
    """What is drawn: `rnnstudy.results.Results`, or anything with these two.

    `readings` raises `SpecError` for a name that no run has.
    """

    @property
    def runs(self) -> pd.DataFrame: ...

    def readings(
        self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None
    ) -> pd.DataFrame: ...


def validation_table(results: Results, over: str = "learning_rate") -> pd.DataFrame:
    """How each setting did in validation: one row per cell, length and value of the column `over`.

    Columns: runs; solved_in_validation, the runs that met the criterion twice in a row; final_validation_error, the
    median over runs of the last reading of `learning/error`, infinite for a diverged run; steps_to_solve, the median of
    the runs that have one; chosen, the best value for the cell and length. Best has the largest share solved in
    validation; among equals the lowest final error, then the fewest steps, then the lowest value. The test sequences
    play no part. Failed runs are left out.
    """
    runs = judged(results, None)
    if over not in runs.columns:
        raise SpecError(f"the runs have no column '{over}'{nearest(over, map(str, runs.columns))}")
    readings = with_runs(results, "learning/error", None, []).dropna(subset=["value"])
    last = readings.sort_values(["key", "step"]).groupby("key")["value"].last()
    ending = last.reindex(runs.index).fillna(np.inf).where(runs["status"] != "diverged", np.inf)
    steps = runs["steps_to_solve"].astype(float)
    frame = runs.assign(final_validation_error=ending, steps_to_solve=steps, has_solved=steps.notna())
    table = (
        frame.groupby(["cell", "length", over], sort=True)
        .agg(
            runs=("has_solved", "size"),
            solved_in_validation=("has_solved", "sum"),
            final_validation_error=("final_validation_error", "median"),
            steps_to_solve=("steps_to_solve", "median"),
        )
        .reset_index()
    )
    ranked = table.assign(share=-table["solved_in_validation"] / table["runs"]).sort_values(
        ["cell", "length", "share", "final_validation_error", "steps_to_solve", over], na_position="last", kind="stable"
    )
    table["chosen"] = table.index.isin(ranked.groupby(["cell", "length"]).head(1).index)
    return ordered(table)


def best_by_validation(results: Results, over: str = "learning_rate") -> list[str]:
    """Keys, sorted, of the runs whose setting `over` is the best of their cell and length by `validation_table`."""
    table = validation_table(results, over)
    setting = ["cell", "length", over]
    chosen = set(table[table["chosen"]][setting].itertuples(index=False, name=None))
    runs = judged(results, None)[setting]
    return sorted(key for key, *values in runs.itertuples(name=None) if tuple(values) in chosen)


def ordered(data: pd.DataFrame) -> pd.DataFrame:
    """Rows in a fixed order: by the columns as they stand, cells in the order of `STYLES`."""
    position = {cell: number for number, cell in enumerate(sorted(set(data["cell"]), key=cell_position))}
    ranks = ("state", "cell", "length", "learning_rate", "seed", "key", "step", "lag", "time")
    order = data[[name for name in ranks if name in data.columns]].assign(cell=data["cell"].map(position))
    if "state" in order:
        order["state"] = order["state"].map({name: place for place, name in enumerate(dict.fromkeys(data["state"]))})
    return data.loc[data.index[_lexical(order)]] if data.index.is_unique else ordered(data.reset_index(drop=True))


def _lexical(order: pd.DataFrame) -> np.ndarray:
    return np.lexsort([order[name].to_numpy() for name in reversed(list(order.columns))])


def drawn_keys(results: Results, keys: Sequence[str] | None) -> tuple[str, ...]:
    """The runs of a figure that draws `keys`, or all."""
    return tuple(sorted(results.runs.index if keys is None else keys))


def with_runs(
    results: Results, name: str, keys: Sequence[str] | None, columns: Sequence[str], quantile: float | None = None
) -> pd.DataFrame:
    """A reading of the runs `keys`, joined with columns of `runs`; empty when no run has it."""
    try:
        frame = results.readings(name, quantile=quantile, keys=keys)
    except RnnstudyError:
        return pd.DataFrame(columns=["key", "value", *columns])
    return frame.assign(key=frame["key"].astype(str)).join(results.runs[list(columns)], on="key")


def medians(results: Results, name: str, keys: Sequence[str] | None) -> pd.DataFrame:
    """The median over sequences of a reading with quantiles, joined with the runs' cell, length and seed.

    Where it is absent because the gradient of most sequences is exactly zero, which `<name>_zeros` tells, it is −inf:
    below every number, and not unknown.
    """
    frame = with_runs(results, name, keys, ["cell", "length", "seed"], quantile=0.5)
    if not frame["value"].isna().any():
        return frame
    zeros = with_runs(results, f"{name.removesuffix('_normalised')}_zeros", keys, [])
    place = ["key", *(column for column in ("step", "time", "lag") if column in frame and column in zeros)]
    share = frame[place].merge(zeros[[*place, "value"]], on=place, how="left")["value"].to_numpy(float)
    below = frame["value"].isna().to_numpy() & (share > 0.5)
    return frame.assign(value=np.where(below, -np.inf, frame["value"].to_numpy(float)))


def judged(results: Results, keys: Sequence[str] | None) -> pd.DataFrame:
    """The runs that say something about their cell: those that failed by a fault of the machinery do not."""
    runs = results.runs if keys is None else results.runs.loc[list(keys)]
    runs = runs[runs["status"] != "failed"].sort_index()
    if runs.empty:
        raise SpecError("there is no finished or diverged run to draw")
    return runs


def by_cell(runs: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """The runs of each cell and length, as ((cell, length), runs)."""
    return [((str(cell), int(length)), group) for (cell, length), group in runs.groupby(["cell", "length"])]


def true(values: pd.Series) -> pd.Series:
    """Whether each value is true; a run that was not judged (diverged) has not solved its task."""
    return values.eq(True).fillna(False).astype(bool)


def updates_to_solve(runs: pd.DataFrame) -> pd.Series:
    """Updates until each run solved its task; infinite for one that did not, a diverged one among them.

    `solved` decides, the published criterion on fresh test sequences: a run that met it in validation twice, stopped
    there and failed the test has not solved its task. The time is `steps_to_solve`, the first of the two validation
    checks, or the whole budget for a run that passed the test without having met the criterion twice.
    """
    budget = runs["training.steps"].astype(float)
    return runs["steps_to_solve"].astype(float).fillna(budget).where(true(runs["solved"]), np.inf)
