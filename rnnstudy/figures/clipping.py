"""The gradient's norm during training, with and without clipping."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, finished_or_diverged, readings_of, required
from rnnstudy.figures.drawing import panels, points_with_intervals
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import medians_by, wilson_row
from rnnstudy.figures.style import BOUND_LINE, DASHES, house_style, shade, style
from rnnstudy.spec import RequestError

THRESHOLD = "training.clip.threshold"

DECADES_SHOWN = (-3.0, 8.0)
"""The largest range of the axis of the norms, in log10; higher spikes end at its upper border."""

_COLOUR = style("Elman").colour
_LINES: dict[str, dict[str, Any]] = {
    "without clipping": {"color": shade(_COLOUR, 1, 2), "marker": "o", "linestyle": "-"},
    "with clipping": {"color": shade(_COLOUR, 0, 2), "marker": "^", "linestyle": DASHES[1]},
}

STRETCHES = 20
"""A line has at most so many points for each decade of updates: the largest norm in between, so that spikes stay."""

_MEDIAN: dict[str, Any] = {"color": shade(_COLOUR, 1, 2), "linewidth": 2.4, "zorder": 4}
_RUN: dict[str, Any] = {"color": _COLOUR, "linewidth": 0.9, "alpha": 0.75, "zorder": 3}
_DIVERGES: dict[str, Any] = {
    "color": "black", "linewidth": 1.2, "linestyle": DASHES[2], "marker": "X", "markersize": 9, "mec": "white",
    "zorder": 6,
}  # fmt: skip


def clipping(results: RunsAndReadings, *, learning_rate: float, keys: Keys = None) -> Picture:
    """Left and middle: log10 of the gradient's norm before clipping, without and with clipping, at one learning rate: a
    line for each run, dotted and up to a cross for a run that diverges, and their median. Right: share of diverged
    runs against the learning rate, with Wilson intervals.

    The threshold is drawn dashed. Lines have a point for each update at first, and then for each of the `STRETCHES` of
    a decade of updates: the largest norm in it. The table has the median and the largest norm over runs at every
    update. A median is that of the runs with a norm there, where half of them have one (see `medians_by`); the largest
    norm leaves out norms that are not finite.

    Raises `RequestError` when there are no runs of one of the two kinds, or none with the reading
    `gradient/global_before`.
    """
    runs = finished_or_diverged(results, keys)
    clipped = runs[THRESHOLD].notna() if THRESHOLD in runs else pd.Series(False, index=runs.index)
    if clipped.nunique() < 2:
        raise RequestError("clipping compares runs with and without training.clip; these are all of one kind")
    runs = runs.assign(clipping=clipped.map({True: "with clipping", False: "without clipping"}))
    drawn = runs[runs["learning_rate"] == learning_rate]
    if drawn.empty:
        known = ", ".join(f"{rate:g}" for rate in sorted(runs["learning_rate"].unique()))
        raise RequestError(f"no run has learning rate {learning_rate:g}; there are: {known}")
    columns = ["seed", "status", "learning_rate"]
    name = "gradient/global_before"
    frame = required(readings_of(results, name, list(drawn.index), columns), name, "ParameterGradients")
    norms = frame.assign(clipping=frame["key"].map(runs["clipping"]), value=frame["value"].astype(float))
    updates = _by_update(norms)
    ended = norms[norms["status"] == "diverged"].rename(columns={"value": "log10_norm"})
    ended = ended[["clipping", "seed", "key", "step", "log10_norm", "status"]]
    shares = pd.DataFrame(
        {"clipping": words, "learning_rate": rate, **wilson_row(group["status"] == "diverged", "diverged")}
        for (words, rate), group in runs.groupby(["clipping", "learning_rate"])
    ).sort_values("clipping", ascending=False, kind="stable")
    lines = pd.concat([updates, ended.sort_values(["clipping", "seed", "key", "step"])], ignore_index=True)
    data = pd.concat([lines.assign(learning_rate=learning_rate), shares], ignore_index=True)
    threshold = float(runs[THRESHOLD].dropna().astype(float).iloc[0])
    limits, last = _limits(norms["value"]), int(norms["step"].max()) + 1
    with house_style():
        figure, (left, middle, right) = panels(3, height=4.2, share_y=False)
        for axis, words in zip((left, middle), _LINES, strict=True):
            own = drawn[drawn["clipping"] == words]
            _draw_norms(axis, norms[norms["clipping"] == words], limits[1])
            axis.axhline(np.log10(threshold), zorder=5, **BOUND_LINE | {"linewidth": 1.5})
            count = int((own["status"] == "diverged").sum())
            axis.set_title(f"{words}: {count} of {len(own)} diverge", color="0.2")
            axis.set(xscale="log", xlabel="update (logarithmic)", xlim=(0.9, 1.1 * last), ylim=limits)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda update, _: f"{update:g}"))
        middle.tick_params(labelleft=False)
        left.set_ylabel("log₁₀ ‖∂L/∂θ‖ before clipping")
        for words, line in _LINES.items():
            _draw_shares(right, shares[shares["clipping"] == words], line)
        right.set_title("runs that diverged", color="0.2")
        right.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="share of runs", ylim=(-0.05, 1.08))
        rates = sorted(runs["learning_rate"].unique())
        right.set_xticks(rates, [f"{rate:g}" for rate in rates])
        right.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
        right.minorticks_off()
        entries = [
            line_entry("one run", **_RUN),
            line_entry("a run that diverges", **_DIVERGES),
            line_entry("median over runs", **_MEDIAN),
            bound_entry(f"threshold {threshold:g}"),
            *(line_entry(words, markersize=8, **line) for words, line in _LINES.items()),
        ]
        legend_below(figure, entries)
    caption = (
        "Norm of the gradient with respect to all parameters, before clipping, by update (of neighbouring updates, at "
        f"most {STRETCHES} points for each factor of ten, the largest); learning rate {learning_rate:g}, "
        f"{drawn['seed'].nunique()} seeds, the same with and without clipping: each run, and their median. Runs that "
        "diverge end in a cross; what is beyond the panel ends at its border. Right: share of runs whose loss or "
        "gradient became infinite or NaN, with Wilson 95 % intervals."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _limits(values: pd.Series) -> tuple[float, float]:
    finite = values[np.isfinite(values.astype(float))].astype(float)
    low, high = DECADES_SHOWN
    return (low, high) if finite.empty else (max(low, finite.min() - 0.3), min(high, finite.max() + 0.5))


def _by_update(norms: pd.DataFrame) -> pd.DataFrame:
    """Median over runs with its band, and the largest finite norm of any run, at every update."""
    finite = norms.assign(largest=norms["value"].where(np.isfinite(norms["value"])))
    largest = finite.groupby(["clipping", "step"])["largest"].max().reset_index()
    updates = largest.merge(medians_by(norms, ["clipping"], "step"), on=["clipping", "step"], how="left")
    return updates.rename(columns={"runs": "with_norm"}).dropna(subset=["largest", "median"], how="all")


def _stretches(norms: pd.DataFrame) -> pd.DataFrame:
    """The largest norm of each run in each stretch of updates, at its middle. The first update is number 1."""
    update = norms["step"] + 1.0
    stretch = np.floor(STRETCHES * np.log10(update) + 1e-9)
    # The last stretch is cut short, and its few updates would make a dip: they belong to the one before.
    stretch = np.minimum(stretch, stretch.max() - 1)
    middle = np.exp(np.log(update).groupby(stretch).transform("mean"))
    largest = norms.assign(update=middle).groupby(["clipping", "key", "status", "update"])["value"].max()
    return largest.reset_index()


def _draw_norms(axis: Axes, norms: pd.DataFrame, high: float) -> None:
    """One panel: each run, and their median."""
    drawn = _stretches(norms)
    for (key, status), run in drawn.groupby(["key", "status"], sort=False):
        if status != "diverged":
            axis.plot(run["update"], run["value"], **_RUN)
            continue
        axis.plot(run["update"], run["value"], **_DIVERGES | {"marker": ""})
        own = norms[norms["key"] == key]
        known = own[np.isfinite(own["value"])]
        # A run that never had a finite norm ends at the upper border, at its last update.
        step, end = known[["step", "value"]].iloc[-1] if len(known) else (own["step"].max(), np.inf)
        axis.plot(step + 1, min(float(end), high - 0.25), **_DIVERGES | {"linestyle": ""})
    median = medians_by(drawn, ["clipping"], "update")
    axis.plot(median["update"], median["median"], **_MEDIAN)


def _draw_shares(axis: Axes, data: pd.DataFrame, line: dict[str, Any]) -> None:
    # Side by side, so that equal shares can be told apart.
    aside, side = (0.94, "right") if line["marker"] == "o" else (1.06, "left")
    across = data["learning_rate"].to_numpy(float) * aside
    bars = {"elinewidth": 2, "capsize": 4, "markersize": 8, "mec": "white"}
    points_with_intervals(axis, across, data, "share", "wilson_low", "wilson_high", **bars, **line)
    for position, row in zip(across, data.itertuples(), strict=True):
        counts = f"{row.diverged}/{row.runs}"
        axis.text(position, row.wilson_high + 0.02, counts, ha=side, va="bottom", fontsize=9, color=line["color"])
