"""Which runs and readings a figure is made of, in a fixed order."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd

from rnnstudy.figures.style import cell_position
from rnnstudy.spec import RequestError, RnnstudyError, nearest

__all__ = ["RunsAndReadings", "best_by_validation", "ordered", "true", "updates_to_solve", "validation_table"]

STAGES = {"initial": "before training", "final": "after training"}
"""The moments at which many readings are taken: the end of their names, and words."""

Keys: TypeAlias = Sequence[str] | None
"""The runs to draw; all for None."""


class RunsAndReadings(Protocol):
    """What figures draw: `rnnstudy.results.Results`, or anything else with these two.

    `readings` raises an `RnnstudyError` for a name that no run has.
    """

    @property
    def runs(self) -> pd.DataFrame: ...

    def readings(
        self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None
    ) -> pd.DataFrame: ...


def validation_table(results: RunsAndReadings, over: str = "learning_rate") -> pd.DataFrame:
    """How each setting did in validation: one row per cell, length and value of the column `over`.

    Columns: runs; solved_in_validation, the runs that met the criterion twice in a row; final_validation_error, the
    median over runs of the last reading of `learning/error`, infinite for a diverged run; steps_to_solve, the median of
    the runs that have one; chosen, the best value for the cell and length. Best has the largest share solved in
    validation; among equals the lowest final error, then the fewest steps, then the lowest value. The test sequences
    are not used. Failed runs are left out.

    Raises `RequestError` when the runs have no such column.
    """
    runs = finished_or_diverged(results, None)
    require_columns(runs, over)
    readings = readings_of(results, "learning/error", None, []).dropna(subset=["value"])
    last = readings.sort_values(["key", "step"]).groupby("key")["value"].last()
    final = last.reindex(runs.index).fillna(np.inf).where(runs["status"] != "diverged", np.inf)
    steps = runs["steps_to_solve"].astype(float)
    frame = runs.assign(final_validation_error=final, steps_to_solve=steps, has_solved=steps.notna())
    settings = frame.groupby(["cell", "length", over])
    counts = settings["has_solved"].agg(runs="size", solved_in_validation="sum")
    table = counts.join(settings[["final_validation_error", "steps_to_solve"]].median()).reset_index()
    ranked = table.assign(share=-table["solved_in_validation"] / table["runs"]).sort_values(
        ["cell", "length", "share", "final_validation_error", "steps_to_solve", over], na_position="last", kind="stable"
    )
    table["chosen"] = table.index.isin(ranked.groupby(["cell", "length"]).head(1).index)
    return ordered(table)


def best_by_validation(results: RunsAndReadings, over: str = "learning_rate") -> list[str]:
    """Keys, sorted, of the runs whose setting `over` is the best of their cell and length by `validation_table`."""
    table = validation_table(results, over)
    setting = ["cell", "length", over]
    runs = finished_or_diverged(results, None)[setting].rename_axis("key").reset_index()
    return sorted(runs.merge(table.loc[table["chosen"], setting])["key"])


def ordered(data: pd.DataFrame, by: Sequence[str] = (), **ranks: Callable[[Any], Any]) -> pd.DataFrame:
    """Rows in a fixed order: by the columns `by`, or else by all columns that say where a row belongs.

    Cells are in the order of `STYLES`, stages in that of `STAGES`, states in that of their first rows; `ranks` are sort
    keys of further columns.
    """
    by = by or [name for name in _COLUMNS_OF_PLACE if name in data.columns]
    states = {state: rank for rank, state in enumerate(data["state"].unique())} if "state" in data else {}
    keys = {"cell": cell_position, "stage": list(STAGES).index, "state": states.get} | ranks
    ranked = data.reset_index(drop=True)
    order = ranked.assign(**{name: ranked[name].map(keys[name]) for name in by if name in keys})
    return ranked.loc[order.sort_values(list(by), kind="stable").index].reset_index(drop=True)


_COLUMNS_OF_PLACE = ("state", "cell", "length", "learning_rate", "seed", "key", "step", "lag", "time")


def cells_of(data: pd.DataFrame) -> list[str]:
    """The cells of a table, in the order of drawing."""
    return sorted(data["cell"].unique(), key=cell_position)


def drawn_keys(results: RunsAndReadings, keys: Keys) -> tuple[str, ...]:
    """The runs of a figure that draws `keys`, or all, sorted."""
    return tuple(sorted(results.runs.index if keys is None else keys))


def keys_of_length(results: RunsAndReadings, length: int | None, keys: Keys) -> tuple[int, tuple[str, ...]]:
    """The length to draw, the longest among the runs `keys` for None, and the runs of that length, sorted.

    Raises `RequestError` when no run has that length.
    """
    runs = results.runs.loc[list(drawn_keys(results, keys))]
    known = sorted(runs["length"].unique())
    length = int(known[-1]) if length is None else length
    if length not in known:
        raise RequestError(f"no run has length {length}; the lengths here: {', '.join(map(str, known))}")
    return length, tuple(runs.index[runs["length"] == length])


def readings_of(
    results: RunsAndReadings, name: str, keys: Keys, columns: Sequence[str], quantile: float | None = None
) -> pd.DataFrame:
    """A reading of the runs `keys`, joined with columns of `runs`; empty when no run has it."""
    try:
        frame = results.readings(name, quantile=quantile, keys=keys)
    except RnnstudyError:
        return pd.DataFrame(columns=["key", "value", *columns])
    return frame.assign(key=frame["key"].astype(str)).join(results.runs[list(columns)], on="key")


def readings_by_stage(
    results: RunsAndReadings, name: str, keys: Keys, probe: str, quantile: float | None = None
) -> pd.DataFrame:
    """`readings_of` with the cell, before and after training, told apart by the column stage; see `required`."""
    stages = [readings_of(results, f"{name}_{s}", keys, ["cell"], quantile).assign(stage=s) for s in STAGES]
    return required(pd.concat(stages, ignore_index=True), name, probe)


def required(frame: pd.DataFrame, name: str, probe: str = "GradientThroughTime") -> pd.DataFrame:
    """`frame`, if it is not empty. Raises `RequestError` that names the reading and the probe to add, if it is."""
    if frame.empty:
        raise RequestError(f"no run has a reading {name}; add the probe {probe} to the runs")
    return frame


def require_columns(runs: pd.DataFrame, *columns: str, advice: str = "") -> None:
    """Raises `RequestError` for a column that `runs` lacks, with the nearest name or `advice`."""
    for column in columns:
        if column not in runs.columns:
            hint = advice or nearest(column, map(str, runs.columns))
            raise RequestError(f"the runs have no column '{column}'{hint}")


def medians(results: RunsAndReadings, name: str, keys: Keys) -> pd.DataFrame:
    """The median over sequences of a reading with quantiles, joined with the runs' cell, length and seed.

    Where it is absent because the gradient of most sequences is exactly zero, as `<name>_zeros` says, it is −inf: below
    every number, and not unknown.
    """
    frame = readings_of(results, name, keys, ["cell", "length", "seed"], quantile=0.5)
    if not frame["value"].isna().any():
        return frame
    zeros = readings_of(results, f"{name.removesuffix('_normalised')}_zeros", keys, [])
    index = ["key", *(column for column in ("step", "time", "lag") if column in frame and column in zeros)]
    share = frame[index].merge(zeros[[*index, "value"]], on=index, how="left")["value"].to_numpy(float)
    below = frame["value"].isna().to_numpy() & (share > 0.5)
    return frame.assign(value=np.where(below, -np.inf, frame["value"].to_numpy(float)))


def profiles(results: RunsAndReadings, states: Sequence[str], stage: str, normalised: bool, keys: Keys) -> pd.DataFrame:
    """`medians` of the gradient by lag at each of `states`, at a stage of `STAGES`, told apart by the column state.

    Raises `RequestError` when no run has such a reading.
    """
    suffix = f"_{stage}{'_normalised' if normalised else ''}"
    frames = [medians(results, f"profile/{state}{suffix}", keys).assign(state=state) for state in states]
    return required(pd.concat(frames, ignore_index=True), f"profile/{states[0]}{suffix}")


def finished_or_diverged(results: RunsAndReadings, keys: Keys) -> pd.DataFrame:
    """The runs whose outcome is due to their cell and settings; runs that failed for a technical reason are left out.

    Raises `RequestError` when there is none.
    """
    runs = results.runs if keys is None else results.runs.loc[list(keys)]
    runs = runs[runs["status"] != "failed"].sort_index()
    if runs.empty:
        raise RequestError("there is no finished or diverged run to draw")
    return runs


def true(values: pd.Series) -> pd.Series:
    """Whether each value is true; absent values (a diverged run has no test) count as false."""
    return values.eq(True).fillna(False).astype(bool)


def updates_to_solve(runs: pd.DataFrame) -> pd.Series:
    """Updates until each run solved its task; infinite for a run that did not, also for a diverged one.

    `solved` decides, the published criterion on fresh test sequences: a run that met it in validation twice, stopped
    there and failed the test has not solved its task. The time is `steps_to_solve`, the first of the two validation
    checks, or the whole budget for a run that passed the test without having met the criterion twice.
    """
    budget = runs["training.steps"].astype(float)
    return runs["steps_to_solve"].astype(float).fillna(budget).where(true(runs["solved"]), np.inf)
