"""How long the gradient lives, against the bias of the gate that carries it."""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.house import BOUND, legend_below, look, panels, style
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.selection import Results, judged
from rnnstudy.figures.statistics import band_words, counted, median_and_band
from rnnstudy.spec import SpecError


def half_life_of_bias(bias: np.ndarray, loop: float = 0.0) -> np.ndarray:
    """log 2/(−log λ) in steps, with λ = σ(b) + `loop`: infinite where λ ≥ 1.

    With `loop` 0, the half-life of a cell state whose forget gate is σ(b) at every step. A loop adds what comes back to
    the cell through h: near c = h = 0, ∂c_t/∂c_{t−1} is σ(b) I + i o W_hh^C̃, so that λ = σ(b) + i o ρ with ρ the
    spectral radius of that block, where its outermost eigenvalue is real.
    """
    factor = np.exp(-np.logaddexp(0, -np.asarray(bias, dtype=np.float64))) + loop
    falling = factor < 1
    return np.where(falling, np.log(2) / -np.log(np.where(falling, factor, 0.5)), np.inf)


def half_life_by_bias(
    results: Results,
    bias: str,
    *,
    loop: float,
    longest: int | None = None,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Rate of the gradient through time against the forget-gate bias, with half-lives on the right; before and after.

    The rate (decades per step, the slope of the profile over all lags) exists also where a gradient grows and has no
    half-life. Each run is a dot, the mark is the median over runs with its band. Lines: log10 σ(b), a constant forget
    gate, and log10(σ(b) + `loop`); see `half_life_of_bias`.

    Args:
        bias: the column of `results.runs` that holds the bias. Runs without one were initialised by chrono.
        loop: i o ρ of the initialisation.
        longest: chrono's T_max; draws its runs, and the range of its units' rates, beside the biases.
        keys: the runs to draw; all by default.

    Raises `SpecError` when the runs have no such columns.
    """
    runs = judged(results, keys)
    stages = {"initial": "before training", "final": "after training"}
    columns = {(stage, state): f"rate_{stage}{end}" for stage in stages for state, end in (("c", "_c"), ("h", ""))}
    missing = [column for column in (bias, *columns.values()) if column not in runs.columns]
    if missing:
        raise SpecError(f"the runs have no column '{missing[0]}'; add the probe GradientThroughTime to the runs")
    given = runs[bias].astype(float)
    biases = sorted(given.dropna().unique())
    places = {**{value: value for value in biases}, **({np.inf: biases[-1] + 1.3} if longest else {})}
    rows = []
    for (stage, state), column in columns.items():
        for value in places:
            group = runs[given.isna() if np.isinf(value) else given == value][column].astype(float).dropna()
            if len(group):
                median, low, high = (float(part[0]) for part in median_and_band(group.to_numpy(float)[:, None]))
                rows.append({"stage": stage, "state": state, "start": "chrono" if np.isinf(value) else f"{value:g}",
                             "place": places[value], "rate": median, "low": low, "high": high,
                             "half_life": np.log10(2) / -median if median < 0 else np.inf,
                             "runs": len(group)})  # fmt: skip
    data = pd.DataFrame(rows)
    line = np.linspace(biases[0] - 0.4, biases[-1] + 0.4, 200)
    gate = 1 / (1 + np.exp(-line))
    colour = style("LSTM").colour
    marks = {"c": ("o", colour, -0.09), "h": ("D", "white", 0.09)}
    fewest, most = int(data["runs"].min()), int(data["runs"].max())
    with look():
        figure, axes = panels(2, height=4.6)
        figure.set_figwidth(9.6)
        for axis, (stage, title) in zip(axes, stages.items(), strict=True):
            axis.axhline(0, color=BOUND, linewidth=1)
            axis.plot(line, np.log10(gate), color=BOUND, linestyle=(0, (4, 2)), linewidth=1.5)
            axis.plot(line, np.log10(gate + loop), color=BOUND, linestyle=(0, (1, 1.4)), linewidth=1.8)
            if longest:
                # b_f = log u with u on [1, longest − 1]: f = u/(1 + u).
                ends = [np.log10(0.5), np.log10((longest - 1) / longest)]
                axis.plot([places[np.inf]] * 2, ends, color="0.8", linewidth=11, solid_capstyle="butt", zorder=1)
            for state, (marker, face, shift) in marks.items():
                for row in data[(data["stage"] == stage) & (data["state"] == state)].itertuples():
                    x = row.place + shift
                    of_start = given.isna() if row.start == "chrono" else given.map("{:g}".format) == row.start
                    dots = runs[of_start][columns[stage, state]].astype(float).dropna()
                    axis.plot(np.full(len(dots), x), dots, ".", color=colour, alpha=0.3, mew=0, zorder=2)
                    axis.plot([x, x], [row.low, row.high], color=colour, linewidth=2, zorder=3)
                    axis.plot(x, row.rate, marker=marker, mfc=face, mec=colour, mew=1.6, markersize=8, zorder=4)
            axis.set(title=title, xlabel="forget-gate bias b at the start")
            axis.set_xticks(list(places.values()), [f"{v:g}" if np.isfinite(v) else "chrono" for v in places])
        axes[0].set_ylabel("rate of dL/dcₜ and dL/dhₜ\n(decades per step back)")
        beside = axes[-1].twinx()
        beside.set_ylim(axes[-1].get_ylim())
        steps = [1, 2, 5]
        beside.set_yticks([*(-np.log10(2) / np.array(steps)), 0.0], [*map(str, steps), "∞"])
        beside.set_ylabel("half-life (steps)")
        beside.grid(False)
        beside.spines["right"].set_visible(True)
        handles = [
            Line2D([], [], marker=marker, mfc=face, mec=colour, mew=1.6, linestyle="", markersize=8, label=f"dL/d{s}")
            for s, (marker, face, _) in marks.items()
        ]
        handles.append(Line2D([], [], color=BOUND, linestyle=(0, (4, 2)), label="constant gate, σ(b)"))
        handles.append(Line2D([], [], color=BOUND, linestyle=(0, (1, 1.4)), label="with the loop through h"))
        if longest:
            handles.append(Patch(facecolor="0.8", label="chrono's units, gate alone"))
        legend_below(figure, handles)
    caption = (
        f"How fast the gradient through time falls on its way back (slope of its profile over all lags), LSTM, T = "
        f"{', '.join(str(one) for one in sorted(runs['length'].unique()))}; below 0 it vanishes, above it grows. Large "
        f"marks: median over {counted(fewest, most)}, bar: {band_words(fewest, most)}; dots: runs. Lines, closed "
        f"forms: log₁₀ σ(b), and log₁₀(σ(b) + {loop:.3f}) with the way back to the cell through h near c = h = 0."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)
