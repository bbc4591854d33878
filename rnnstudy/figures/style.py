"""The visual style: colours, a style for each cell, shades for lengths, and the settings of matplotlib."""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.colors import to_rgb

__all__ = ["STYLES", "Style", "cell_position", "house_style", "style"]

ABSENT = "0.78"
"""Neutral grey for absent values; no colour of the maps is close to it."""

BOUND = "0.35"
"""Dark grey for what is not measured: bounds, chance levels, thresholds."""

DASHED = (0, (4, 2))
"""The dash pattern of what is not measured."""

BOUND_LINE: dict[str, Any] = {"color": BOUND, "linestyle": DASHED, "linewidth": 1.3}
"""Arguments of `axis.plot` and its relatives for a line that is not measured."""

HEAT = "viridis"
"""Colour map of a quantity without a centre: perceptually uniform, also in grey and for colour-blind readers."""

AROUND_ZERO = "RdBu_r"
"""Colour map of a quantity with a centre: red above it (exploding), blue below (vanishing)."""

DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
"""Dash patterns of lines that one colour must not distinguish alone."""

_FURTHER_COLOURS = ("#56B4E9", "#000000")
_FURTHER_MARKERS = ("P", "X", "<", ">")
_LENGTH_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Style:
    """How a cell is drawn in every figure."""

    label: str
    colour: str
    marker: str
    dash: str

    @property
    def line(self) -> dict[str, Any]:
        """Colour, dash and marker, for `axis.plot`."""
        return {"color": self.colour, "linestyle": self.dash, "marker": self.marker}


STYLES: Mapping[str, Style] = {
    "Elman": Style("RNN (Elman)", "#D55E00", "s", "-"),
    "Jordan": Style("RNN (Jordan)", "#CC79A7", "D", "-."),
    "OutputRecurrent": Style("RNN (output recurrence)", "#E69F00", "v", "-."),
    "GRU": Style("GRU", "#009E73", "^", ":"),
    "LSTM": Style("LSTM", "#0072B2", "o", "--"),
}
"""In the order of drawing. Every other cell gets one of the remaining colours."""


def style(cell: str) -> Style:
    """The style of a cell's class name; equal at every call, also for a cell that is not in `STYLES`."""
    if cell in STYLES:
        return STYLES[cell]
    number = zlib.crc32(cell.encode())
    colour = _FURTHER_COLOURS[number % len(_FURTHER_COLOURS)]
    return Style(cell, colour, _FURTHER_MARKERS[number % len(_FURTHER_MARKERS)], "-.")


def cell_position(cell: str) -> tuple[int, str]:
    """Sort key of cells: the order of `STYLES`, then the alphabet."""
    return (list(STYLES).index(cell) if cell in STYLES else len(STYLES), cell)


def shade(colour: str, rank: int, count: int) -> tuple[float, ...]:
    """A shade of a colour from light (`rank` 0: short, small) to dark (`rank` `count` − 1: long, large)."""
    weight = 0.0 if count == 1 else 2 * rank / (count - 1) - 1
    towards, share = (np.ones(3), -0.45 * weight) if weight < 0 else (np.zeros(3), 0.45 * weight)
    return tuple((1 - share) * np.array(to_rgb(colour)) + share * towards)


def looks_of_sides(cells: Mapping[str, str], sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dash for `axis.plot` of each of `sides`: a shade of the colour of its cell, and a dash.

    `cells`: side to the class name of its cell.
    """
    looks = {}
    for cell in dict.fromkeys(cells[side] for side in sides):
        own = [side for side in sides if cells[side] == cell]
        for rank, side in enumerate(own):
            colour = shade(style(cell).colour, rank, len(own))
            looks[side] = {"color": colour, "linestyle": DASHES[rank % len(DASHES)]}
    return looks


def length_line(lengths: Sequence[int], length: int, colour: str) -> dict[str, Any]:
    """Colour, dash and marker for `axis.plot` of one of `lengths`: shade and dash both identify it."""
    rank = lengths.index(length)
    return {
        "color": shade(colour, rank, len(lengths)),
        "linestyle": DASHES[rank % len(DASHES)],
        "marker": _LENGTH_MARKERS[rank % len(_LENGTH_MARKERS)],
    }


def house_style() -> AbstractContextManager[None]:
    """The matplotlib settings under which every figure is drawn."""
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


def gradient_label(states: Sequence[str], *, normalised: bool = False) -> str:
    """The name and unit of a gradient through time, for an axis."""
    label = f"log₁₀ ‖∂L/∂{states[0]}ₜ‖" if len(states) == 1 else f"log₁₀ ‖∂L/∂sₜ‖, s = {' or '.join(states)}"
    return label + (",\nrelative to lag 0 (decades)" if normalised else "")
