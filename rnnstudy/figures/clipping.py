"""The gradient's norm during training, with and without clipping."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import Results, judged, with_runs
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import wilson_row
from rnnstudy.figures.style import BOUND, house_style, legend_below, panels, shade, style
from rnnstudy.spec import SpecError

CLIP, THRESHOLD = "training.clip", "training.clip.threshold"

DECADES_SHOWN = (-3.0, 8.0)
"""What the axis of the norms spans at most, in log10; higher spikes end at its upper border."""

_WITHOUT, _WITH = "without clipping", "with clipping"


def clipping(results: Results, *, learning_rate: float, keys: Sequence[str] | None = None) -> Picture:
    """Left and middle: log10 of the gradient's norm before clipping at every update, without and with clipping, a line
    for each run, at one learning rate. Right: share of diverged runs against the learning rate, with Wilson intervals.

    A cross stands where a run diverges; the threshold is drawn dashed.

    Raises `SpecError` when the runs lack one of the two, or the reading `gradient/global_before`.
    """
    runs = judged(results, keys)
    runs = runs.assign(clipped=_clipped(runs))
    if runs["clipped"].nunique() < 2:
        raise SpecError("clipping compares runs with and without training.clip; these are all of one kind")
    drawn = runs[runs["learning_rate"] == learning_rate]
    if drawn.empty:
        known = ", ".join(f"{rate:g}" for rate in sorted(runs["learning_rate"].unique()))
        raise SpecError(f"no run has learning rate {learning_rate:g}; there are: {known}")
    frame = with_runs(results, "gradient/global_before", list(drawn.index), ["seed", "status", "learning_rate"])
    if frame.empty:
        raise SpecError("no run has a reading gradient/global_before; add the probe ParameterGradients to the runs")
    norms = frame.assign(
        clipping=frame["key"].map(drawn["clipped"]).map({True: _WITH, False: _WITHOUT}), log10_norm=frame["value"]
    )[["clipping", "learning_rate", "seed", "key", "step", "log10_norm", "status"]]
    shares = _shares(runs)
    rows = [norms.sort_values(["clipping", "seed", "key", "step"]), shares]
    data = pd.concat(rows, ignore_index=True)
    threshold = float(runs[THRESHOLD].dropna().astype(float).iloc[0])
    last = int(norms["step"].max())
    with house_style():
        figure, (left, middle, right) = panels(3, height=4.2, share_y=False)
        for axis, words in ((left, _WITHOUT), (middle, _WITH)):
            chosen = norms[norms["clipping"] == words]
            count = _norms(axis, chosen, last)
            axis.axhline(np.log10(threshold), color=BOUND, linestyle=(0, (4, 2)), linewidth=1.5, zorder=5)
            axis.set_title(f"{words}: {count} of {chosen['key'].nunique()} diverge", color="0.2")
            axis.set(xlabel="training step (updates made)", xlim=(-0.02 * last, 1.02 * last))
            axis.set_ylim(_limits(norms["log10_norm"]))
        middle.set_yticklabels([])
        left.set_ylabel("log₁₀ ‖∂L/∂θ‖ before clipping")
        for words, line in _LINES.items():
            _share_line(right, shares[shares["clipping"] == words], line)
        right.set_title("runs that diverged", color="0.2")
        right.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="share of runs", ylim=(-0.05, 1.08))
        rates = sorted(runs["learning_rate"].unique())
        right.set_xticks(rates, [f"{rate:g}" for rate in rates])
        right.minorticks_off()
        handles = [
            Line2D([], [], color=style("Elman").colour, linewidth=1.2, label="one run (RNN, relu)"),
            Line2D([], [], color="black", linestyle="", marker="X", markersize=9, label="diverges"),
            Line2D([], [], color=BOUND, linestyle=(0, (4, 2)), label=f"threshold {threshold:g}"),
            *(Line2D([], [], label=words, markersize=8, **line) for words, line in _LINES.items()),
        ]
        legend_below(figure, handles)
    caption = (
        f"Norm of the gradient with respect to all parameters, before clipping, at every update; learning rate "
        f"{learning_rate:g}, {drawn['seed'].nunique()} seeds, the same with and without clipping; a spike beyond the "
        "panel ends at its border. Right: share of runs whose loss or gradient left the finite numbers, with Wilson "
        "95 % intervals."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


_LINES: dict[str, dict[str, Any]] = {
    _WITHOUT: {"color": shade(style("Elman").colour, 1, 2), "marker": "o", "linestyle": "-"},
    _WITH: {"color": shade(style("Elman").colour, 0, 2), "marker": "^", "linestyle": (0, (5, 1.6))},
}


def _clipped(runs: pd.DataFrame) -> pd.Series:
    if THRESHOLD not in runs:
        return pd.Series(False, index=runs.index)
    return runs[THRESHOLD].notna()


def _limits(values: pd.Series) -> tuple[float, float]:
    finite = values[np.isfinite(values.astype(float))].astype(float)
    low, high = DECADES_SHOWN
    if finite.empty:
        return low, high
    return max(low, float(finite.min()) - 0.3), min(high, float(finite.max()) + 0.5)


def _norms(axis: Axes, data: pd.DataFrame, last: int) -> int:
    """The lines of one panel; gives the number of runs that diverge."""
    keys = list(dict.fromkeys(data["key"]))
    _, high = _limits(data["log10_norm"])
    diverged = 0
    for place, key in enumerate(keys):
        one = data[data["key"] == key]
        axis.plot(
            one["step"],
            one["log10_norm"],
            color=shade(style("Elman").colour, place, len(keys)),
            linewidth=0.8,
            alpha=0.8,
        )
        if (one["status"] == "diverged").any():
            diverged += 1
            known = one[np.isfinite(one["log10_norm"].astype(float))]
            # A run that never had a finite norm ends at the upper border, at the last update it made.
            step, end = known[["step", "log10_norm"]].iloc[-1] if len(known) else (one["step"].max(), np.inf)
            axis.plot(
                step, min(float(end), high - 0.25), marker="X", color="black", markersize=9, mec="white", zorder=6
            )
    return diverged


def _shares(runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (clipped, rate), group in runs.groupby(["clipped", "learning_rate"]):
        counts = wilson_row(group["status"] == "diverged", "diverged")
        rows.append({"clipping": _WITH if clipped else _WITHOUT, "learning_rate": rate, **counts})
    return pd.DataFrame(rows)


def _share_line(axis: Axes, data: pd.DataFrame, line: dict[str, Any]) -> None:
    # Beside one another, so that equal shares can be told apart.
    aside = 0.94 if line["marker"] == "o" else 1.06
    across = data["learning_rate"].to_numpy(float) * aside
    share, low, high = (data[name].to_numpy(float) for name in ("share", "wilson_low", "wilson_high"))
    bars = np.clip([share - low, high - share], 0, None)
    axis.errorbar(across, share, bars, elinewidth=2, capsize=4, markersize=8, mec="white", **line)
    side = "right" if line["marker"] == "o" else "left"
    for place, top, diverged, count in zip(across, high, data["diverged"], data["runs"], strict=True):
        axis.text(place, top + 0.02, f"{diverged}/{count}", ha=side, va="bottom", fontsize=9, color=line["color"])
