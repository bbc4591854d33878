"""Time to solve as survival curves: how many runs are still unsolved after so many updates."""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import CensoredData, ecdf

from rnnstudy.figures.house import legend_below, look, panels, style
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.selection import Results, by_cell, judged, ordered


def time_to_solve(results: Results, *, keys: Sequence[str] | None = None) -> Picture:
    """Kaplan–Meier curves of the time to solve, one panel per length, with 95 % intervals (log-log, Greenwood).

    The time is `steps_to_solve`, updates before the first of two validation checks in a row that met the criterion.
    Runs that never did, diverged ones among them, are censored at the full budget: they count as unsolved to the end.
    The interval does not exist where all runs have solved or none has.
    """
    runs = judged(results, keys)
    data = ordered(pd.concat([_curve(cell, length, group) for (cell, length), group in by_cell(runs)]))
    lengths, cells = sorted(data["length"].unique()), list(dict.fromkeys(data["cell"]))
    budget = int(runs["training.steps"].max())
    with look():
        figure, axes = panels(len(lengths), height=3.8)
        for axis, length in zip(axes, lengths, strict=True):
            for number, cell in enumerate(cells):
                chosen = data[(data["cell"] == cell) & (data["length"] == length)]
                drawn = style(cell)
                step, share, low, high = (chosen[name].to_numpy(float) for name in ("step", "unsolved", "low", "high"))
                # A little apart, so that curves on top of each other can be told apart.
                aside = 0.008 * (number - (len(cells) - 1) / 2)
                axis.fill_between(step, low, high, step="post", color=drawn.colour, alpha=0.18, linewidth=0)
                axis.step(step, share + aside, where="post", color=drawn.colour, linestyle=drawn.dash)
                if share[-1] > 0:
                    axis.plot(step[-1], share[-1] + aside, marker="|", markersize=12, mew=2, color=drawn.colour)
            axis.set(title=f"T = {length}", xlabel="training step (updates made)", ylim=(-0.04, 1.05))
            axis.set_xlim(0, 1.03 * budget)
        axes[0].set_ylabel("share of runs not yet solved")
        handles = [Line2D([], [], color=style(c).colour, linestyle=style(c).dash, label=style(c).label) for c in cells]
        handles.append(Patch(facecolor="0.6", alpha=0.4, label="95 % interval (Kaplan–Meier)"))
        handles.append(Line2D([], [], color="0.4", linestyle="", marker="|", markersize=12, mew=2, label="censored"))
        legend_below(figure, handles)
    caption = (
        f"Share of runs that have not solved the task yet, by updates made, at most {budget}; Kaplan–Meier estimate "
        "with 95 % intervals (none where all or no runs are solved). Runs that never solve it, diverged ones among "
        "them, are censored at the end of the budget (|)."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _curve(cell: str, length: int, runs: pd.DataFrame) -> pd.DataFrame:
    """The share unsolved after each update at which it changes, from 1 at 0 to the end of the budget."""
    budget = float(runs["training.steps"].max())
    times = runs["steps_to_solve"].astype(float)
    solved = times.notna().to_numpy()
    sample = CensoredData(uncensored=times[solved].to_numpy(), right=np.full(int((~solved).sum()), budget))
    survival = ecdf(sample).sf
    with warnings.catch_warnings():
        # Where nothing or everything has happened there is no interval, and scipy says so.
        warnings.simplefilter("ignore")
        interval = survival.confidence_interval(0.95, method="log-log")
    frame = pd.DataFrame(
        {
            "step": survival.quantiles,
            "unsolved": survival.probabilities,
            "low": interval.low.probabilities,
            "high": interval.high.probabilities,
        }
    )
    start = pd.DataFrame({"step": [0.0], "unsolved": [1.0], "low": [1.0], "high": [1.0]})
    frame = pd.concat([start, frame], ignore_index=True)
    if frame["step"].iloc[-1] < budget:
        frame = pd.concat([frame, frame.tail(1).assign(step=budget)], ignore_index=True)
    flat = frame["unsolved"].isin([0.0, 1.0]) & frame["low"].isna()
    frame.loc[flat, "low"] = frame.loc[flat, "high"] = frame.loc[flat, "unsolved"]
    return frame.assign(cell=cell, length=length, runs=len(runs), solved=int(solved.sum()))[
        ["cell", "length", "step", "unsolved", "low", "high", "solved", "runs"]
    ]
