"""Published numbers beside obtained ones: shares of runs, and sequences until a task is solved."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import BOUND, house_style
from rnnstudy.spec import RequestError

COLOURS = {"yes": "#009E73", "partly": "#E69F00", "no": "#D55E00"}
MARKERS = {"yes": "o", "partly": "s", "no": "X"}
"""Verdict to colour and marker."""

SHARES = ("share solved", "share below")
SEQUENCES = ("sequences to solve",)


def ledger(table: pd.DataFrame) -> Picture:
    """Rows of a ledger with runs, one line each: the published value, and the obtained one with its interval.

    Left, shares of runs; right, median sequences until solved, on a logarithmic axis; an arrow stands for a median or
    an interval without upper end, because half of the runs or more did not solve the task. `table` is that of
    `rnnstudy.results.ledger.ledger_table`; rows of other quantities, without a verdict, or that compare two sides are
    left out. Raises `RequestError` when none is left.
    """
    one_sided = table["published"].map(lambda value: not isinstance(value, str))
    drawn = table[one_sided & table["verdict"].isin(list(COLOURS)) & table["quantity"].isin([*SHARES, *SEQUENCES])]
    if drawn.empty:
        raise RequestError("no row of the ledger that can be drawn has runs")
    groups = [drawn[drawn["quantity"].isin(names)] for names in (SHARES, SEQUENCES)]
    height = 1.6 + 0.27 * max(len(group) for group in groups)
    with house_style():
        figure = Figure(figsize=(12.5, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
        axes = list(figure.subplots(1, 2))
        for axis, group, label in zip(
            axes, groups, ("share of runs", "sequences until solved (median; logarithmic)"), strict=True
        ):
            places = np.arange(len(group))[::-1]
            known = group[["low", "value", "high", "published"]].to_numpy(float)
            # An interval without an upper end is drawn a little beyond all that is known.
            most = 1.5 * float(np.max(known, initial=1.0, where=np.isfinite(known)))
            for place, row in zip(places, group.itertuples(), strict=True):
                colour, end = COLOURS[row.verdict], min(row.high, most)
                axis.plot([row.low, end], [place, place], color=colour, linewidth=2.5)
                if not np.isfinite(row.high):
                    axis.plot(end, place, marker=">", color=colour, markersize=7)
                if np.isfinite(row.value):
                    axis.plot(row.value, place, marker=MARKERS[row.verdict], color=colour, markersize=7)
                axis.plot(row.published, place, marker="D", mfc="none", mec=BOUND, markersize=9, mew=1.5)
            axis.set_yticks(places, list(group["id"]), fontsize=9)
            axis.set(xlabel=label, ylim=(-0.7, max(len(group), 1) - 0.3))
        axes[0].set_xlim(-0.04, 1.04)
        axes[1].set_xscale("log")
        lowest, highest = axes[1].get_xlim()
        # Labels of more than one number in a decade would touch each other.
        axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 30 * lowest else (1,)))
        axes[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes[1].xaxis.set_minor_locator(NullLocator())
        entries = [
            line_entry(f"obtained: {verdict}", color=COLOURS[verdict], linestyle="-", marker=MARKERS[verdict])
            for verdict in COLOURS
        ]
        published = line_entry("published", color=BOUND, linestyle="", marker="D", mfc="none", markersize=9)
        legend_below(figure, [published, *entries])
    keys = tuple(sorted({key for joined in drawn["keys"] for key in joined.split()}))
    columns = ["id", "quantity", "published", "mark", "value", "low", "high", "runs", "verdict"]
    caption = (
        "Published values (diamonds) and those obtained. Left: shares of runs with Wilson 95 % intervals. Right: "
        "median sequences until solved, with the bootstrap 95 % interval, or the range below 10 runs; an arrow: no "
        "upper end, since too few runs solved the task. Rows of other quantities are in the table only."
    )
    return Picture(figure, drawn[columns].reset_index(drop=True), keys, caption)
