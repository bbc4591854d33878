"""The gradient of the last step's loss against the lag, every run a line."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, drawn_keys, ordered, profiles
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, length_entries
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import gradient_label, house_style, length_line, style


def gradient_of_runs(
    results: RunsAndReadings,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
    lowest: float = -8.0,
    keys: Keys = None,
) -> Picture:
    """Gradient of the last step's loss with respect to a state, against the lag: a panel per state and cell, a thin
    line per run, which is the median over its sequences.

    For runs that fall into groups, where a median over runs would stand where no run is. A median that is exactly zero
    is −∞ in the table, and not drawn.

    Args:
        stage: before the first update, or after the last.
        states: which of the cells' states; cells without a state have no panel for it.
        normalised: relative to lag 0, for each sequence.
        lowest: decades; the panels end there when a run goes further down, and say how many do and how far.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading.
    """
    frame = profiles(results, states, stage, normalised, keys).dropna(subset=["value"])
    columns = ["state", "cell", "length", "key", "lag", "value"]
    data = ordered(frame[columns], columns[:-1], state=list(states).index)
    shown = list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None))
    lengths = sorted(data["length"].unique())
    with house_style():
        figure, axes = panels(len(shown))
        for axis, (state, cell) in zip(axes, shown, strict=True):
            own = data[(data["state"] == state) & (data["cell"] == cell)]
            for (length, _), run in reversed(list(own.groupby(["length", "key"]))):
                looks = {"markersize": 6, "mec": "white", "mew": 0.6, "linewidth": 1.1, "alpha": 0.85}
                looks |= length_line(lengths, length, style(cell).colour)
                axis.plot(run["lag"], run["value"].replace(-np.inf, np.nan), markevery=[len(run) - 1], **looks)
            axis.set_title(f"{style(cell).label}, state {state}", color=style(cell).colour)
            axis.set_xlabel("lag τ − t (steps)")
            axis.margins(x=0.03)
        finite = data["value"].replace(-np.inf, np.nan)
        axes[0].set_ylim(max(lowest, float(finite.min()) - 0.3), float(finite.max()) + 0.3)
        for axis, (state, cell) in zip(axes, shown, strict=True):
            _say_what_is_below(axis, data[(data["state"] == state) & (data["cell"] == cell)], lowest)
        axes[0].set_ylabel(gradient_label(list(dict.fromkeys(data["state"])), normalised=normalised))
        legend_below(figure, length_entries(lengths, linewidth=1.3))
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {STAGES[stage]}, by lag (lag 0: the step of the "
        "loss). Each line is a run: the median over its sequences. What is below the panel is in the table."
    )
    return Picture(figure, data, drawn_keys(results, keys), caption)


def _say_what_is_below(axis: Axes, data: pd.DataFrame, lowest: float) -> None:
    """How many runs leave the panel at its lower border, of which length, and the lowest value."""
    least = data.groupby(["length", "key"])["value"].min()
    below = least[least < lowest]
    if len(below):
        counts = below.groupby("length").size()
        every = least.groupby("length").size()
        words = [f"{counts[length]} of {every[length]} runs at T = {length}" for length in counts.index]
        deepest = "0 exactly" if np.isneginf(below.min()) else f"{below.min():.0f}".replace("-", "−")
        text = "\n".join(["below the panel:", *words, f"(down to {deepest})"])
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
        place = {"transform": axis.transAxes, "ha": "right", "va": "bottom", "zorder": 4}
        axis.text(0.98, 0.03, text, fontsize=9, color="0.25", bbox=ground, **place)
