"""The gradient of the last step's loss against the lag."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.chosen_runs import PROBE_ADVICE, Results, drawn_keys, medians, ordered
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_table
from rnnstudy.figures.style import (
    BOUND,
    gradient_label,
    house_style,
    legend_below,
    length_handle,
    length_line,
    panels,
    style,
)
from rnnstudy.spec import SpecError

LARGEST_SLOPE = {"tanh": 1.0, "relu": 1.0, "linear": 1.0, "sigmoid": 0.25}
"""max φ′ of each activation."""

_BOUND_DASH = (0, (4, 2))


def gradient_by_lag(
    results: Results,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
    bound: bool = False,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Gradient of the last step's loss with respect to a state, against the lag: a panel per state and cell.

    Each run gives its median over sequences; drawn are the median over runs and a band: the bootstrap 95 % interval of
    that median from 10 runs on, the range of the runs below. A lag is drawn where at least half of the runs have a
    value; exact zeros are none.

    Args:
        stage: before the first update, or after the last.
        states: which of the cells' states; cells without one are left out.
        normalised: relative to lag 0, sequence by sequence (the rate of decay alone, whatever the size of the loss).
        bound: draw for vanilla RNNs how fast the gradient can grow or shrink at most, by σ_max(W_hh)·max φ′ for each
            step back, from the median at lag 0 (needs the probe RecurrentSpectrum).
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has such a reading.
    """
    suffix = f"_{stage}{'_normalised' if normalised else ''}"
    data = pd.concat(
        [_by_lag(medians(results, f"profile/{state}{suffix}", keys)).assign(state=state) for state in states]
    )
    if data.empty:
        raise SpecError(f"no run has a reading profile/{states[0]}{suffix}; {PROBE_ADVICE}")
    data = ordered(data[["state", "cell", "length", "lag", "median", "low", "high", "runs", "of_runs"]])
    data["bound"] = _bound(results, data, stage, keys) if bound else np.nan
    fewest, most = int(data["of_runs"].min()), int(data["of_runs"].max())
    shown = list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None))
    lengths = sorted(data["length"].unique())
    with house_style():
        figure, axes = panels(len(shown))
        for axis, (state, cell) in zip(axes, shown, strict=True):
            axis.set_title(f"{style(cell).label}, state {state}", color=style(cell).colour)
            chosen = data[(data["state"] == state) & (data["cell"] == cell)]
            for length in reversed(lengths):
                _lag_line(axis, chosen[chosen["length"] == length], style(cell).colour, lengths, length)
            axis.set_xlabel("lag τ − t (steps)")
            axis.margins(x=0.03)
        for axis, (state, cell) in zip(axes, shown, strict=True):
            for length in lengths:
                place = (data["state"] == state) & (data["cell"] == cell) & (data["length"] == length)
                _bound_line(axis, data[place].dropna(subset=["bound"]))
        axes[0].set_ylabel(gradient_label(list(dict.fromkeys(data["state"])), normalised=normalised))
        band = band_words(fewest, most)
        handles = [length_handle(lengths, length) for length in lengths]
        if most > 1:
            handles.append(Patch(facecolor="0.6", alpha=0.4, label=band))
        if data["bound"].notna().any():
            words = "RNN: upper bound, σ_max(W_hh)·max φ′"
            handles.append(Line2D([], [], color=BOUND, linestyle=_BOUND_DASH, label=words))
        legend_below(figure, handles)
    moment = "before the first update" if stage == "initial" else "after the last update"
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {moment}, by lag (lag 0: the step of the loss). "
        + (
            f"Line: median over {counted(fewest, most)} of each run's median over sequences; band: {band}."
            if most > 1
            else "Line: median over sequences, of one run."
        )
    )
    if data["bound"].notna().any():
        caption += " Dashed grey: no gradient of an RNN can lie above, by the norm of W_hh and the slope of its units."
    return Picture(figure, data, drawn_keys(results, keys), caption)


def _by_lag(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and band over runs, by cell, length and lag."""
    columns = ["cell", "length", "lag", "median", "low", "high", "runs", "of_runs"]
    parts = []
    for (cell, length), group in frame.groupby(["cell", "length"]) if len(frame) else ():
        table = group.pivot(index="key", columns="lag", values="value")
        part = median_table(table, "lag").assign(cell=cell, length=length, of_runs=len(table))
        parts.append(part[(part["runs"] * 2 >= len(table)) & part["median"].notna()])
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _bound(results: Results, data: pd.DataFrame, stage: str, keys: Sequence[str] | None) -> pd.Series:
    """log10 of the largest gradient that the weights allow, row for row of `data`; NaN where there is no such bound."""
    column = f"recurrent_W_hh_largest_singular_value_{stage}"
    runs = results.runs.loc[list(drawn_keys(results, keys))]
    if column not in runs or "cell.activation" not in runs:
        return pd.Series(np.nan, index=data.index)
    slope = runs["cell.activation"].map(lambda one: LARGEST_SLOPE.get(one, np.nan)).astype(float)
    steepness = np.log10(runs[column].astype(float) * slope).groupby([runs["cell"], runs["length"]]).median()
    place = pd.MultiIndex.from_frame(data[["cell", "length"]])
    group = [data["state"], data["cell"], data["length"]]
    first = data["median"].where(data["lag"] == 0).groupby(group).transform("max")
    bound = first + data["lag"] * steepness.reindex(place).to_numpy()
    return bound.where((data["cell"] == "Elman") & (data["state"] == "h"))


def _bound_line(axis: Axes, data: pd.DataFrame) -> None:
    """Without changing what the axis shows: a bound that rises may leave the panel."""
    limits = axis.get_ylim()
    axis.plot(data["lag"], data["bound"], color=BOUND, linestyle=_BOUND_DASH, linewidth=1.3, zorder=1)
    axis.set_ylim(limits)


def _lag_line(axis: Axes, data: pd.DataFrame, colour: str, lengths: Sequence[int], length: int) -> None:
    if data.empty:
        return
    line = length_line(lengths, length, colour)
    lag, median, low, high = (data[name].to_numpy(float) for name in ("lag", "median", "low", "high"))
    axis.fill_between(lag, low, high, color=line["color"], alpha=0.22, linewidth=0)
    axis.plot(lag, median, markersize=8, mec="white", markevery=[len(lag) - 1], **line)
