"""What the product of Jacobians does in every direction: its singular values by lag."""

# pyright: reportArgumentType=false

import numpy as np
import pandas as pd

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, keys_of_length, readings_of, required
from rnnstudy.figures.drawing import median_line, panels
from rnnstudy.figures.legend import band_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND, DASHES, house_style, shade, style

PATHS = {"h": "state h", "joint": "joint state (c, h)", "c": "cell path", "h of several": "hidden path"}
"""Names of the paths of `SingularValues`; h as the only state, and h as one of several, are different things."""

SHARES = {"largest": 0.0, "a quarter": 0.25, "half": 0.5, "all": 1.0}
"""The singular values that are drawn: the largest, and those above which this share of the directions lies."""

_WORDS = {"largest": "largest", "a quarter": "a quarter above", "half": "half above", "all": "smallest"}

LOWEST = -16.0
"""Decades: nothing below is drawn."""


def singular_values_by_lag(results: RunsAndReadings, *, length: int | None = None, keys: Keys = None) -> Picture:
    """log10 of singular values of ∂s_τ/∂s_t against the lag τ − t: a column for each path, before training and after.

    Of each run the median over its sequences; drawn are the median over runs and its band. The lines of a panel are
    `SHARES` of the spectrum. Values below `LOWEST` decades, or below 10⁻¹² of the largest (rounding), are not drawn.

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
    shown = list(data[["cell", "path"]].drop_duplicates().itertuples(index=False, name=None))
    shades = [shade("0.5", len(SHARES) - 1 - rank, len(SHARES)) for rank in range(len(SHARES))]
    with house_style():
        figure, axes = panels(len(shown), rows=2, height=3.0, share_x=True)
        contents = [(stage, cell, path) for stage in STAGES for cell, path in shown]
        for axis, (stage, cell, path) in zip(axes, contents, strict=True):
            own = data[(data["stage"] == stage) & (data["cell"] == cell) & (data["path"] == path)]
            for rank, (name, dash) in enumerate(zip(SHARES, DASHES, strict=True)):
                colour = shade(style(cell).colour, len(SHARES) - 1 - rank, len(SHARES))
                looks = {"color": colour, "linestyle": dash, "marker": ".", "markersize": 7}
                median_line(axis, own[own["singular_value"] == name], "lag", **looks)
            axis.axhline(0, color=BOUND, linewidth=1)
        for above, below, (cell, path) in zip(axes[: len(shown)], axes[len(shown) :], shown, strict=True):
            above.set_title(f"{style(cell).label.split(' ')[0]}, {PATHS[path]}", color=style(cell).colour)
            below.set_xlabel("lag τ − t (steps)")
        bottom = max(LOWEST, float(data["median"].min()) - 0.5)
        axes[0].set_ylim(bottom, max(0.6, float(data["high"].max()) + 0.3))
        for axis, moment in zip(axes[:: len(shown)], STAGES.values(), strict=True):
            axis.set_ylabel(f"{moment}\nlog₁₀ singular value")
        looks = zip(_WORDS.values(), shades, DASHES, strict=True)
        entries = [line_entry(words, color=colour, linestyle=dash) for words, colour, dash in looks]
        band = band_words(data["of_runs"])
        legend_below(figure, [*entries, band_entry(band)])
    caption = (
        f"Singular values of ∂s_τ/∂s_t, T = {length}: the largest, those above which a quarter and half of all "
        f"directions lie, and the smallest. Line: median over {counted(data['of_runs'])} of each run's median over "
        f"sequences; band: {band}. A line ends where more than half of the runs are below 10⁻¹² of their largest, "
        "which is rounding error; dots: the lags that were measured. The thin line at 0: neither grown nor faded."
    )
    return Picture(figure, data, chosen, caption)


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
    ranks = {"path": list(PATHS).index, "singular_value": list(SHARES).index}
    return medians_by(pd.concat(drawn), ["stage", "cell", "path", "singular_value"], "lag", **ranks)
