"""How many runs solved the task, and how well, against any setting of theirs."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

import itertools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import Results, judged, true
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted, wilson_row
from rnnstudy.figures.style import cell_handle, cell_position, chance_line, house_style, legend_below, panels, style
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
    data = _counted_by(runs, setting, values, each, cells)
    with house_style():
        figure, axes = panels(len(shown), rows=2, height=3.1, share_x=True, share_y=False)
        if len(shown) == 1:
            figure.set_figwidth(8.4)
        above, below = axes[: len(shown)], axes[len(shown) :]
        highest = float(np.nanmax([chance, *runs["error"].astype(float)]))
        for number, panel in enumerate(shown):
            own = (runs, data) if each is None else (runs[runs[each] == panel], data[data[each] == panel])
            _draw(above[number], below[number], *own, setting, values, cells)
            title = f"{'T' if each == 'length' else each} = {panel}" if each else ""
            above[number].set(ylim=(-0.05, 1.05), title=title)
            below[number].set(ylim=(-0.05 * highest, 1.1 * highest), xlabel=label)
            below[number].set_xticks(range(len(values)), [named[value] for value in values])
            below[number].set_xlim(-0.6, len(values) - 0.4)
            chance_line(below[number], chance, labelled=number == len(shown) - 1)
            for value, told in (marked or {}).items():
                place = values.index(value)
                for axis in (above[number], below[number]):
                    axis.axvline(place + 0.5, color="0.35", linestyle=(0, (1, 1.5)), linewidth=1.3)
                above[number].text(place + 0.46, 0.97, told, ha="right", va="top", color="0.25", fontsize=10)
        above[0].set_ylabel("share of runs solved")
        below[0].set_ylabel(error)
        for axis in (*above[1:], *below[1:]):
            axis.tick_params(labelleft=False)
        handles = [cell_handle(cell) for cell in cells]
        handles.append(Line2D([], [], marker=".", linestyle="", color="0.45", markersize=8, label="one run (below)"))
        legend_below(figure, handles)
    caption = (
        f"Above: share of {counted(int(data['runs'].min()), int(data['runs'].max()))} that solved the task on fresh "
        "test sequences, with Wilson 95 % intervals; a diverged run counts as unsolved. Below: test error, one dot for "
        "each run that did not diverge, the large mark is their median; dashed: what the best predictor that sees no "
        f"input attains ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _counted_by(
    runs: pd.DataFrame, setting: str, values: Sequence[Hashable], each: str | None, cells: Sequence[str]
) -> pd.DataFrame:
    """A row for each panel, cell and value of the setting that some run has."""
    rows = []
    for panel in sorted(runs[each].unique()) if each else [None]:
        of_panel = runs if each is None else runs[runs[each] == panel]
        for cell, value in itertools.product(cells, values):
            group = of_panel[(of_panel["cell"] == cell) & (of_panel[setting] == value)]
            if len(group):
                rows.append({**({each: panel} if each else {}), "cell": cell, setting: value, **_counted(group)})
    return pd.DataFrame(rows)


def _draw(
    above: Axes,
    below: Axes,
    runs: pd.DataFrame,
    data: pd.DataFrame,
    setting: str,
    values: Sequence[Hashable],
    cells: Sequence[str],
) -> None:
    """One panel: shares with their intervals above, errors below, the cells side by side."""
    width = min(0.24, 0.7 / len(cells))
    for number, cell in enumerate(cells):
        counts, drawn = data[data["cell"] == cell], style(cell)
        if counts.empty:
            continue
        aside = (number - (len(cells) - 1) / 2) * width
        across = np.array([values.index(value) for value in counts[setting]]) + aside
        line = {"color": drawn.colour, "marker": drawn.marker, "markersize": 8, "mec": "white"}
        share, low, high = (counts[name].to_numpy(float) for name in ("share", "wilson_low", "wilson_high"))
        bars = np.clip([share - low, high - share], 0, None)
        above.errorbar(across, share, bars, linestyle=drawn.dash, linewidth=1.2, elinewidth=2, capsize=3, **line)
        own = runs[(runs["cell"] == cell) & runs[setting].isin(list(values))]
        dots = np.array([values.index(value) for value in own[setting]]) + aside
        below.plot(dots, own["error"].astype(float), ".", color=drawn.colour, alpha=0.45, mew=0)
        below.plot(across, counts["median_error"], linestyle=drawn.dash, linewidth=1.2, **line)


def _counted(group: pd.DataFrame) -> dict[str, float]:
    return {**wilson_row(true(group["solved"]), "solved"), "median_error": float(group["error"].astype(float).median())}
