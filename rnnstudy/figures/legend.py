"""One legend for a whole figure, and its entries."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.style import BOUND, DASHED, length_line, style

__all__ = ["legend_below"]

_CHARACTER = 0.105
"""Inches: the average width of a letter in a panel's title."""

LEGEND_ROW = 0.27
"""Inches: the height of a row of a legend."""


def legend_below(figure: Figure, entries: Sequence[Any]) -> None:
    """One legend under the whole figure, never wider than the figure; call it when all panels are drawn.

    A legend of many rows makes the figure higher, not the panels lower.
    """
    _fit_titles(figure)
    labels, room = [len(entry.get_label()) + 6 for entry in entries], 11 * figure.get_figwidth()
    columns = len(labels)
    if sum(labels) >= room:
        # Two rows, or as many as it takes.
        fewer = range((columns + 1) // 2, 1, -1)
        columns = next((count for count in fewer if _width(labels, count) < room), 1)
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - 2))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.6)


def _width(labels: Sequence[int], columns: int) -> int:
    """Characters in a row of a legend, whose columns are filled one after another, the first ones with one more."""
    rows, longer = divmod(len(labels), columns)
    ends = np.cumsum([rows + (column < longer) for column in range(columns)])
    return sum(max(labels[begin:end]) for begin, end in zip([0, *ends], ends, strict=False))


def _fit_titles(figure: Figure) -> None:
    """Break a title that is wider than its panel at its last comma; repeat a shared y label in each row."""
    for axis in figure.axes:
        grid, title = axis.get_subplotspec(), axis.get_title()
        if grid is None:
            continue
        room = figure.get_figwidth() / grid.get_gridspec().ncols - 0.3
        if _CHARACTER * len(title) > room and "\n" not in title:
            axis.title.set_text(",\n".join(title.rsplit(", ", 1)))
        first = figure.axes[0]
        shared = axis.get_shared_y_axes().joined(axis, first)
        if grid.is_first_col() and shared and not axis.get_ylabel():
            axis.set_ylabel(first.get_ylabel())


def line_entry(label: str, **line: Any) -> Line2D:
    """A legend entry that shows a line or a marker."""
    return Line2D([], [], label=label, **line)


def patch_entry(label: str, colour: str, **options: Any) -> Patch:
    """A legend entry that shows an area."""
    return Patch(facecolor=colour, label=label, **options)


def band_entry(label: str) -> Patch:
    """The legend entry of the bands around lines, in grey: it holds for every cell."""
    return patch_entry(label, "0.6", alpha=0.4)


def bound_entry(label: str, **line: Any) -> Line2D:
    """The legend entry of a line that is not measured."""
    return line_entry(label, **{"color": BOUND, "linestyle": DASHED} | line)


def length_entries(lengths: Sequence[int], **line: Any) -> list[Line2D]:
    """The legend entries of `lengths`, in grey: they hold for every cell. `line` overrides what is drawn."""
    shown = {"markersize": 8, "mec": "white"} | line
    return [line_entry(f"T = {length}", **length_line(lengths, length, "0.5") | shown) for length in lengths]


def cell_entries(cells: Iterable[str]) -> list[Line2D]:
    """The legend entries of cells."""
    return [line_entry(style(cell).label, markersize=8, **style(cell).line) for cell in cells]
