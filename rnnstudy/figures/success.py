"""How many runs solved the task, and how well, against the length."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import Results, by_cell, judged, ordered, true
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson_row
from rnnstudy.figures.style import Style, cell_handle, chance_line, house_style, legend_below, panels, style


def success_by_length(
    results: Results, *, chance: float, error: str = "test error", keys: Sequence[str] | None = None
) -> Picture:
    """Share of runs that solved the task, with Wilson 95 % intervals, and their test error, both against length.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the runs to draw; all by default.

    Diverged runs count as unsolved; failed ones (a fault of the machinery) are left out.
    """
    runs = judged(results, keys)
    data = ordered(pd.DataFrame([_success(cell, length, group) for (cell, length), group in by_cell(runs)]))
    cells, lengths = list(dict.fromkeys(data["cell"])), sorted(data["length"].unique())
    width = 0.24
    with house_style():
        figure, (left, right) = panels(2, height=4.2, share_y=False)
        for number, cell in enumerate(cells):
            chosen = data[data["cell"] == cell]
            shift = (number - (len(cells) - 1) / 2) * width
            across = np.array([lengths.index(length) for length in chosen["length"]]) + shift
            _success_points(left, across, chosen, style(cell))
            dots = runs[runs["cell"] == cell]
            dots_across = np.array([lengths.index(length) for length in dots["length"]]) + shift
            _error_points(right, across, chosen, dots_across, dots["error"].to_numpy(float), style(cell))
        left.axhline(0, color="0.35", linestyle=(0, (4, 2)), linewidth=1.3, zorder=1)
        _counts(left, data, lengths)
        left.set(ylim=(-0.09 * len(cells) - 0.08, 1.06), ylabel="share of runs that solved the task")
        left.set_yticks(np.linspace(0, 1, 6))
        highest = float(np.nanmax([chance, *runs["error"].astype(float)]))
        chance_line(right, chance, labelled=True)
        right.set(ylim=(-0.06 * highest, 1.22 * highest), ylabel=error)
        for axis in (left, right):
            axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axis.set(xlim=(-0.5, len(lengths) - 0.5), xlabel="length T (steps)")
        handles = [cell_handle(cell) for cell in cells]
        handles.append(Line2D([], [], marker="o", linestyle="", color="0.45", markersize=4, label="one run (right)"))
        handles.append(Line2D([], [], color="0.35", linestyle=(0, (4, 2)), label="chance"))
        legend_below(figure, handles)
    caption = (
        "Left: share of runs that solved the task on fresh test sequences, with Wilson 95 % intervals; k/n below: "
        "solved of all, a diverged run counts as unsolved. Right: test error, one dot per run that did not diverge, "
        f"the large mark is their median; dashed: what the best predictor that sees no input attains ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _success(cell: str, length: int, group: pd.DataFrame) -> dict[str, Any]:
    counts = wilson_row(true(group["solved"]), "solved")
    return {"cell": cell, "length": length, **counts, "median_error": float(group["error"].astype(float).median())}


def _success_points(axis: Axes, across: np.ndarray, data: pd.DataFrame, drawn: Style) -> None:
    share, low, high = (data[name].to_numpy(float) for name in ("share", "wilson_low", "wilson_high"))
    # A share of 0 or 1 is an end of its own interval, up to rounding.
    bars = np.clip([share - low, high - share], 0, None)
    axis.errorbar(
        across,
        share,
        bars,
        color=drawn.colour,
        marker=drawn.marker,
        linestyle=drawn.dash,
        linewidth=1.3,
        elinewidth=2,
        capsize=4,
        markersize=9,
        mec="white",
        zorder=3,
    )


def _counts(axis: Axes, data: pd.DataFrame, lengths: Sequence[int]) -> None:
    """k/n in a row for each cell, under the points, where no bars are."""
    for number, (cell, group) in enumerate(data.groupby("cell", sort=False)):
        for row in group.itertuples():
            place, height = lengths.index(row.length), -0.1 - 0.09 * number
            told, colour = f"{row.solved}/{row.runs}", style(str(cell)).colour
            axis.text(place, height, told, ha="center", va="center", color=colour, fontsize=10)


def _error_points(
    axis: Axes, across: np.ndarray, data: pd.DataFrame, dots_across: np.ndarray, dots: np.ndarray, drawn: Style
) -> None:
    # Beside the median's mark, which would hide them.
    beside = dots_across + 0.09
    axis.plot(beside, dots, linestyle="", marker="o", color=drawn.colour, markersize=4, alpha=0.45, mew=0, zorder=2)
    axis.plot(
        across,
        data["median_error"].to_numpy(float),
        color=drawn.colour,
        marker=drawn.marker,
        linestyle=drawn.dash,
        linewidth=1.3,
        markersize=9,
        mec="white",
        zorder=3,
    )
