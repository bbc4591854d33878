"""The gradient of the last step's loss against the lag."""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from rnnstudy.figures.house import gradient_label, legend_below, length_handle, length_line, look, panels, style
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.selection import PROBE_ADVICE, Results, drawn_keys, medians, ordered
from rnnstudy.figures.statistics import band_words, counted, median_and_band
from rnnstudy.spec import SpecError


def gradient_by_lag(
    results: Results,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
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
    fewest, most = int(data["of_runs"].min()), int(data["of_runs"].max())
    shown = list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None))
    lengths = sorted(data["length"].unique())
    with look():
        figure, axes = panels(len(shown))
        for axis, (state, cell) in zip(axes, shown, strict=True):
            axis.set_title(f"{style(cell).label}, state {state}", color=style(cell).colour)
            chosen = data[(data["state"] == state) & (data["cell"] == cell)]
            for length in reversed(lengths):
                _lag_line(axis, chosen[chosen["length"] == length], style(cell).colour, lengths, length)
            axis.set_xlabel("lag τ − t (steps)")
            axis.margins(x=0.03)
        axes[0].set_ylabel(gradient_label(list(dict.fromkeys(data["state"])), normalised=normalised))
        band = band_words(fewest, most)
        handles = [length_handle(lengths, length) for length in lengths]
        handles.append(Patch(facecolor="0.6", alpha=0.4, label=band))
        legend_below(figure, handles)
    moment = "before the first update" if stage == "initial" else "after the last update"
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {moment}, by lag (lag 0: the step of the loss). "
        f"Line: median over {counted(fewest, most)} of each run's median over sequences; band: {band}."
    )
    return Picture(figure, data, drawn_keys(results, keys), caption)


def _by_lag(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and band over runs, by cell, length and lag."""
    columns = ["cell", "length", "lag", "median", "low", "high", "runs", "of_runs"]
    parts = []
    for (cell, length), group in frame.groupby(["cell", "length"]) if len(frame) else ():
        table = group.pivot(index="key", columns="lag", values="value").sort_index().sort_index(axis=1)
        values = table.to_numpy(float)
        present = np.isfinite(values).sum(axis=0)
        median, low, high = median_and_band(values)
        shown = present * 2 >= len(values)
        part = pd.DataFrame({"lag": table.columns, "median": median, "low": low, "high": high, "runs": present})
        parts.append(part.assign(cell=cell, length=length, of_runs=len(values))[shown & (present > 0)])
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _lag_line(axis: Axes, data: pd.DataFrame, colour: str, lengths: Sequence[int], length: int) -> None:
    if data.empty:
        return
    line = length_line(lengths, length, colour)
    lag, median, low, high = (data[name].to_numpy(float) for name in ("lag", "median", "low", "high"))
    axis.fill_between(lag, low, high, color=line["color"], alpha=0.22, linewidth=0)
    axis.plot(lag, median, markersize=8, mec="white", markevery=[len(lag) - 1], **line)
