"""The gradient's norm during training, with and without clipping."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, finished_or_diverged, readings_of, required
from rnnstudy.figures.drawing import median_line, panels, points_with_intervals
from rnnstudy.figures.legend import band_entry, bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, medians_by, wilson_row
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

_MEDIAN: dict[str, Any] = {"color": shade(_COLOUR, 1, 2), "linewidth": 2.0, "zorder": 4}
_LARGEST: dict[str, Any] = {"color": _COLOUR, "linewidth": 0.9, "zorder": 3}
_DIVERGES: dict[str, Any] = {
    "color": "black", "linewidth": 1.2, "linestyle": DASHES[2], "marker": "X", "markersize": 9, "mec": "white",
    "zorder": 6,
}  # fmt: skip


def clipping(results: RunsAndReadings, *, learning_rate: float, keys: Keys = None) -> Picture:
    """Left and middle: log10 of the gradient's norm before clipping at every update, without and with clipping, at one
    learning rate: the median over runs with its band, the largest of all runs, and each run that diverges, up to a
    cross. Right: share of diverged runs against the learning rate, with Wilson intervals.

    The threshold is drawn dashed. The median is that of the runs with a norm at that update, where half of them have
    one (see `medians_by`); the largest norm leaves out norms that are not finite.

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
            _draw_norms(axis, updates[updates["clipping"] == words], ended[ended["clipping"] == words], limits[1])
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
            line_entry("median over runs", **_MEDIAN),
            band_entry(band_words(updates["of_runs"])),
            line_entry("largest of all runs", **_LARGEST),
            line_entry("a run that diverges", **_DIVERGES),
            bound_entry(f"threshold {threshold:g}"),
            *(line_entry(words, markersize=8, **line) for words, line in _LINES.items()),
        ]
        legend_below(figure, entries)
    caption = (
        f"Norm of the gradient with respect to all parameters, before clipping, at every update; learning rate "
        f"{learning_rate:g}, {drawn['seed'].nunique()} seeds, the same with and without clipping: the median over runs,"
        " the largest norm of any run, and the runs that diverge, each up to a cross; what is beyond the panel ends at "
        "its border. Right: share of runs whose loss or gradient became infinite or NaN, with Wilson "
        "95 % intervals."
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


def _draw_norms(axis: Axes, updates: pd.DataFrame, ended: pd.DataFrame, high: float) -> None:
    """One panel: the median with its band, the largest norm, the runs that diverge. The first update is number 1."""
    counted_from_one = updates.assign(update=updates["step"] + 1)
    axis.plot(counted_from_one["update"], counted_from_one["largest"], **_LARGEST)
    median_line(axis, counted_from_one, "update", alpha=0.15, **_MEDIAN)
    for _, run in ended.groupby("key", sort=False):
        axis.plot(run["step"] + 1, run["log10_norm"], **_DIVERGES | {"marker": ""})
        known = run[np.isfinite(run["log10_norm"])]
        # A run that never had a finite norm ends at the upper border, at its last update.
        step, end = known[["step", "log10_norm"]].iloc[-1] if len(known) else (run["step"].max(), np.inf)
        axis.plot(step + 1, min(float(end), high - 0.25), **_DIVERGES | {"linestyle": ""})


def _draw_shares(axis: Axes, data: pd.DataFrame, line: dict[str, Any]) -> None:
    # Side by side, so that equal shares can be told apart.
    aside, side = (0.94, "right") if line["marker"] == "o" else (1.06, "left")
    across = data["learning_rate"].to_numpy(float) * aside
    bars = {"elinewidth": 2, "capsize": 4, "markersize": 8, "mec": "white"}
    points_with_intervals(axis, across, data, "share", "wilson_low", "wilson_high", **bars, **line)
    for position, row in zip(across, data.itertuples(), strict=True):
        counts = f"{row.diverged}/{row.runs}"
        axis.text(position, row.wilson_high + 0.02, counts, ha=side, va="bottom", fontsize=9, color=line["color"])
