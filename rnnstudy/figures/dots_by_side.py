"""Several measures of every run of a comparison, side by side: a row for each side, a dot for each run."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted
from rnnstudy.figures.style import BOUND_LINE, STYLES, house_style
from rnnstudy.spec import RequestError

__all__ = ["DotPanel", "dots_by_side"]

COLOURS, MEDIAN = tuple(STYLES[cell].colour for cell in ("LSTM", "Elman", "GRU")), "black"


@dataclass(frozen=True)
class DotPanel:
    """One measure.

    Attributes:
        column: of the table of runs.
        title: what the panel asks.
        label: what the number is, with its unit.
        chance: the value of guessing, if there is one.
    """

    column: str
    title: str
    label: str
    chance: float | None = None


def dots_by_side(
    measured: pd.DataFrame,
    sides: Mapping[str, str],
    panels: Sequence[DotPanel],
    groups: Mapping[str, str] | None = None,
) -> Picture:
    """A panel for each measure: every run as a dot, in the row of its side, and the median of the side as a bar.

    Args:
        measured: a row for each run, indexed by its key; a value that is absent is neither drawn nor counted.
        sides: key of a run to the name of its side, in the order of drawing, from the top.
        panels: the columns of `measured` that are drawn, from the left.
        groups: name of a side to that of its group, at most three; each has a colour, and an entry in the legend.

    The table has a row for each side and panel: median, lowest and highest value, and of how many runs. Raises
    `RequestError` when no run has a side.
    """
    measured = measured[measured.index.isin(list(sides))]
    if measured.empty:
        raise RequestError("there is no run to draw: none has a side")
    side_of = pd.Series(measured.index.map(sides), index=measured.index)
    names = [side for side in dict.fromkeys(sides.values()) if side in set(side_of)]
    groups = groups or dict.fromkeys(names, "a run")
    colours = dict(zip(dict.fromkeys(groups[side] for side in names), COLOURS, strict=False))
    rows = []
    for side in names:
        for panel in panels:
            own = measured.loc[side_of == side, panel.column].astype(float)
            numbers = {"median": own.median(), "lowest": own.min(), "highest": own.max()}
            rows.append({"side": side, "measure": panel.column, **numbers, "runs": own.count()})
    data = pd.DataFrame(rows)
    with house_style():
        figure = Figure(figsize=(3.0 + 3.1 * len(panels), 2.0 + 0.34 * len(names)), layout="constrained")
        axes = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for axis, panel in zip(axes, panels, strict=True):
            if panel.chance is not None:
                axis.axvline(panel.chance, **BOUND_LINE)
            for place, side in enumerate(names):
                own = measured.loc[side_of == side, panel.column].astype(float).dropna().sort_values()
                # Spread over the height of the row, so that equal values are seen.
                heights = place + np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else np.full(len(own), place)
                axis.plot(own, heights, "o", color=colours[groups[side]], markersize=4.5, alpha=0.6, mew=0)
                axis.plot([own.median()] * 2, [place - 0.34, place + 0.34], color=MEDIAN, linewidth=2.4)
            axis.set_title(fill(panel.title, 26))
            axis.set_xlabel(panel.label)
            axis.margins(x=0.06)
            axis.locator_params(axis="x", nbins=5)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        dots = [line_entry(group, color=colour, marker="o", linestyle="") for group, colour in colours.items()]
        entries = [*dots, line_entry("median", color=MEDIAN)]
        with_chance = any(panel.chance is not None for panel in panels)
        legend_below(figure, [*entries, *([bound_entry("guessing")] if with_chance else [])])
    caption = (
        f"Each dot is a run, {counted(data['runs'])} for each side; the bar is their median. Where a value is absent "
        "(a run that diverged, a gradient that is exactly zero) there is no dot."
    )
    return Picture(figure, data, tuple(sorted(measured.index)), caption)
