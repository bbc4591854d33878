"""Time to solve as survival curves: how many runs are still unsolved after so many updates."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.chosen_runs import Results, by_cell, judged, ordered, updates_to_solve
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson
from rnnstudy.figures.style import house_style, legend_below, panels, style
from rnnstudy.spec import SpecError


def time_to_solve(results: Results, *, keys: Sequence[str] | None = None) -> Picture:
    """Survival curves of the time to solve, one panel per length: the share of runs still unsolved, by updates made.

    A run that does not solve its task, a diverged one among them, is censored at the full budget: it counts as unsolved
    to the end. See `updates_to_solve` for when a run has solved it. Since nothing is censored before the end, the
    Kaplan–Meier estimate is the plain share, and Wilson's 95 % interval holds at every step.

    Raises `SpecError` when runs of one cell and length had different budgets.
    """
    runs = judged(results, keys)
    data = ordered(pd.concat([_curve(cell, length, group) for (cell, length), group in by_cell(runs)]))
    lengths, cells = sorted(data["length"].unique()), list(dict.fromkeys(data["cell"]))
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
        handles = [Line2D([], [], color=style(c).colour, linestyle=style(c).dash, label=style(c).label) for c in cells]
        handles.append(Patch(facecolor="0.6", alpha=0.4, label="Wilson 95 % interval"))
        handles.append(Line2D([], [], color="0.4", linestyle="", marker="|", markersize=12, mew=2, label="censored"))
        legend_below(figure, handles)
    caption = (
        f"Share of runs that have not solved the task yet, by updates made, at most {budget}, with Wilson 95 % "
        "intervals. Solved: the criterion met in validation and, at the end, on fresh test sequences; a run that met "
        "it in validation alone has not solved the task. Runs that never solve it, diverged ones among them, are "
        "censored at the end of the budget (|)."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _curve(cell: str, length: int, runs: pd.DataFrame) -> pd.DataFrame:
    """The share unsolved after each update at which it changes, from 1 at 0 to the end of the budget."""
    budgets = set(runs["training.steps"].astype(int))
    if len(budgets) > 1:
        told = ", ".join(map(str, sorted(budgets)))
        raise SpecError(f"runs of {cell} at T = {length} had different budgets ({told} updates); draw one at a time")
    times = updates_to_solve(runs).to_numpy()
    rows = []
    for step in sorted({0.0, *times[np.isfinite(times)], float(budgets.pop())}):
        unsolved = int((times > step).sum())
        low, high = wilson(unsolved, len(runs))
        rows.append({"step": step, "unsolved": unsolved / len(runs), "low": low, "high": high})
    return pd.DataFrame(rows).assign(cell=cell, length=length, runs=len(runs), solved=int(np.isfinite(times).sum()))[
        ["cell", "length", "step", "unsolved", "low", "high", "solved", "runs"]
    ]
