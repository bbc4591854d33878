"""What diagrams of networks are drawn with: boxes for values, arrows with numbers, and how numbers are written."""

from collections.abc import Mapping
from math import floor, isfinite, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

__all__ = ["number_text"]

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

FILLS: Mapping[str, str] = {"x": "#eeeeee", "h": "#cfe3f3", "o": "#fde2b8", "c": "#d3ecdf", "·": "#ffffff"}
"""The kind of a node to the colour of its box: inputs, hidden states, outputs, cell states, operations."""

HALF_WIDTH, HALF_HEIGHT, PAD, GAP = 0.26, 0.21, 0.06, 0.03
"""Of a box, with rounded corners of `PAD`, and the space between it and an arrow; in the units of the axes."""

Point = tuple[float, float]


def number_text(number: float, digits: int = 2) -> str:
    """A number for a diagram: 0.46, −1.2, 3×10⁻⁵; nothing for NaN."""
    if number != number:
        return ""
    if not isfinite(number):
        return "∞" if number > 0 else "−∞"
    if number == round(number) and abs(number) < 1e4:
        return f"{number + 0.0:.0f}".replace("-", "−")
    if 1e-3 <= abs(number) < 1e4:
        decimals = max(0, digits - 1 - floor(log10(abs(number))))
        return f"{number:.{decimals}f}".replace("-", "−")
    exponent = floor(log10(abs(number)))
    return f"{number / 10**exponent:.1f}×10{str(exponent).translate(SUPERSCRIPTS)}".replace("-", "−")


def diagram(
    across_limits: tuple[float, float],
    up_limits: tuple[float, float],
    *,
    title: str = "",
    across: float = 1.6,
    up: float = 1.15,
) -> tuple[Figure, Axes]:
    """A figure with one axis without frame; a unit of the axis is `across` by `up` inches."""
    width, height = across_limits[1] - across_limits[0], up_limits[1] - up_limits[0]
    figure = Figure(figsize=(across * width, up * height + (0.45 if title else 0.15)), layout="constrained")
    axis = figure.add_subplot()
    axis.set(xlim=across_limits, ylim=up_limits)
    axis.set_axis_off()
    if title:
        axis.set_title(title)
    return figure, axis


def box(axis: Axes, x: float, y: float, label: str, number: str = "", *, kind: str) -> None:
    """A node: its name, and its number below the name where it has one."""
    shape = FancyBboxPatch(
        (x - HALF_WIDTH + PAD, y - HALF_HEIGHT + PAD),
        2 * (HALF_WIDTH - PAD),
        2 * (HALF_HEIGHT - PAD),
        boxstyle=f"round,pad={PAD}",
        facecolor=FILLS[kind],
        edgecolor="0.35",
        linewidth=1.2,
        zorder=3,
    )
    axis.add_patch(shape)
    if number:
        axis.text(x, y + 0.085, label, ha="center", va="center", fontsize=10, color="0.3", zorder=4)
        axis.text(x, y - 0.09, number, ha="center", va="center", fontsize=11, fontweight="bold", zorder=4)
    else:
        axis.text(x, y, label, ha="center", va="center", fontsize=12, zorder=4)


def arrow(axis: Axes, start: Point, end: Point, text: str = "", *, text_colour: str = "0.15", **line: Any) -> None:
    """An arrow from the edge of the box at `start` to the edge of the box at `end`, with its text.

    The text stands above an arrow that runs across, and in the middle of any other.
    """
    (x0, y0), (x1, y1) = start, end
    shares = [
        (half + GAP) / abs(distance) for half, distance in ((HALF_WIDTH, x1 - x0), (HALF_HEIGHT, y1 - y0)) if distance
    ]
    dx, dy = (x1 - x0) * min(shares), (y1 - y0) * min(shares)
    path = Path([(x0 + dx, y0 + dy), (x1 - dx, y1 - dy)])
    curve(axis, path, **line)
    if text and y0 == y1:
        axis.text((x0 + x1) / 2, y0 + 0.06, text, ha="center", va="bottom", fontsize=9.5, color=text_colour, zorder=5)
    elif text:
        plain = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        axis.text(*middle, text, ha="center", va="center", fontsize=9.5, color=text_colour, zorder=5, bbox=plain)


def curve(axis: Axes, path: Path, **line: Any) -> None:
    """An arrow along `path`."""
    settings: dict[str, Any] = {"color": "0.15", "linewidth": 1.4, **line}
    settings = {"arrowstyle": "-|>", "mutation_scale": 11 + 2 * settings["linewidth"], **settings}
    patch = FancyArrowPatch(path=path, zorder=1, **settings)
    axis.add_patch(patch)
