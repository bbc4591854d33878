"""How many runs solved the task, and how large their test error is, against the length or another setting."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rnnstudy.figures.chosen_runs import (
    Keys,
    RunsAndReadings,
    cells_of,
    finished_or_diverged,
    ordered,
    require_columns,
    true,
)
from rnnstudy.figures.drawing import chance_line, offset, panels, points_with_intervals
from rnnstudy.figures.legend import bound_entry, cell_entries, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_of, wilson_row
from rnnstudy.figures.style import BOUND_LINE, house_style, style


def success(
    results: RunsAndReadings,
    across: str = "length",
    *,
    chance: float,
    label: str = "length T (steps)",
    error: str = "test error",
    words: Mapping[Hashable, str] | None = None,
    each: str | None = None,
    error_interval: bool = False,
    keys: Keys = None,
) -> Picture:
    """Share of runs that solved the task, with Wilson 95 % intervals, and their test error, against a setting.

    Against the length the two stand side by side, with the counts (solved/runs) below the shares; against another
    setting the share stands above the error. Diverged runs count as unsolved; failed runs (for a technical reason) are
    left out.

    Args:
        across: the column of `results.runs` on the horizontal axis, at even distances.
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        label: what `across` is, with its unit.
        error: what the error is (`task.criterion.error`).
        words: names of the values of `across`, in the order of drawing; by default all values, sorted.
        each: a column, for example `length`: a column of panels for each of its values.
        error_interval: draw the interval of the median error over runs, where a diverged run counts with the error of
            chance. By default each run is a dot, and diverged runs have none.
        keys: the runs to draw; all by default.

    Raises `RequestError` for a column that the runs do not have, or when there is no run to draw.
    """
    runs = finished_or_diverged(results, keys)
    require_columns(runs, across, *([each] if each else []))
    runs = runs.assign(error=runs["error"].astype(float).fillna(chance if error_interval else np.nan))
    values = list(words) if words else sorted(runs[across].unique())
    words = words or {value: f"{value:g}" if isinstance(value, float) else str(value) for value in values}
    shown = sorted(runs[each].unique()) if each else [None]
    cells = cells_of(runs)
    data = _table(runs, across, values, each, error_interval)
    beside = across == "length" and each is None
    highest = float(np.nanmax([chance, *runs["error"]]))
    with house_style():
        size: dict[str, Any] = {"height": 4.2} if beside else {"rows": 2, "height": 3.1, "share_x": True}
        figure, axes = panels(2 if beside else len(shown), share_y=False, **size)
        if len(axes) == 2 and not beside:
            figure.set_figwidth(8.4)
        upper, lower = axes[: len(shown)], axes[len(shown) :]
        for share, errors, panel in zip(upper, lower, shown, strict=True):
            own = (runs, data) if each is None else (runs[runs[each] == panel], data[data[each] == panel])
            _draw(share, errors, *own, across, values, cells, dots=not error_interval)
            if beside:
                share.axhline(0, zorder=1, **BOUND_LINE)
                _counts(share, data, values, cells)
                share.set_yticks(np.linspace(0, 1, 6))
            chance_line(errors, chance, labelled=panel == shown[-1])
            share.set_ylim(-0.09 * len(cells) - 0.08 if beside else -0.05, 1.06)
            share.set_title(f"{'T' if each == 'length' else each} = {panel}" if each else "")
            errors.set_ylim(-0.06 * highest, 1.22 * highest)
            for axis in (share, errors):
                axis.set_xticks(range(len(values)), [words[value] for value in values])
                axis.set_xlim(-0.5, len(values) - 0.5)
                if axis is errors or beside:
                    axis.set_xlabel(label)
                if panel != shown[0]:
                    axis.tick_params(labelleft=False)
        upper[0].set_ylabel("share of runs that solved the task" if beside else "share of runs solved")
        lower[0].set_ylabel(error)
        entries = cell_entries(cells)
        first, second = ("left", "right") if beside else ("above", "below")
        if not error_interval:
            entries.append(line_entry(f"one run ({second})", marker="o", linestyle="", color="0.45", markersize=4))
        entries.append(bound_entry("chance"))
        legend_below(figure, entries)
    spread = (
        f"the median over runs, with the {band_words(data['runs'])}; a diverged run counts with the error of chance"
        if error_interval
        else "one dot for each run that did not diverge, the large mark is their median"
    )
    caption = (
        f"{first.capitalize()}: share of {counted(data['runs'])} that solved the task on fresh test sequences, with "
        f"Wilson 95 % intervals; a diverged run counts as unsolved{'; k/n: solved of all' if beside else ''}. "
        f"{second.capitalize()}: test error, {spread}; dashed: the error of the best predictor that sees no input "
        f"({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _table(
    runs: pd.DataFrame, across: str, values: Sequence[Hashable], each: str | None, error_interval: bool
) -> pd.DataFrame:
    """A row for each panel, cell and value of the setting that some run has, in the order of drawing."""
    rows = []
    labels = [each, "cell", across] if each else ["cell", across]
    for group_labels, group in runs[runs[across].isin(values)].groupby(labels):
        row = {**dict(zip(labels, group_labels, strict=True)), **wilson_row(true(group["solved"]), "solved")}
        row["median_error"], *interval = median_of(group["error"].to_numpy())
        rows.append(row | (dict(zip(("error_low", "error_high"), interval, strict=True)) if error_interval else {}))
    return ordered(pd.DataFrame(rows), labels, **{across: values.index})


def _draw(
    share: Axes,
    errors: Axes,
    runs: pd.DataFrame,
    data: pd.DataFrame,
    across: str,
    values: Sequence[Hashable],
    cells: Sequence[str],
    *,
    dots: bool,
) -> None:
    """One column of panels: the shares with their intervals, and the errors, with the cells side by side."""
    width = min(0.24, 0.75 / len(cells))
    for number, cell in enumerate(cells):
        counts, aside = data[data["cell"] == cell], offset(number, len(cells), width)
        position = np.array([values.index(value) for value in counts[across]]) + aside
        line = {**style(cell).line, "linewidth": 1.3, "markersize": 9, "mec": "white", "zorder": 3}
        bars = {"elinewidth": 2, "capsize": 4}
        line |= {} if dots else {"linestyle": ""}
        points_with_intervals(share, position, counts, "share", "wilson_low", "wilson_high", **line, **bars)
        if not dots:
            points_with_intervals(errors, position, counts, "median_error", "error_low", "error_high", **line, **bars)
            continue
        own = runs[(runs["cell"] == cell) & runs[across].isin(values)]
        # Beside the median's mark, which would hide them.
        beside = np.array([values.index(value) for value in own[across]]) + aside + 0.375 * width
        dot = {"marker": "o", "markersize": 4, "alpha": 0.45, "mew": 0, "zorder": 2}
        errors.plot(beside, own["error"], linestyle="", color=style(cell).colour, **dot)
        errors.plot(position, counts["median_error"], **line)


def _counts(axis: Axes, data: pd.DataFrame, values: Sequence[Hashable], cells: Sequence[str]) -> None:
    """Solved/runs below the points: a row for each cell."""
    for row in data.itertuples():
        position, height = values.index(row.length), -0.1 - 0.09 * cells.index(row.cell)
        words, colour = f"{row.solved}/{row.runs}", style(row.cell).colour
        axis.text(position, height, words, ha="center", va="center", color=colour, fontsize=10)
