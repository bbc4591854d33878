"""How many runs solved the task, and how well, against any setting of theirs."""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from rnnstudy.figures.house import cell_handle, cell_position, chance_line, legend_below, look, panels, style
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.selection import Results, judged, true
from rnnstudy.figures.statistics import wilson_row
from rnnstudy.spec import SpecError, nearest


def success_by_setting(
    results: Results,
    setting: str,
    *,
    label: str,
    chance: float,
    error: str = "test error",
    words: Mapping[Hashable, str] | None = None,
    each: str | None = None,
    marked: Mapping[Hashable, str] | None = None,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Share of runs that solved the task, with Wilson 95 % intervals, above their test error, against a setting.

    Args:
        setting: the column of `results.runs` that goes across, at even distances.
        label: what it is, with its unit.
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        words: what a value is called; all values in their order by default, else these in this order.
        each: a column with a panel for each of its values, for example `length`.
        marked: values of the setting after which a grey dashed line is drawn, and its words.
        keys: the runs to draw; all by default.

    Diverged runs count as unsolved; failed ones (a fault of the machinery) are left out. Raises `SpecError` for a
    column that the runs have not.
    """
    runs = judged(results, keys)
    for column in filter(None, (setting, each)):
        if column not in runs.columns:
            raise SpecError(f"the runs have no column '{column}'{nearest(column, map(str, runs.columns))}")
    values = list(words) if words else sorted(runs[setting].unique())
    named = words or {value: f"{value:g}" if isinstance(value, float) else str(value) for value in values}
    shown = sorted(runs[each].unique()) if each else [None]
    cells = sorted(runs["cell"].unique(), key=cell_position)
    rows = []
    width = min(0.24, 0.7 / len(cells))
    with look():
        figure, axes = panels(len(shown), rows=2, height=3.1, share_x=True, share_y=False)
        if len(shown) == 1:
            figure.set_figwidth(8.4)
        above, below = axes[: len(shown)], axes[len(shown) :]
        highest = float(np.nanmax([chance, *runs["error"].astype(float)]))
        for number, panel in enumerate(shown):
            for place, cell in enumerate(cells):
                of_cell = runs[(runs["cell"] == cell) & ((runs[each] == panel) if each else True)]
                groups = [(value, of_cell[of_cell[setting] == value]) for value in values]
                groups = [(value, group) for value, group in groups if len(group)]
                if not groups:
                    continue
                counted = pd.DataFrame([_counted(group) for _, group in groups])
                across = np.array([values.index(value) for value, _ in groups]) + (place - (len(cells) - 1) / 2) * width
                drawn = style(cell)
                look_of_it = {"color": drawn.colour, "marker": drawn.marker, "markersize": 8, "mec": "white"}
                share = counted["share"].to_numpy(float)
                bars = [share - counted["wilson_low"], counted["wilson_high"] - share]
                above[number].errorbar(
                    across,
                    share,
                    np.clip(bars, 0, None),
                    linestyle=drawn.dash,
                    linewidth=1.2,
                    elinewidth=2,
                    capsize=3,
                    **look_of_it,
                )
                for x, (_, group) in zip(across, groups, strict=True):
                    dots = group["error"].astype(float)
                    below[number].plot(np.full(len(dots), x), dots, ".", color=drawn.colour, alpha=0.45, mew=0)
                below[number].plot(across, counted["median_error"], linestyle=drawn.dash, linewidth=1.2, **look_of_it)
                of_panel = {each: panel} if each else {}
                rows += [
                    {**of_panel, "cell": cell, setting: value, **count}
                    for (value, _), count in zip(groups, counted.to_dict("records"), strict=True)
                ]
            title = f"{'T' if each == 'length' else each} = {panel}" if each else ""
            above[number].set(ylim=(-0.05, 1.05), title=title)
            below[number].set(ylim=(-0.05 * highest, 1.1 * highest), xlabel=label)
            below[number].set_xticks(range(len(values)), [named[value] for value in values])
            below[number].set_xlim(-0.6, len(values) - 0.4)
            chance_line(below[number], chance, labelled=number == len(shown) - 1)
            for value, told in (marked or {}).items():
                for axis in (above[number], below[number]):
                    axis.axvline(values.index(value) + 0.5, color="0.35", linestyle=(0, (1, 1.5)), linewidth=1.3)
                above[number].text(
                    values.index(value) + 0.46, 0.97, told, ha="right", va="top", color="0.25", fontsize=10
                )
        above[0].set_ylabel("share of runs solved")
        below[0].set_ylabel(error)
        for axis in (*above[1:], *below[1:]):
            axis.tick_params(labelleft=False)
        handles = [cell_handle(cell) for cell in cells]
        handles.append(Line2D([], [], marker=".", linestyle="", color="0.45", markersize=8, label="one run (below)"))
        legend_below(figure, handles)
    fewest, most = min(row["runs"] for row in rows), max(row["runs"] for row in rows)
    counts = str(most) if fewest == most else f"{fewest} to {most}"
    caption = (
        f"Above: share of {counts} runs that solved the task on fresh test sequences, with Wilson 95 % intervals. "
        f"Below: test error, one dot for each run, the large mark is their median; dashed: what the best predictor "
        f"that sees no input attains ({chance:.3g})."
    )
    return Picture(figure, pd.DataFrame(rows), tuple(sorted(runs.index)), caption)


def _counted(group: pd.DataFrame) -> dict[str, float]:
    return {**wilson_row(true(group["solved"]), "solved"), "median_error": float(group["error"].astype(float).median())}
