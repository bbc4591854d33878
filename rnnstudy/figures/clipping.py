"""The gradient's norm during training, with and without clipping."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, finished_or_diverged, readings_of, required
from rnnstudy.figures.drawing import panels, points_with_intervals
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson_row
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


def clipping(results: RunsAndReadings, *, learning_rate: float, keys: Keys = None) -> Picture:
    """Left and middle: log10 of the gradient's norm before clipping at every update, without and with clipping, a line
    for each run, at one learning rate. Right: share of diverged runs against the learning rate, with Wilson intervals.

    A cross stands where a run diverges; the threshold is drawn dashed.

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
    norms = frame.assign(clipping=frame["key"].map(runs["clipping"])).rename(columns={"value": "log10_norm"})
    norms = norms[["clipping", "learning_rate", "seed", "key", "step", "log10_norm", "status"]]
    shares = pd.DataFrame(
        {"clipping": words, "learning_rate": rate, **wilson_row(group["status"] == "diverged", "diverged")}
        for (words, rate), group in runs.groupby(["clipping", "learning_rate"])
    ).sort_values("clipping", ascending=False, kind="stable")
    data = pd.concat([norms.sort_values(["clipping", "seed", "key", "step"]), shares], ignore_index=True)
    threshold = float(runs[THRESHOLD].dropna().astype(float).iloc[0])
    last = int(norms["step"].max())
    with house_style():
        figure, (left, middle, right) = panels(3, height=4.2, share_y=False)
        for axis, words in zip((left, middle), _LINES, strict=True):
            chosen = norms[norms["clipping"] == words]
            count = _draw_norms(axis, chosen)
            axis.axhline(np.log10(threshold), zorder=5, **BOUND_LINE | {"linewidth": 1.5})
            axis.set_title(f"{words}: {count} of {chosen['key'].nunique()} diverge", color="0.2")
            axis.set(xlabel="training step (updates made)", xlim=(-0.02 * last, 1.02 * last))
            axis.set_ylim(_limits(norms["log10_norm"]))
        middle.set_yticklabels([])
        left.set_ylabel("log₁₀ ‖∂L/∂θ‖ before clipping")
        for words, line in _LINES.items():
            _draw_shares(right, shares[shares["clipping"] == words], line)
        right.set_title("runs that diverged", color="0.2")
        right.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="share of runs", ylim=(-0.05, 1.08))
        rates = sorted(runs["learning_rate"].unique())
        right.set_xticks(rates, [f"{rate:g}" for rate in rates])
        right.minorticks_off()
        entries = [
            line_entry("one run (RNN, relu)", color=_COLOUR, linewidth=1.2),
            line_entry("diverges", color="black", linestyle="", marker="X", markersize=9),
            bound_entry(f"threshold {threshold:g}"),
            *(line_entry(words, markersize=8, **line) for words, line in _LINES.items()),
        ]
        legend_below(figure, entries)
    caption = (
        f"Norm of the gradient with respect to all parameters, before clipping, at every update; learning rate "
        f"{learning_rate:g}, {drawn['seed'].nunique()} seeds, the same with and without clipping; a spike beyond the "
        "panel ends at its border. Right: share of runs whose loss or gradient became infinite or NaN, with Wilson "
        "95 % intervals."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _limits(values: pd.Series) -> tuple[float, float]:
    finite = values[np.isfinite(values.astype(float))].astype(float)
    low, high = DECADES_SHOWN
    return (low, high) if finite.empty else (max(low, finite.min() - 0.3), min(high, finite.max() + 0.5))


def _draw_norms(axis: Axes, data: pd.DataFrame) -> int:
    """The lines of one panel; returns the number of runs that diverge."""
    keys = list(dict.fromkeys(data["key"]))
    _, high = _limits(data["log10_norm"])
    diverged = 0
    for number, key in enumerate(keys):
        run = data[data["key"] == key]
        colour = shade(_COLOUR, number, len(keys))
        axis.plot(run["step"], run["log10_norm"], color=colour, linewidth=0.8, alpha=0.8)
        if (run["status"] == "diverged").any():
            diverged += 1
            known = run[np.isfinite(run["log10_norm"].astype(float))]
            # A run that never had a finite norm ends at the upper border, at its last update.
            step, end = known[["step", "log10_norm"]].iloc[-1] if len(known) else (run["step"].max(), np.inf)
            looks = {"marker": "X", "color": "black", "markersize": 9, "mec": "white", "zorder": 6}
            axis.plot(step, min(float(end), high - 0.25), **looks)
    return diverged


def _draw_shares(axis: Axes, data: pd.DataFrame, line: dict[str, Any]) -> None:
    # Side by side, so that equal shares can be told apart.
    aside, side = (0.94, "right") if line["marker"] == "o" else (1.06, "left")
    across = data["learning_rate"].to_numpy(float) * aside
    bars = {"elinewidth": 2, "capsize": 4, "markersize": 8, "mec": "white"}
    points_with_intervals(axis, across, data, "share", "wilson_low", "wilson_high", **bars, **line)
    for position, row in zip(across, data.itertuples(), strict=True):
        counts = f"{row.diverged}/{row.runs}"
        axis.text(position, row.wilson_high + 0.02, counts, ha=side, va="bottom", fontsize=9, color=line["color"])
