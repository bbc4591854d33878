"""What the product of Jacobians does in every direction: singular values by lag, and Lyapunov exponents."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.chosen_runs import Results, drawn_keys, with_runs
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_table
from rnnstudy.figures.style import BOUND, cell_handle, cell_position, house_style, legend_below, panels, shade, style
from rnnstudy.spec import SpecError

PATHS = {"h": "state h", "joint": "joint state (c, h)", "c": "cell path", "h of several": "hidden path"}
"""What the paths of `SingularValues` are called; h alone, and h as one of several states, are different things."""

SHARES = {"largest": 0.0, "a quarter": 0.25, "half": 0.5, "all": 1.0}
"""The singular values that are drawn: the largest, and the one above which so large a share of the directions lies."""

LOWEST = -16.0
"""Decades: nothing below is drawn."""

_DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def singular_values_by_lag(
    results: Results, *, length: int | None = None, keys: Sequence[str] | None = None
) -> Picture:
    """log10 of singular values of ∂s_τ/∂s_t against the lag τ − t: a column for each path, before training and after.

    Of each run the median over its sequences; drawn are the median over runs and its band. The lines of a panel are
    `SHARES` of the spectrum. Values below `LOWEST` decades, or below 10⁻¹² of the largest (rounding), are not there.

    Args:
        length: of the runs to draw; the longest by default.
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has such a reading.
    """
    runs = results.runs if keys is None else results.runs.loc[list(keys)]
    length = int(runs["length"].max()) if length is None else length
    chosen = sorted(runs.index[runs["length"] == length])
    frames = []
    for stage in ("initial", "final"):
        for path in ("h", "joint", "c"):
            frame = with_runs(results, f"singular_values/{path}_{stage}", chosen, ["cell"], quantile=0.5)
            frames.append(frame.assign(stage=stage, path=path))
    frame = pd.concat(frames, ignore_index=True)
    if frame.empty:
        raise SpecError("no run has a reading singular_values; add the probe SingularValues to the runs")
    several = set(frame.loc[frame["path"] == "joint", "cell"])
    frame.loc[(frame["path"] == "h") & frame["cell"].isin(several), "path"] = "h of several"
    data = _over_runs(frame)
    shown = list(data[["cell", "path"]].drop_duplicates().itertuples(index=False, name=None))
    fewest, most = int(data["of_runs"].min()), int(data["of_runs"].max())
    with house_style():
        figure, axes = panels(len(shown), rows=2, height=3.0, share_x=True)
        for place, (axis, stage, (cell, path)) in enumerate(
            (axis, stage, one)
            for axis, (stage, one) in zip(
                axes, [(stage, one) for stage in ("initial", "final") for one in shown], strict=True
            )
        ):
            of_panel = data[(data["stage"] == stage) & (data["cell"] == cell) & (data["path"] == path)]
            for number, name in enumerate(SHARES):
                line = of_panel[of_panel["singular_value"] == name]
                colour = shade(style(cell).colour, len(SHARES) - 1 - number, len(SHARES))
                axis.fill_between(line["lag"], line["low"], line["high"], color=colour, alpha=0.22, linewidth=0)
                axis.plot(line["lag"], line["median"], ".", color=colour, linestyle=_DASHES[number], markersize=7)
            axis.axhline(0, color=BOUND, linewidth=1)
            if place < len(shown):
                short = style(cell).label.split(" ")[0]
                axis.set_title(f"{short}, {PATHS[path]}", color=style(cell).colour)
            else:
                axis.set_xlabel("lag τ − t (steps)")
        bottom = max(LOWEST, float(data["median"].min()) - 0.5)
        axes[0].set_ylim(bottom, max(0.6, float(data["high"].max()) + 0.3))
        axes[0].set_ylabel("before training\nlog₁₀ singular value")
        axes[len(shown)].set_ylabel("after training\nlog₁₀ singular value")
        words = {"largest": "largest", "a quarter": "a quarter above", "half": "half above", "all": "smallest"}
        handles = [
            Line2D([], [], color=shade("0.5", len(SHARES) - 1 - number, len(SHARES)), linestyle=dash, label=words[name])
            for (number, name), dash in zip(enumerate(SHARES), _DASHES, strict=True)
        ]
        band = band_words(fewest, most)
        handles.append(Patch(facecolor="0.6", alpha=0.4, label=band))
        legend_below(figure, handles)
    caption = (
        f"Singular values of ∂s_τ/∂s_t, T = {length}: the largest, those above which a quarter and half of all "
        f"directions lie, and the smallest. Line: median over {counted(fewest, most)} of each run's median over "
        f"sequences; band: {band}. A line ends where more than half of the runs are below 10⁻¹² of their largest, "
        "which is rounding error; dots: the lags that were measured. The thin line at 0: neither grown nor faded."
    )
    return Picture(figure, data, drawn_keys(results, chosen), caption)


def _over_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and band over runs of each of `SHARES`, by stage, cell, path and lag.

    A singular value that is absent beside a largest one that is there lies below 10⁻¹² of it: it ranks lowest.
    """
    place = ["stage", "path", "key", "lag"]
    largest = frame.loc[frame["index"] == 0, [*place, "value"]].rename(columns={"value": "largest"})
    frame = frame.merge(largest, on=place, how="left")
    frame["value"] = frame["value"].where(frame["value"].notna() | frame["largest"].isna(), -np.inf)
    size = pd.Series(frame.groupby(["cell", "path"])["index"].transform("max"))
    parts = []
    for name, share in SHARES.items():
        wanted = frame[frame["index"] == (share * size).round()]
        for (stage, cell, path), group in wanted.groupby(["stage", "cell", "path"]):
            table = group.pivot(index="key", columns="lag", values="value")
            part = median_table(table, "lag")
            part = part[(part["runs"] * 2 >= len(table)) & part["median"].notna()]
            parts.append(part.assign(stage=stage, cell=cell, path=path, singular_value=name, of_runs=len(table)))
    data = pd.concat(parts, ignore_index=True)
    order = {"cell": cell_position, "path": list(PATHS).index, "stage": ("initial", "final").index}
    order["singular_value"] = list(SHARES).index
    data = data.assign(**{f"_{name}": data[name].map(rank) for name, rank in order.items()})
    data = data.sort_values(["_stage", "_cell", "_path", "_singular_value", "lag"], ignore_index=True)
    return data[["stage", "cell", "path", "singular_value", "lag", "median", "low", "high", "runs", "of_runs"]]


def lyapunov_spectrum(results: Results, *, length: int | None = None, keys: Sequence[str] | None = None) -> Picture:
    """Lyapunov exponents from the largest to the smallest, before training and after, a line for each cell.

    Of each run the median over its sequences; drawn are the median over runs and its band, against the share of the
    directions, so that states of different size can be compared. Exponents that are absent are not drawn.

    Raises `SpecError` when no run has such a reading.
    """
    runs = results.runs if keys is None else results.runs.loc[list(keys)]
    length = int(runs["length"].max()) if length is None else length
    chosen = sorted(runs.index[runs["length"] == length])
    frame = pd.concat(
        [
            with_runs(results, f"lyapunov/exponents_{stage}", chosen, ["cell"], quantile=0.5).assign(stage=stage)
            for stage in ("initial", "final")
        ],
        ignore_index=True,
    )
    if frame.empty:
        raise SpecError("no run has a reading lyapunov/exponents; add the probe LyapunovExponents to the runs")
    cells = sorted(frame["cell"].unique(), key=cell_position)
    parts = []
    for stage in ("initial", "final"):
        for cell in cells:
            group = frame[(frame["stage"] == stage) & (frame["cell"] == cell)]
            table = group.pivot(index="key", columns="index", values="value")
            part = median_table(table, "index")
            part["share"] = (part["index"] + 0.5) / len(part)
            part = part[part["runs"] * 2 >= len(table)]
            parts.append(part.assign(stage=stage, cell=cell, of_runs=len(table)))
    data = pd.concat(parts, ignore_index=True)
    data = data[["stage", "cell", "index", "share", "median", "low", "high", "runs", "of_runs"]]
    fewest, most = int(data["of_runs"].min()), int(data["of_runs"].max())
    with house_style():
        figure, axes = panels(2)
        for axis, stage, title in zip(axes, ("initial", "final"), ("before training", "after training"), strict=True):
            for cell in cells:
                line, drawn = data[(data["stage"] == stage) & (data["cell"] == cell)], style(cell)
                across = 100 * line["share"]
                axis.fill_between(across, line["low"], line["high"], color=drawn.colour, alpha=0.25, linewidth=0)
                axis.plot(across, line["median"], color=drawn.colour, linestyle=drawn.dash, marker=drawn.marker,
                          markevery=max(1, len(line) // 6), mec="white", markersize=8)  # fmt: skip
            axis.axhline(0, color=BOUND, linewidth=1)
            axis.set(title=title, xlabel="directions, from the slowest to fade (%)")
        axes[0].set_ylabel("Lyapunov exponent (ln per step)")
        lowest = float(data["median"].min())
        axes[0].set_ylim(lowest * 1.05, max(0.1, 0.06 * -lowest))
        band = band_words(fewest, most)
        legend_below(figure, [*map(cell_handle, cells), Patch(facecolor="0.6", alpha=0.4, label=band)])
    caption = (
        f"Lyapunov exponents of the whole state, T = {length}, over the length of the task's sequences; for an LSTM of "
        f"c and h together, hence twice as many directions. Line: median over {counted(fewest, most)} of each run's "
        f"median over sequences; band: {band}. Zero: neither grown nor faded; −0.69: halved at each step."
    )
    return Picture(figure, data, drawn_keys(results, chosen), caption)
