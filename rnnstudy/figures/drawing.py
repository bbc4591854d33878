"""What figures draw: panels, lines with bands, points with intervals, heat maps."""

# pyright: reportArgumentType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from rnnstudy.figures.chosen_runs import cells_of
from rnnstudy.figures.style import ABSENT, BOUND_LINE, style

__all__ = ["panels"]

MOST_IN_A_ROW = 4
"""The largest number of panels side by side in a figure."""


def panels(
    count: int, *, height: float = 4.2, rows: int = 1, share_x: bool = False, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in each of `rows` rows, and its axes row by row.

    One row of more than `MOST_IN_A_ROW` panels is broken into rows of about equal length, so that the figure can be
    read at half size. Sizes are inches; `height` is that of one row.
    """
    across, wanted = count, count * rows
    if rows == 1 and count > MOST_IN_A_ROW:
        rows = -(-count // MOST_IN_A_ROW)
        across = -(-count // rows)
    width = max(6.0, 1.2 + 3.6 * across) if across < 3 else 1.0 + 3.3 * across
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height * rows), layout=engine)
    axes = list(figure.subplots(rows, across, sharex=share_x, sharey=share_y, squeeze=False).flat)
    for axis in axes[wanted:]:
        axis.remove()
    return figure, axes[:wanted]


def chance_line(axis: Axes, chance: float, *, labelled: bool) -> None:
    """A dashed line at the chance level, labelled to the right of the axes, where there are no data."""
    axis.axhline(chance, zorder=1, **BOUND_LINE)
    if labelled:
        beside = axis.get_yaxis_transform()
        axis.text(1.02, chance, f"chance\n({chance:.3g})", transform=beside, color="0.25", fontsize=10, va="center")


def median_line(
    axis: Axes, data: pd.DataFrame, across: str, *, median: str = "median", alpha: float = 0.22, **line: Any
) -> None:
    """The column `median` of `data` against the column `across`, with the band between the columns low and high."""
    axis.fill_between(data[across], data["low"], data["high"], color=line["color"], alpha=alpha, linewidth=0)
    axis.plot(data[across], data[median], **line)


def cell_lines(axis: Axes, data: pd.DataFrame, across: str) -> None:
    """The `median_line` of each cell of `data`, with some markers."""
    for cell in cells_of(data):
        line = data[data["cell"] == cell]
        marks = {"markevery": max(1, len(line) // 6), "mec": "white", "markersize": 8}
        median_line(axis, line, across, alpha=0.25, **style(cell).line, **marks)


def points_with_intervals(
    axis: Axes, across: Any, data: pd.DataFrame, point: str, low: str, high: str, **line: Any
) -> None:
    """The column `point` of `data`, with bars to the columns `low` and `high`."""
    # A share of 0 or 1 is an end of its own interval, up to rounding.
    bars = np.clip([data[point] - data[low], data[high] - data[point]], 0, None)
    axis.errorbar(across, data[point], bars, **line)


def offset(number: int, count: int, width: float) -> float:
    """How far number `number` of `count` marks stands from their common position, side by side, `width` apart."""
    return (number - (count - 1) / 2) * width


def heat_map(
    axis: Axes, table: pd.DataFrame, colours: str, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of `table`, its index upwards and its columns across, `ABSENT` where not finite; returns their borders."""
    columns, rows = edges(table.columns.to_numpy(float)), edges(table.index.to_numpy(float))
    size = columns[-1] - columns[0], rows[-1] - rows[0]
    axis.add_patch(Rectangle((columns[0], rows[0]), *size, facecolor=ABSENT, zorder=0.5))
    tiles = np.ma.masked_invalid(table.to_numpy(float))
    # As an image inside the SVG: tens of thousands of rectangles would make it slow to open.
    axis.pcolormesh(columns, rows, tiles, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True, zorder=1)
    axis.grid(False)
    return columns, rows


def edges(positions: np.ndarray) -> np.ndarray:
    """Borders of the tiles of a heat map: half-way between neighbouring positions."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    between = (positions[1:] + positions[:-1]) / 2
    first, last = 2 * positions[0] - between[0], 2 * positions[-1] - between[-1]
    return np.concatenate([[first], between, [last]])
