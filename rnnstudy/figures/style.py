"""How things look: a style for each cell, shades for lengths, sizes, labels and legends."""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

ABSENT = "0.78"
"""Neutral grey for values that are absent: no colour of the map is near it."""

BOUND = "0.35"
"""Dark grey of what is not measured: bounds, chance levels, thresholds."""

HEAT = "viridis"
"""The map of every quantity that has no middle: even to the eye, also in grey and for colour-blind readers."""

AROUND_ZERO = "RdBu_r"
"""The map of a quantity with a middle: red above it (exploding), blue below (vanishing)."""


@dataclass(frozen=True)
class Style:
    """How a cell is drawn, everywhere."""

    label: str
    colour: str
    marker: str
    dash: str


STYLES: Mapping[str, Style] = {
    "Elman": Style("RNN (Elman)", "#D55E00", "s", "-"),
    "Jordan": Style("RNN (Jordan)", "#CC79A7", "D", "-."),
    "OutputRecurrent": Style("RNN (output recurrence)", "#E69F00", "v", "-."),
    "GRU": Style("GRU", "#009E73", "^", ":"),
    "LSTM": Style("LSTM", "#0072B2", "o", "--"),
}
"""In the order of drawing. Further cells get one of the colours that are left."""

_FURTHER_COLOURS = ("#56B4E9", "#000000")
_FURTHER_MARKERS = ("P", "X", "<", ">")
_LENGTH_DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_LENGTH_MARKERS = ("o", "s", "^", "D")


def style(cell: str) -> Style:
    """The style of a cell's class name; the same one at every call, for unknown cells too."""
    if cell in STYLES:
        return STYLES[cell]
    number = zlib.crc32(cell.encode())
    colour = _FURTHER_COLOURS[number % len(_FURTHER_COLOURS)]
    return Style(cell, colour, _FURTHER_MARKERS[number % len(_FURTHER_MARKERS)], "-.")


def cell_position(cell: str) -> tuple[int, str]:
    """What cells are sorted by: the order of `STYLES`, then the alphabet."""
    known = list(STYLES)
    return (known.index(cell) if cell in known else len(known), cell)


def shade(colour: str, place: int, count: int) -> tuple[float, ...]:
    """A colour from lighter (`place` 0: short, small) to darker (`place` `count` − 1: long, large)."""
    weight = 0.0 if count == 1 else 2 * place / (count - 1) - 1
    towards, share = (np.ones(3), -0.45 * weight) if weight < 0 else (np.zeros(3), 0.45 * weight)
    return tuple((1 - share) * np.array(to_rgb(colour)) + share * towards)


def length_line(lengths: Sequence[int], length: int, colour: str) -> dict[str, Any]:
    """Colour, dash and marker of the line of one of `lengths`, for `axis.plot`: shade and dash both tell it."""
    place = lengths.index(length)
    return {
        "color": shade(colour, place, len(lengths)),
        "linestyle": _LENGTH_DASHES[place % len(_LENGTH_DASHES)],
        "marker": _LENGTH_MARKERS[place % len(_LENGTH_MARKERS)],
    }


def length_handle(lengths: Sequence[int], length: int) -> Line2D:
    """The legend's entry of one of `lengths`, in grey: it holds for every cell."""
    return Line2D([], [], markersize=8, mec="white", label=f"T = {length}", **length_line(lengths, length, "0.5"))


def cell_handle(cell: str) -> Line2D:
    """The legend's entry of a cell."""
    drawn = style(cell)
    line: dict[str, Any] = {"linestyle": drawn.dash, "marker": drawn.marker, "markersize": 8}
    return Line2D([], [], color=drawn.colour, label=drawn.label, **line)


def house_style() -> AbstractContextManager[None]:
    """The settings under which every figure is drawn."""
    settings: dict[Any, Any] = {
        **seaborn.axes_style("ticks"),
        "axes.grid": True,
        "axes.labelsize": 12,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "font.family": ["DejaVu Sans"],
        "font.size": 11,
        "grid.color": "0.9",
        "legend.fontsize": 11,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
    }
    return matplotlib.rc_context(settings)


def panels(
    count: int, *, height: float = 4.2, rows: int = 1, share_x: bool = False, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in each of `rows` rows, of the house's width; axes row by row.

    One row of more than `MOST_IN_A_ROW` panels is broken into rows of about equal length, so that the figure can be
    read at half size. Sizes are inches: `height` is that of one row.
    """
    across = count
    if rows == 1 and count > MOST_IN_A_ROW:
        rows = -(-count // MOST_IN_A_ROW)
        across = -(-count // rows)
    width = max(6.0, 1.2 + 3.6 * across) if across < 3 else 1.0 + 3.3 * across
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height * rows), layout=engine)
    axes = list(figure.subplots(rows, across, sharex=share_x, sharey=share_y, squeeze=False).flat)
    if across < count:
        for axis in axes[count:]:
            axis.remove()
        axes = axes[:count]
    return figure, axes


MOST_IN_A_ROW = 4
"""Panels beside one another in a figure."""

_CHARACTER = 0.105
"""Inches: the width of a letter in a panel's title, on average."""


def _fit(figure: Figure) -> None:
    """A title wider than its panel is broken at its last comma; rows with one scale all say what it is."""
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


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend for the whole figure, under it, never wider than it; the last step of a figure of several panels."""
    _fit(figure)
    characters = sum(len(handle.get_label()) + 6 for handle in handles)
    columns = len(handles) if characters < 11 * figure.get_figwidth() else (len(handles) + 1) // 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.6)


def chance_line(axis: Axes, chance: float, *, labelled: bool) -> None:
    """A dashed line at the chance level; its label stands beside the axes, where no data are."""
    axis.axhline(chance, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3, zorder=1)
    if labelled:
        beside = axis.get_yaxis_transform()
        axis.text(1.02, chance, f"chance\n({chance:.3g})", transform=beside, color="0.25", fontsize=10, va="center")


def edges(positions: np.ndarray) -> np.ndarray:
    """Borders of the tiles of a heat map: half-way between neighbouring positions."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    between = (positions[1:] + positions[:-1]) / 2
    first, last = 2 * positions[0] - between[0], 2 * positions[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def gradient_label(states: Sequence[str], *, normalised: bool = False) -> str:
    """The name and unit of a gradient through time."""
    label = f"log₁₀ ‖∂L/∂{states[0]}ₜ‖" if len(states) == 1 else f"log₁₀ ‖∂L/∂sₜ‖, s = {' or '.join(states)}"
    return label + (",\nrelative to lag 0 (decades)" if normalised else "")
