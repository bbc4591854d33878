"""What each side learned of every lag, beside the signal by lag that it had before training."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rnnstudy.figures.drawing import median_line, panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND_LINE, STYLES, house_style, looks_of_sides
from rnnstudy.spec import RequestError

__all__ = ["learnability_window"]

PANELS = {
    "learned": ("Learned, after training", "share of its variance explained"),
    "samples": ("Sequences required, before", "log₁₀ of the sequences N(ℓ)"),
    "envelope": ("Envelope, before", "log₁₀ of the envelope f(ℓ)"),
}
"""Measures from the left, with a panel's title and the label of its axis."""

FURTHER_COLOURS = ("0.15", "#CC79A7", "#E69F00", "#8C564B")
"""Of cells without a colour of their own, in the order of drawing."""

MARGIN, MOST_DECADES = 1.5, 4.5
"""Decades that are drawn beyond the lowest and the highest median of the sequences required, and the most of them."""


def learnability_window(measured: pd.DataFrame, cells: Mapping[str, str]) -> Picture:
    """Three panels by lag: what is learned, the sequences that the gradient's signal needs, and the envelope of gates.

    Args:
        measured: a row for each run, measure and lag: `key`, `side`, `measure` (one of `PANELS`), `lag` and `value`;
            NaN where a value is absent.
        cells: name of a side to the class name of its cell, in the order of drawing.

    A line is the median over the runs of a side, left out at lags where fewer than half of them have a value; the band
    is its interval or range. The table has these numbers. Raises `RequestError` when there is nothing to draw.
    """
    measured = measured[measured["side"].isin(list(cells)) & measured["measure"].isin(list(PANELS))]
    if measured["value"].notna().sum() == 0:
        raise RequestError("there is nothing to draw: no side has a value")
    # No signal was found, so that more sequences are required than any that were.
    measured = measured.assign(
        value=measured["value"].where(measured["measure"] != "samples", measured["value"].fillna(np.inf))
    )
    order = list(cells)
    data = medians_by(measured, ["measure", "side"], "lag", side=order.index, measure=list(PANELS).index)
    looks = looks_of_sides(cells, order)
    further = [cell for cell in dict.fromkeys(cells.values()) if cell not in STYLES]
    for side, cell in cells.items():
        if cell in further:
            looks[side] |= {"color": FURTHER_COLOURS[further.index(cell) % len(FURTHER_COLOURS)], "linestyle": "-."}
    with house_style():
        figure, axes = panels(len(PANELS), height=4.4, share_y=False)
        for axis, (measure, (title, label)) in zip(axes, PANELS.items(), strict=True):
            # What lies above the panel leaves it at its upper edge.
            drawn = data[data["measure"] == measure].replace(np.inf, MOST_DECADES + 2 * MARGIN)
            for side in order:
                line = drawn[drawn["side"] == side]
                median_line(axis, line, "lag", alpha=0.15, marker="o", markersize=4, **looks[side])
            axis.set_xscale("log", base=2)
            ticks = sorted(measured.loc[measured["measure"] == "learned", "lag"].unique())
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlabel("lag ℓ (steps)")
            axis.set_ylabel(label)
            axis.set_title(title)
            if measure == "samples" and len(drawn):
                axis.set_ylim(drawn["median"].min() - MARGIN, min(drawn["median"].max() + MARGIN, MOST_DECADES))
                axis.axhline(0.0, **BOUND_LINE)
        legend_below(figure, [line_entry(side, **looks[side]) for side in order])
    caption = (
        "Left: the share of the variance of one lag's term that the trained network's output explains on test "
        "sequences. Middle: from how many sequences on the mean gradient of this lag is as large as its noise, with "
        "the tail index by quantiles; where the two halves of the sequences do not agree, more than any number; "
        "dashed: one sequence. Right: the mean over "
        "units and steps of the products of a unit's own factors over ℓ steps. Lines: medians of "
        f"{counted(data['runs'])}; bands: {band_words(data['runs'])}, cut off at the edges of the middle panel."
    )
    return Picture(figure, data, tuple(sorted(measured["key"].unique())), caption)
