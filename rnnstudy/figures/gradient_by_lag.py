"""The gradient of the last step's loss against the lag."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, drawn_keys, profiles
from rnnstudy.figures.drawing import median_line, panels
from rnnstudy.figures.legend import band_entry, bound_entry, legend_below, length_entries
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND_LINE, gradient_label, house_style, length_line, style

LARGEST_SLOPE = {"tanh": 1.0, "relu": 1.0, "linear": 1.0, "sigmoid": 0.25}
"""max φ′ of each activation."""


def gradient_by_lag(
    results: RunsAndReadings,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
    bound: bool = False,
    keys: Keys = None,
) -> Picture:
    """Gradient of the last step's loss with respect to a state, against the lag: a panel per state and cell.

    Of each run the median over its sequences; drawn are the median over runs and a band: the bootstrap 95 % interval of
    that median from 10 runs on, the range of the runs below. A lag is drawn where at least half of the runs have a
    value; an exact zero counts as a value below all numbers.

    Args:
        stage: before the first update, or after the last.
        states: which of the cells' states; cells without a state have no panel for it.
        normalised: relative to lag 0, for each sequence (the rate of decay alone, whatever the size of the loss).
        bound: draw for vanilla RNNs how fast the gradient can grow or shrink at most, by σ_max(W_hh)·max φ′ for each
            step back, from the median at lag 0 (needs the probe RecurrentSpectrum). A bound that is outside its panel
            at most lags is in the table only.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading.
    """
    frame = profiles(results, states, stage, normalised, keys)
    data = medians_by(frame, ["state", "cell", "length"], "lag", state=list(states).index)
    data["bound"] = _bound(results, data, stage, keys) if bound else np.nan
    several, bounded = data["of_runs"].max() > 1, False
    shown = list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None))
    lengths = sorted(data["length"].unique())
    with house_style():
        figure, axes = panels(len(shown))
        for axis, (state, cell) in zip(axes, shown, strict=True):
            axis.set_title(f"{style(cell).label}, state {state}", color=style(cell).colour)
            own = data[(data["state"] == state) & (data["cell"] == cell)]
            for length, line in reversed(list(own.groupby("length"))):
                looks = length_line(lengths, length, style(cell).colour)
                median_line(axis, line, "lag", markersize=8, mec="white", markevery=[len(line) - 1], **looks)
            axis.set_xlabel("lag τ − t (steps)")
            axis.margins(x=0.03)
        # When all medians are drawn, since a bound may leave its panel and must not change the limits.
        for axis, (state, cell) in zip(axes, shown, strict=True):
            own, limits = data[(data["state"] == state) & (data["cell"] == cell)], axis.get_ylim()
            for length in lengths:
                line = own[own["length"] == length].dropna(subset=["bound"])
                # One that leaves the panel after a few lags would be a stub that nobody can read.
                if len(line) and line["bound"].between(*limits).mean() >= 0.5:
                    axis.plot(line["lag"], line["bound"], zorder=1, **BOUND_LINE)
                    bounded = True
            axis.set_ylim(limits)
        axes[0].set_ylabel(gradient_label(list(dict.fromkeys(data["state"])), normalised=normalised))
        band = band_words(data["of_runs"])
        entries = [*length_entries(lengths), *([band_entry(band)] if several else [])]
        if bounded:
            entries.append(bound_entry("RNN: upper bound, σ_max(W_hh)·max φ′"))
        legend_below(figure, entries)
    moment = "before the first update" if stage == "initial" else "after the last update"
    over_runs = f"median over {counted(data['of_runs'])} of each run's median over sequences; band: {band}."
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {moment}, by lag (lag 0: the step of the loss). "
        f"Line: {over_runs if several else 'median over sequences, of one run.'}"
    )
    if bounded:
        caption += " Dashed grey: no gradient of an RNN can lie above, by the norm of W_hh and the slope of its units."
    return Picture(figure, data, drawn_keys(results, keys), caption)


def _bound(results: RunsAndReadings, data: pd.DataFrame, stage: str, keys: Keys) -> pd.Series:
    """log10 of the largest gradient that the weights allow, for each row of `data`; NaN where there is no bound."""
    column = f"recurrent_W_hh_largest_singular_value_{stage}"
    runs = results.runs.loc[list(drawn_keys(results, keys))]
    if column not in runs or "cell.activation" not in runs:
        return pd.Series(np.nan, index=data.index)
    slope = runs["cell.activation"].map(lambda activation: LARGEST_SLOPE.get(activation, np.nan)).astype(float)
    steepness = np.log10(runs[column].astype(float) * slope).groupby([runs["cell"], runs["length"]]).median()
    groups = pd.MultiIndex.from_frame(data[["cell", "length"]])
    first = data["median"].where(data["lag"] == 0)
    first = first.groupby([data["state"], data["cell"], data["length"]]).transform("max")
    bound = first + data["lag"] * steepness.reindex(groups).to_numpy()
    return bound.where((data["cell"] == "Elman") & (data["state"] == "h"))
