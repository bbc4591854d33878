"""Time to solve as survival curves: the share of runs that are still unsolved after each number of updates."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false

import numpy as np
import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import band_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson
from rnnstudy.figures.style import house_style, style
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
            for cell in cells:
                chosen = data[(data["cell"] == cell) & (data["length"] == length)]
                drawn = style(cell)
                step, share, low, high = (chosen[name].to_numpy(float) for name in ("step", "unsolved", "low", "high"))
                axis.fill_between(step, low, high, step="post", color=drawn.colour, alpha=0.18, linewidth=0)
                axis.step(step, share, where="post", color=drawn.colour, linestyle=drawn.dash)
                if share[-1] > 0:
                    axis.plot(step[-1], share[-1], marker="|", markersize=12, mew=2, color=drawn.colour)
            axis.set(title=f"T = {length}", xlabel="training step (updates made)", ylim=(-0.04, 1.05))
            axis.set_xlim(0, 1.03 * budget)
        axes[0].set_ylabel("share of runs not yet solved")
        entries = [line_entry(style(c).label, color=style(c).colour, linestyle=style(c).dash) for c in cells]
        censored = line_entry("censored", color="0.4", linestyle="", marker="|", markersize=12, mew=2)
        legend_below(figure, [*entries, band_entry("Wilson 95 % interval"), censored])
    caption = (
        f"Share of runs that have not solved the task yet, by updates made, at most {budget}, with Wilson 95 % "
        "intervals. Solved: the criterion was met in validation and, at the end, on fresh test sequences; a run that "
        "met it in validation alone has not solved the task. Runs that never solve it, also diverged ones, are "
        "censored at the end of the budget (|)."
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
