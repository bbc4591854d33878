"""Time to solve as survival curves: the share of runs that are still unsolved after each number of updates."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false

import numpy as np
import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings
from rnnstudy.figures.drawing import panels, points_with_intervals
from rnnstudy.figures.legend import bound_entry, cell_entries, legend_below
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson
from rnnstudy.figures.style import BOUND_LINE, house_style, style
from rnnstudy.spec import RequestError


def time_to_solve(results: RunsAndReadings, *, keys: Keys = None) -> Picture:
    """Survival curves of the time to solve, one panel per length: the share of runs still unsolved, by updates made.

    A run that does not solve its task, also a diverged one, is censored at the full budget: it counts as unsolved to
    the end. See `updates_to_solve` for when a run has solved it. Since nothing is censored before the end, the
    Kaplan–Meier estimate is the plain share, and Wilson's 95 % interval holds at every step.

    Raises `RequestError` when runs of one cell and length had different budgets.
    """
    runs = chosen_runs.finished_or_diverged(results, keys)
    curves = [_curve(cell, length, group) for (cell, length), group in runs.groupby(["cell", "length"])]
    data = chosen_runs.ordered(pd.concat(curves))
    lengths, cells = sorted(data["length"].unique()), chosen_runs.cells_of(data)
    budget = int(data["step"].max())
    with house_style():
        figure, axes = panels(len(lengths), height=3.8)
        for axis, length in zip(axes, lengths, strict=True):
            for number, cell in enumerate(cells):
                chosen = data[(data["cell"] == cell) & (data["length"] == length)]
                drawn = style(cell)
                axis.step(chosen["step"], chosen["unsolved"], where="post", color=drawn.colour, linestyle=drawn.dash)
                # Beyond the budget, side by side: bands around the curves would hide each other.
                beside = budget * (1.06 + 0.06 * number)
                bar = {"elinewidth": 2, "capsize": 4, "markersize": 8, "mec": "white", **drawn.line, "linestyle": ""}
                points_with_intervals(axis, beside, chosen.tail(1), "unsolved", "low", "high", **bar)
            axis.axvline(budget, **BOUND_LINE)
            axis.set(title=f"T = {length}", xlabel="training step (updates made)", ylim=(-0.04, 1.05))
            axis.set_xlim(0, budget * (1.06 + 0.06 * len(cells)))
        axes[0].set_ylabel("share of runs not yet solved")
        legend_below(figure, [*cell_entries(cells), bound_entry("end of the budget; right of it, Wilson 95 %")])
    caption = (
        f"Share of runs that have not solved the task yet, by updates made, at most {budget}; right of the dashed line "
        "the shares at the end, with Wilson 95 % intervals (those of every step are in the table). Solved: the "
        "criterion was met in validation and, at the end, on fresh test sequences; a run that met it in validation "
        "alone has not solved the task. Runs that never solve it, also diverged ones, are censored at the end of the "
        "budget."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _curve(cell: str, length: int, runs: pd.DataFrame) -> pd.DataFrame:
    """The share unsolved after each update at which it changes, from 1 at 0 to the end of the budget."""
    budgets = set(runs["training.steps"].astype(int))
    if len(budgets) > 1:
        words = ", ".join(map(str, sorted(budgets)))
        raise RequestError(
            f"runs of {cell} at T = {length} had different budgets ({words} updates); draw one at a time"
        )
    times = chosen_runs.updates_to_solve(runs).to_numpy()
    solved, rows = int(np.isfinite(times).sum()), []
    for step in sorted({0.0, *times[np.isfinite(times)], float(budgets.pop())}):
        unsolved = int((times > step).sum())
        low, high = wilson(unsolved, len(runs))
        share = {"step": step, "unsolved": unsolved / len(runs), "low": low, "high": high}
        rows.append({"cell": cell, "length": length, **share, "solved": solved, "runs": len(runs)})
    return pd.DataFrame(rows)
