"""How long the gradient lives, against the bias of the gate that carries it."""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.house import BOUND, legend_below, look, panels, style
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.selection import Results, judged
from rnnstudy.figures.statistics import band_words, counted, median_and_band
from rnnstudy.spec import SpecError


def half_life_of_bias(bias: np.ndarray) -> np.ndarray:
    """log 2/(−log σ(b)) in steps: the half-life of a cell state whose forget gate is σ(b) at every step."""
    return np.log(2) / np.logaddexp(0, -np.asarray(bias, dtype=np.float64))


def half_life_by_bias(
    results: Results,
    bias: str,
    *,
    longest: int | None = None,
    states: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Half-life of the gradient through time against the forget-gate bias, before training and after.

    Each run is a dot; the mark is the median over runs with its band. The line is `half_life_of_bias`. A gradient that
    does not fall has no half-life: how many runs that are stands in the table and at the upper border.

    Args:
        bias: the column of `results.runs` that holds the bias. Runs without one were initialised by chrono.
        longest: chrono's T_max; draws its runs and the range of half-lives of its units beside the biases.
        states: state to the column that holds its half-life, without the stage; c and h by default.
        keys: the runs to draw; all by default.

    Raises `SpecError` when the runs have no such columns.
    """
    runs = judged(results, keys)
    states = states or {"c": "half_life_{stage}_c", "h": "half_life_{stage}"}
    stages = {"initial": "before training", "final": "after training"}
    columns = {(stage, state): column.format(stage=stage) for stage in stages for state, column in states.items()}
    missing = [column for column in (bias, *columns.values()) if column not in runs.columns]
    if missing:
        raise SpecError(f"the runs have no column '{missing[0]}'; add the probe GradientThroughTime to the runs")
    given = runs[bias].astype(float)
    biases = sorted(given.dropna().unique())
    beside = biases[-1] + 1.5
    rows = []
    for (stage, state), column in columns.items():
        for value in (*biases, *([np.nan] if longest else [])):
            group = runs[given.isna() if np.isnan(value) else given == value][column].astype(float)
            if group.empty:
                continue
            # A run whose gradient does not fall lives for ever: it ranks highest, and is no number.
            endless = group.isna().to_numpy()
            found = np.where(endless, np.inf, group.to_numpy(float))
            finite = found[np.isfinite(found)]
            median, low, high = median_and_band(finite[:, None]) if len(finite) else (np.array([np.nan]),) * 3
            rows.append({"stage": stage, "state": state, "bias": value, "rule": "chrono" if np.isnan(value) else "bias",
                         "median": median[0], "low": low[0], "high": high[0], "runs": len(finite),
                         "without_half_life": int(endless.sum())})  # fmt: skip
    data = pd.DataFrame(rows)
    line = np.linspace(biases[0] - 0.4, biases[-1] + 0.4, 200)
    colour = style("LSTM").colour
    look_of = {"c": ("o", colour, colour, -0.09), "h": ("D", "white", colour, 0.09)}
    fewest, most = int(data["runs"].min()), int(data["runs"].max())
    with look():
        figure, axes = panels(2, height=4.4)
        for axis, (stage, title) in zip(axes, stages.items(), strict=True):
            axis.plot(line, half_life_of_bias(line), color=BOUND, linestyle=(0, (4, 2)), linewidth=1.5)
            if longest:
                # b_f = log u with u on [1, longest − 1]: f = u/(1 + u).
                ends = half_life_of_bias(np.log([1.0, longest - 1.0]))
                axis.plot([beside, beside], ends, color="0.75", linewidth=9, solid_capstyle="butt", zorder=1)
            for state in states:
                marker, face, edge, shift = look_of.get(state, ("s", "0.8", colour, 0.2))
                chosen = data[(data["stage"] == stage) & (data["state"] == state)]
                for row in chosen.itertuples():
                    x = (beside if row.rule == "chrono" else row.bias) + shift
                    of_rule = given.isna() if row.rule == "chrono" else given == row.bias
                    dots = runs[of_rule][columns[stage, state]].astype(float).dropna()
                    axis.plot(np.full(len(dots), x), dots, ".", color=edge, alpha=0.3, mew=0, zorder=2)
                    axis.plot([x, x], [row.low, row.high], color=edge, linewidth=2, zorder=3)
                    axis.plot(x, row.median, marker=marker, mfc=face, mec=edge, mew=1.6, markersize=8, zorder=4)
            axis.set(yscale="log", title=title, xlabel="forget-gate bias b at the start")
            shown = [f"{value:g}" for value in biases]
            axis.set_xticks([*biases, *([beside] if longest else [])], [*shown, *(["chrono"] if longest else [])])
        axes[0].set_ylabel("half-life of the gradient (steps, log scale)")
        handles = [
            Line2D([], [], marker=look_of.get(s, ("s", "0.8", colour, 0.2))[0], mfc=look_of.get(s, ("s", "0.8"))[1],
                   mec=colour, mew=1.6, linestyle="", markersize=8, label=f"dL/d{s}") for s in states
        ]  # fmt: skip
        handles.append(Line2D([], [], color=BOUND, linestyle=(0, (4, 2)), label="log 2/(−log σ(b))"))
        if longest:
            handles.append(Patch(facecolor="0.75", label="the same for chrono's units"))
        legend_below(figure, handles)
    band = band_words(fewest, most)
    without = data.groupby("stage")["without_half_life"].sum()
    caption = (
        f"Half-life of the gradient through time (from the slope of its profile over all lags), LSTM, T = "
        f"{', '.join(str(one) for one in sorted(runs['length'].unique()))}. Large marks: median over "
        f"{counted(fewest, most)}, bar: {band}; dots: runs. A gradient that does not fall has no half-life and is left "
        f"out: {without.get('initial', 0)} readings before training, {without.get('final', 0)} after."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)
