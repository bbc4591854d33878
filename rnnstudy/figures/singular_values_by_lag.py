"""What the product of Jacobians does in every direction: its singular values by lag."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, keys_of_length, readings_of, required
from rnnstudy.figures.drawing import median_line, panels
from rnnstudy.figures.legend import band_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND, DASHES, house_style, shade, style

PATHS = ("h", "joint", "c", "h of several")
"""The paths of `SingularValues`; h as the only state, and h as one of several, are different things."""

_PANELS = {"h": "state h", "joint": "joint state (c, h)", "c": "cell path, hidden path (grey)"}
"""The paths with a panel of their own, and its title: the hidden path falls so steeply that it shares one."""

_HIDDEN_PATH = "0.4"
"""The grey whose shades the hidden path has."""

SHARES = {"largest": 0.0, "upper quartile": 0.25, "median": 0.5, "smallest": 1.0}
"""The singular values that are drawn, with the share of the directions whose singular value is larger."""

LOWEST = -16.0
"""Decades: nothing below is drawn."""

_ENDS: dict[str, Any] = {"marker": "v", "markersize": 8, "mec": "white", "zorder": 4}


def singular_values_by_lag(results: RunsAndReadings, *, length: int | None = None, keys: Keys = None) -> Picture:
    """log10 of singular values of ∂s_τ/∂s_t against the lag τ − t: a column for the state of each cell, with one for
    the two paths of a cell of two states, before training and after.

    Of each run the median over its sequences; drawn are the median over runs and its band. The lines of a panel are
    `SHARES` of the spectrum. Values below `LOWEST` decades, or below 10⁻¹² of the largest (rounding), are not drawn; a
    triangle stands where a line ends for the second reason.

    Args:
        length: of the runs to draw; the longest by default.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading, or that length.
    """
    length, chosen = keys_of_length(results, length, keys)
    frames = []
    for stage in STAGES:
        for path in ("h", "joint", "c"):
            frame = readings_of(results, f"singular_values/{path}_{stage}", chosen, ["cell"], quantile=0.5)
            frames.append(frame.assign(stage=stage, path=path))
    frame = required(pd.concat(frames, ignore_index=True), "singular_values", "SingularValues")
    several = set(frame.loc[frame["path"] == "joint", "cell"])
    frame.loc[(frame["path"] == "h") & frame["cell"].isin(several), "path"] = "h of several"
    data = _over_runs(frame)
    pairs = data[["cell", "path"]].drop_duplicates().itertuples(index=False, name=None)
    shown = [(cell, path) for cell, path in pairs if path in _PANELS]
    shades = [shade("0.5", len(SHARES) - 1 - rank, len(SHARES)) for rank in range(len(SHARES))]
    with house_style():
        figure, axes = panels(len(shown), rows=2, height=3.4, share_x=True)
        last = int(frame["lag"].max())
        contents = [(stage, cell, path) for stage in STAGES for cell, path in shown]
        for axis, (stage, cell, path) in zip(axes, contents, strict=True):
            own = data[(data["stage"] == stage) & (data["cell"] == cell)]
            _draw(axis, own[own["path"] == path], style(cell).colour, last)
            if path == "c":
                _draw(axis, own[own["path"] == "h of several"], _HIDDEN_PATH, last)
            axis.axhline(0, color=BOUND, linewidth=1)
        for above, below, (cell, path) in zip(axes[: len(shown)], axes[len(shown) :], shown, strict=True):
            above.set_title(f"{style(cell).label.split(' ')[0]}, {_PANELS[path]}", color=style(cell).colour)
            below.set_xlabel("lag τ − t (steps)")
        bottom = max(LOWEST, float(data["median"].min()) - 0.5)
        axes[0].set_ylim(bottom, max(0.6, float(data["high"].max()) + 0.3))
        for axis, moment in zip(axes[:: len(shown)], STAGES.values(), strict=True):
            axis.set_ylabel(f"{moment}\nlog₁₀ singular value")
        looks = zip(SHARES, shades, DASHES, strict=True)
        entries = [line_entry(words, color=colour, linestyle=dash) for words, colour, dash in looks]
        band = band_words(data["of_runs"])
        ends = line_entry("beyond: below 10⁻¹² of the largest, lost in rounding", color="0.4", linestyle="", **_ENDS)
        legend_below(figure, [*entries, band_entry(band), ends])
    caption = (
        f"Singular values of ∂s_τ/∂s_t, T = {length}: the largest, the upper quartile, the median and the smallest of "
        f"all directions. Line: median over {counted(data['of_runs'])} of each run's median over sequences; band: "
        f"{band}. A line ends in a triangle where, at the next lag, more than half of the runs are below 10⁻¹² of "
        "their largest singular value, which is rounding error; below the panel nothing is drawn. Dots: the lags that "
        "were measured. The thin line at 0: neither grown nor faded."
    )
    return Picture(figure, data, chosen, caption)


def _draw(axis: Axes, data: pd.DataFrame, base: str, last: int) -> None:
    """The lines of one path, in shades of `base`; a triangle where one ends before the lag `last`."""
    for rank, (name, dash) in enumerate(zip(SHARES, DASHES, strict=True)):
        line = data[data["singular_value"] == name]
        colour = shade(base, len(SHARES) - 1 - rank, len(SHARES))
        median_line(axis, line, "lag", color=colour, linestyle=dash, marker=".", markersize=7)
        if len(line) and line["lag"].iloc[-1] < last:
            axis.plot(line["lag"].iloc[-1], line["median"].iloc[-1], color=colour, **_ENDS)


def _over_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and band over runs of each of `SHARES`, by stage, cell, path and lag.

    A singular value that is absent while the largest one is present lies below 10⁻¹² of it: it ranks lowest.
    """
    spectrum = ["stage", "path", "key", "lag"]
    largest = frame.loc[frame["index"] == 0, [*spectrum, "value"]].rename(columns={"value": "largest"})
    frame = frame.merge(largest, on=spectrum, how="left")
    frame["value"] = frame["value"].where(frame["value"].notna() | frame["largest"].isna(), -np.inf)
    size = pd.Series(frame.groupby(["cell", "path"])["index"].transform("max"))
    drawn = [
        frame[frame["index"] == (share * size).round()].assign(singular_value=name) for name, share in SHARES.items()
    ]
    ranks = {"path": PATHS.index, "singular_value": list(SHARES).index}
    return medians_by(pd.concat(drawn), ["stage", "cell", "path", "singular_value"], "lag", **ranks)
