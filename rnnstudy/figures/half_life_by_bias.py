"""How long the gradient lives, against the bias of the gate that carries it."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from rnnstudy.figures.chosen_runs import Results, judged
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_and_band
from rnnstudy.figures.style import BOUND, house_style, legend_below, panels, style
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
    """Half-life of the gradient through time against the forget-gate bias, before training and after.

    The half-life is log10 2 over the rate at which the gradient falls, in steps, on a logarithmic axis. A gradient that
    does not fall has none, and stands in a strip at the top. Each run is a dot; the mark is the half-life of the median
    rate over runs, with the band of that median. Lines: a constant forget gate σ(b), and σ(b) + `loop`; see
    `half_life_of_bias`.

    Args:
        bias: the column of `results.runs` that holds the bias. Runs without one were initialised by chrono.
        loop: i o ρ of the initialisation.
        longest: chrono's T_max; draws its runs, and the range of its units' half-lives, beside the biases.
        keys: the runs to draw; all by default.

    Raises `SpecError` when the runs have no such columns, or none of them has a bias.
    """
    runs = judged(results, keys)
    missing = [column for column in (bias, *_COLUMNS.values()) if column not in runs.columns]
    if missing:
        raise SpecError(f"the runs have no column '{missing[0]}'; add the probe GradientThroughTime to the runs")
    given = runs[bias].astype(float)
    biases = sorted(given.dropna().unique())
    if not biases:
        raise SpecError(f"no run has a forget-gate bias of its own in {bias}; add runs with ForgetBias")
    places = {f"{value:g}": value for value in biases} | ({_CHRONO: biases[-1] + 1.3} if longest else {})
    starts = given.map(lambda value: _CHRONO if np.isnan(value) else f"{value:g}")
    rates = pd.concat(
        [
            pd.DataFrame({"stage": stage, "state": state, "start": starts, "rate": runs[column].astype(float)})
            for (stage, state), column in _COLUMNS.items()
        ]
    ).dropna(subset=["rate"])
    rates = rates[rates["start"].isin(places)]
    data = _medians(rates, places)
    fewest, most = int(data["runs"].min()), int(data["runs"].max())
    line = np.linspace(biases[0] - 0.4, biases[-1] + 0.4, 400)
    with house_style():
        figure, axes = panels(2, height=4.9)
        figure.set_figwidth(9.6)
        floor, top = _span(rates, longest)
        ceiling = top * (top / floor) ** _STRIP
        nowhere = float(np.sqrt(top * ceiling))
        for axis, (stage, title) in zip(axes, _STAGES.items(), strict=True):
            _closed_forms(axis, line, loop, top, nowhere)
            if longest:
                # b_f = log u with u on [1, longest − 1]: f = u/(1 + u).
                ends = half_life_of_bias(np.log([1.0, longest - 1.0]))
                axis.plot([places[_CHRONO]] * 2, ends, color="0.8", linewidth=13, solid_capstyle="butt", zorder=1)
            for state in _MARKS:
                chosen = (one[(one["stage"] == stage) & (one["state"] == state)] for one in (rates, data))
                _runs_of_state(axis, *chosen, state, places, nowhere)
            _half_life_axis(axis, floor, top, ceiling)
            axis.set(title=title, xlabel="forget-gate bias b at the start")
            axis.set_xticks(list(places.values()), list(places))
        axes[0].set_ylabel("half-life of dL/dcₜ and dL/dhₜ\n(steps back, logarithmic)")
        legend_below(figure, _handles(longest))
    caption = (
        f"In how many steps back the gradient through time halves (from the slope of its profile over all lags), LSTM, "
        f"T = {', '.join(str(one) for one in sorted(runs['length'].unique()))}. In the strip at the top: slopes of "
        f"0 or more, a gradient that does not fall. Large marks: of the median slope over {counted(fewest, most)}, "
        f"bar: {band_words(fewest, most)}; dots: runs. Lines, closed forms: a constant gate, log 2/(−log σ(b)), and "
        f"the same with σ(b) + {loop:.3f}, the way back to the cell through h near c = h = 0."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


_CHRONO = "chrono"
_STAGES = {"initial": "before training", "final": "after training"}
_COLUMNS = {(stage, state): f"rate_{stage}{end}" for stage in _STAGES for state, end in (("c", "_c"), ("h", ""))}

_MARKS = {"c": ("o", style("LSTM").colour, -0.16), "h": ("D", "white", 0.16)}
"""Marker, its face, and how far it stands beside the bias."""

_STRIP = 0.1
"""The height of the strip of what does not fall, relative to the logarithmic axis below it."""


def _half_lives(rates: np.ndarray | float) -> np.ndarray:
    """log10 2 over −rate, in steps; infinite where the rate is not below 0."""
    rate = np.asarray(rates, dtype=np.float64)
    return np.where(rate < 0, np.log10(2) / -np.where(rate < 0, rate, -1.0), np.inf)


def _medians(rates: pd.DataFrame, places: Mapping[str, float]) -> pd.DataFrame:
    """Median and band over runs of the rate and of the half-life, by stage, state and start, in a fixed order."""
    rows = []
    for stage, state in _COLUMNS:
        for start, place in places.items():
            of_place = (rates["stage"] == stage) & (rates["state"] == state) & (rates["start"] == start)
            group = rates[of_place]["rate"].to_numpy(float)
            if not len(group):
                continue
            median, low, high = (float(part[0]) for part in median_and_band(group[:, None]))
            lives = (float(_half_lives(rate)) for rate in (median, low, high))
            values = zip(("half_life", "half_life_low", "half_life_high"), lives, strict=True)
            rows.append(
                {"stage": stage, "state": state, "start": start, "place": place, "rate": median, "low": low,
                 "high": high, **dict(values), "runs": len(group)}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _span(rates: pd.DataFrame, longest: int | None) -> tuple[float, float]:
    """From where to where half-lives are drawn; the strip begins at the end."""
    lives = _half_lives(rates["rate"].to_numpy(float))
    finite = lives[np.isfinite(lives)]
    chrono = list(half_life_of_bias(np.log([1.0, longest - 1.0]))) if longest else [1.0]
    everything = [*finite, *chrono]
    return 0.7 * min(everything), 1.6 * max(everything)


def _height(lives: np.ndarray, nowhere: float) -> np.ndarray:
    """Where half-lives stand; at `nowhere`, in the middle of the strip, where there is none."""
    return np.where(np.isfinite(lives), lives, nowhere)


def _closed_forms(axis: Axes, line: np.ndarray, loop: float, top: float, nowhere: float) -> None:
    for gain, dash, width in ((0.0, _GATE, 1.5), (loop, _LOOP, 1.8)):
        lives = half_life_of_bias(line, gain)
        # Beyond the axis a line ends at the strip; it enters it where the closed form grows.
        axis.plot(line, np.where(lives < top, lives, np.nan), color=BOUND, linestyle=dash, linewidth=width)
        axis.plot(line, np.where(np.isinf(lives), nowhere, np.nan), color=BOUND, linestyle=dash, linewidth=width)


def _runs_of_state(
    axis: Axes, rates: pd.DataFrame, data: pd.DataFrame, state: str, places: Mapping[str, float], nowhere: float
) -> None:
    """Every run as a dot; median and band over runs, of one state and stage."""
    marker, face, shift = _MARKS[state]
    colour = style("LSTM").colour
    for start, group in rates.groupby("start"):
        # On the outer side of the mark, so that it hides none of them.
        x = places[str(start)] + 2.2 * shift
        lives = _height(_half_lives(group["rate"].to_numpy(float)), nowhere)
        axis.plot(np.full(len(lives), x), lives, ".", color=colour, alpha=0.45, mew=0, markersize=8, zorder=2)
    for row in data.itertuples():
        x = row.place + shift
        ends = _height(np.array([row.half_life_low, row.half_life_high]), nowhere)
        axis.plot([x, x], ends, color=colour, linewidth=2.4, zorder=3)
        middle = _height(np.array(row.half_life), nowhere)
        axis.plot(x, middle, marker=marker, mfc=face, mec=colour, mew=1.6, markersize=8, zorder=3.2)


def _half_life_axis(axis: Axes, floor: float, top: float, ceiling: float) -> None:
    """Logarithmic up to `top`; from there to `ceiling` the strip of gradients that do not fall."""
    axis.set_yscale("log")
    axis.set_ylim(floor, ceiling)
    axis.axhspan(top, ceiling, color="0.93", linewidth=0, zorder=0)
    axis.axhline(top, color=BOUND, linewidth=1)
    # None so near to the strip that their words would meet.
    ticks = [step for step in _TICKS if floor <= step < top / (top / floor) ** 0.05]
    axis.set_yticks([*ticks, float(np.sqrt(top * ceiling))], [*(f"{step:,g}" for step in ticks), "does not fall"])
    axis.yaxis.set_minor_locator(NullLocator())


_TICKS = [digit * 10.0**power for power in range(-1, 7) for digit in (1, 3)]
_GATE, _LOOP = (0, (4, 2)), (0, (1, 1.4))


def _handles(longest: int | None) -> list[Line2D | Patch]:
    colour = style("LSTM").colour
    handles: list[Line2D | Patch] = [
        Line2D([], [], marker=marker, mfc=face, mec=colour, mew=1.6, linestyle="", markersize=8, label=f"dL/d{state}")
        for state, (marker, face, _) in _MARKS.items()
    ]
    handles.append(
        Line2D([], [], color=colour, alpha=0.5, marker=".", markersize=9, mew=0, linestyle="", label="one run")
    )
    handles.append(Line2D([], [], color=BOUND, linestyle=_GATE, label="constant gate, σ(b)"))
    handles.append(Line2D([], [], color=BOUND, linestyle=_LOOP, label="with the loop through h"))
    if longest:
        handles.append(Patch(facecolor="0.8", label="chrono's units, gate alone"))
    return handles
