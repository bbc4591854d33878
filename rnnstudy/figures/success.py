"""How many runs solved the task, and how large their test error is, against the length or another setting."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, cells_of, true
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
    label: str = "length T (steps, logarithmic)",
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
        across: the column of `results.runs` on the horizontal axis. Numbers stand at their value, lengths at their
            logarithm, joined by lines; what is not a number, or has `words`, stands at even distances.
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
    runs = chosen_runs.finished_or_diverged(results, keys)
    chosen_runs.require_columns(runs, across, *([each] if each else []))
    runs = runs.assign(error=runs["error"].astype(float).fillna(chance if error_interval else np.nan))
    values = list(words) if words else sorted(runs[across].unique())
    joined = words is None and all(isinstance(value, Real) for value in values)
    positions = _positions(values, across) if joined else np.arange(len(values), dtype=float)
    words = words or {value: f"{value:g}" if isinstance(value, float) else str(value) for value in values}
    cells, shown = cells_of(runs), sorted(runs[each].unique()) if each else [None]
    runs_shown = runs[runs[across].isin(values)]
    data = _table(runs_shown, across, values, each, error_interval)
    beside = across == "length" and each is None
    highest = float(np.nanmax([chance, *runs["error"]]))
    with house_style():
        figure, upper, lower = _panels(len(shown), beside)
        closest = float(np.diff(positions).min(initial=np.inf))
        closest = closest if np.isfinite(closest) else 1.0
        width = closest * min(0.24, 0.75 / len(cells))
        places = dict(zip(values, positions, strict=True))
        points, dots = (_placed(table, across, places, cells, width) for table in (data, runs_shown))
        # Beside the median's mark, which would hide them.
        dots["place"] += 0.375 * width
        for share, errors, panel in zip(upper, lower, shown, strict=True):
            own, own_runs = (table if each is None else table[table[each] == panel] for table in (points, dots))
            _draw(share, errors, own, None if error_interval else own_runs, joined)
            if beside:
                _counts(share, data, places, cells)
            chance_line(errors, chance, labelled=panel == shown[-1])
            share.set_ylim(-0.09 * len(cells) - 0.08 if beside else -0.05, 1.06)
            share.set_title(f"{'T' if each == 'length' else each} = {panel}" if each else "")
            errors.set_ylim(-0.06 * highest, 1.22 * highest)
            for axis in (share, errors):
                axis.set_xticks(positions, [words[value] for value in values])
                axis.set_xlim(positions[0] - 0.5 * closest, positions[-1] + 0.5 * closest)
                if axis is errors or beside:
                    axis.set_xlabel(label)
                if panel != shown[0]:
                    axis.tick_params(labelleft=False)
        upper[0].set_ylabel("share of runs that solved the task" if beside else "share of runs solved")
        lower[0].set_ylabel(error)
        dot = line_entry(f"one run ({'right' if beside else 'below'})", marker="o", ls="", color="0.45", markersize=4)
        legend_below(figure, [*cell_entries(cells), *([] if error_interval else [dot]), bound_entry("chance")])
    caption = _caption(data, chance, beside, error_interval)
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _panels(count: int, beside: bool) -> tuple[Figure, Sequence[Axes], Sequence[Axes]]:
    """A figure, its `count` panels for the shares, and as many for the errors: beside them, or below."""
    if beside:
        figure, axes = panels(2, share_y=False)
    else:
        figure, axes = panels(count, rows=2, height=3.1, share_x=True, share_y=False)
        if count == 1:
            figure.set_figwidth(8.4)
    return figure, axes[:count], axes[count:]


def _table(
    runs: pd.DataFrame, across: str, values: Sequence[Hashable], each: str | None, error_interval: bool
) -> pd.DataFrame:
    """A row for each panel, cell and value of the setting that some run has, in the order of drawing."""
    rows = []
    labels = [each, "cell", across] if each else ["cell", across]
    for group_labels, group in runs.groupby(labels):
        row = {**dict(zip(labels, group_labels, strict=True)), **wilson_row(true(group["solved"]), "solved")}
        row["median_error"], *interval = median_of(group["error"].to_numpy())
        rows.append(row | (dict(zip(("error_low", "error_high"), interval, strict=True)) if error_interval else {}))
    return chosen_runs.ordered(pd.DataFrame(rows), labels, **{across: values.index})


def _positions(values: Sequence[Hashable], across: str) -> np.ndarray:
    """Where the numbers of a setting stand: at their value, lengths at their logarithm."""
    numbers = np.array(values, dtype=float)
    return np.log10(numbers) if across == "length" else numbers


def _placed(
    table: pd.DataFrame, across: str, places: Mapping[Hashable, float], cells: Sequence[str], width: float
) -> pd.DataFrame:
    """`table` with a column place, where its rows stand: at that of their value, the cells side by side."""
    aside = offset(table["cell"].map(cells.index), len(cells), width)
    return table.assign(place=table[across].map(places) + aside)


def _draw(share: Axes, errors: Axes, data: pd.DataFrame, runs: pd.DataFrame | None, joined: bool) -> None:
    """One column of panels: the shares with their intervals; the median errors with each run as a dot beside them, or
    with their intervals when `runs` is None. `joined` by lines, where the values are numbers."""
    bars = {"elinewidth": 2, "capsize": 4}
    for cell in cells_of(data):
        drawn = data[data["cell"] == cell]
        line = {**style(cell).line, "linewidth": 1.3, "markersize": 9, "mec": "white", "zorder": 3}
        line |= {} if joined else {"linestyle": ""}
        if runs is None:
            line, place = {**line, "linestyle": ""}, drawn["place"]
            points_with_intervals(errors, place, drawn, "median_error", "error_low", "error_high", **line, **bars)
        else:
            own = runs[runs["cell"] == cell]
            dot = {"marker": "o", "markersize": 4, "alpha": 0.45, "mew": 0, "zorder": 2}
            errors.plot(own["place"], own["error"], linestyle="", color=style(cell).colour, **dot)
            errors.plot(drawn["place"], drawn["median_error"], **line)
        points_with_intervals(share, drawn["place"], drawn, "share", "wilson_low", "wilson_high", **line, **bars)


def _counts(axis: Axes, data: pd.DataFrame, places: Mapping[Hashable, float], cells: Sequence[str]) -> None:
    """Solved/runs below the points: a row for each cell, under a line at 0."""
    axis.axhline(0, zorder=1, **BOUND_LINE)
    axis.set_yticks(np.linspace(0, 1, 6))
    for row in data.itertuples():
        position, height = places[row.length], -0.1 - 0.09 * cells.index(row.cell)
        words, colour = f"{row.solved}/{row.runs}", style(row.cell).colour
        axis.text(position, height, words, ha="center", va="center", color=colour, fontsize=10)


def _caption(data: pd.DataFrame, chance: float, beside: bool, error_interval: bool) -> str:
    first, second = ("Left", "Right") if beside else ("Above", "Below")
    spread = (
        f"the median over runs, with the {band_words(data['runs'])}; a diverged run counts with the error of chance"
        if error_interval
        else "one dot for each run that did not diverge, the large mark is their median"
    )
    return (
        f"{first}: share of {counted(data['runs'])} that solved the task on fresh test sequences, with Wilson 95 % "
        f"intervals; a diverged run counts as unsolved{'; k/n: solved of all' if beside else ''}. {second}: test "
        f"error, {spread}; dashed: the error of the best predictor that sees no input ({chance:.3g})."
    )
