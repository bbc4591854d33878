"""What a truncation window keeps of the gradient."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from rnnstudy.figures.chosen_runs import Results, drawn_keys, with_runs
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_table
from rnnstudy.figures.style import BOUND, cell_handle, cell_position, house_style, legend_below, panels, style
from rnnstudy.spec import SpecError


def cosine_by_window(
    results: Results,
    *,
    parameter: str = "W_hh",
    informative: Sequence[tuple[int, int]] = (),
    keys: Sequence[str] | None = None,
) -> Picture:
    """Cosine of the truncated with the full gradient of a recurrent matrix, against the window; before and after.

    The window k is the number of steps, counted back from the end, whose contribution is kept. Drawn are the median
    over runs and its band, a panel each for before the first update and after the last.

    Args:
        parameter: the recurrent matrix.
        informative: first and last lag of the inputs that the answer depends on: shaded.
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has such a reading.
    """
    stages = {"initial": "before training", "final": "after training"}
    frame = pd.concat(
        [
            with_runs(results, f"by_lag/{parameter}_cosine_{stage}", keys, ["cell"]).assign(stage=stage)
            for stage in stages
        ],
        ignore_index=True,
    )
    if frame.empty:
        raise SpecError(f"no run has a reading by_lag/{parameter}_cosine; add the probe GradientByLag to the runs")
    cells = sorted(frame["cell"].unique(), key=cell_position)
    parts = []
    for stage in stages:
        for cell in cells:
            group = frame[(frame["stage"] == stage) & (frame["cell"] == cell)]
            table = group.pivot(index="key", columns="lag", values="value").sort_index().sort_index(axis=1)
            if table.empty:
                continue
            part = median_table(table, "window")
            parts.append(part.assign(stage=stage, cell=cell, window=part["window"] + 1))
    data = pd.concat(parts, ignore_index=True)[["stage", "cell", "window", "median", "low", "high", "runs"]]
    fewest, most = int(data["runs"].min()), int(data["runs"].max())
    with house_style():
        figure, axes = panels(2)
        for axis, (stage, title) in zip(axes, stages.items(), strict=True):
            for first, last in informative:
                axis.axvspan(first + 0.5, last + 1.5, color="0.9", linewidth=0, zorder=0)
            for cell in cells:
                line, drawn = data[(data["stage"] == stage) & (data["cell"] == cell)], style(cell)
                window, line_style = line["window"], {"color": drawn.colour, "linestyle": drawn.dash}
                axis.fill_between(window, line["low"], line["high"], color=drawn.colour, alpha=0.25, linewidth=0)
                marks = {"marker": drawn.marker, "markevery": max(1, len(line) // 6), "mec": "white", "markersize": 8}
                axis.plot(window, line["median"], **line_style, **marks)
            axis.axhline(1, color=BOUND, linewidth=1)
            axis.set(title=title, xlabel="window k (steps kept, from the end)")
        lowest = float(np.nanmin(data["low"]))
        axes[0].set(ylabel=f"cosine with the full gradient\nof {parameter}", ylim=(min(0.0, lowest) - 0.03, 1.04))
        band = band_words(fewest, most)
        handles = [*map(cell_handle, cells), Patch(facecolor="0.6", alpha=0.4, label=band)]
        if informative:
            handles.append(Patch(facecolor="0.9", label="where the marks are"))
        legend_below(figure, handles)
    caption = (
        f"Cosine between the gradient of {parameter} from the last k steps alone and the whole one, for the loss of "
        f"the last step. 1: the window loses nothing of the direction; 0: what it keeps points elsewhere. Line: median "
        f"over {counted(fewest, most)}; band: {band}."
    )
    return Picture(figure, data, drawn_keys(results, keys), caption)
