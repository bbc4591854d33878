"""The half-life of the gradient through time, against the bias of the forget gate."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, finished_or_diverged, ordered, require_columns
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.half_life import half_life_of_bias, half_life_of_rate
from rnnstudy.figures.legend import legend_below, line_entry, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_of
from rnnstudy.figures.style import BOUND, DASHED, house_style, style
from rnnstudy.spec import RequestError

_CHRONO = "chrono"
_COLUMNS = {stage: f"rate_{stage}_c" for stage in STAGES}
_COLOUR = style("LSTM").colour
_TICKS = [digit * 10.0**power for power in range(-1, 7) for digit in (1, 3)]
_LOOP = (0, (1, 1.4))

_ASIDE = 0.24
"""How far from the mark of the median the dots of the runs stand."""

_STRIP = 0.2
"""The height of the strip for gradients that do not fall, relative to the logarithmic axis below it."""


def half_life_by_bias(
    results: RunsAndReadings, bias: str, *, loop: float, longest: int | None = None, keys: Keys = None
) -> Picture:
    """Half-life of the gradient at the cell state against the forget-gate bias, before training and after.

    The half-life is log10 2 over the rate at which the gradient dL/dc_t falls, in steps, on a logarithmic axis. Each
    run is a dot; the mark is the half-life of the median rate over runs, with the band of that median. A gradient that
    does not fall has no half-life: such runs are counted in a strip at the top, where a median of theirs stands, too.
    Lines: a constant forget gate σ(b), and σ(b) + `loop`; see
    `half_life_of_bias`.

    Args:
        bias: the column of `results.runs` that holds the bias. Runs without one were initialised by chrono.
        loop: i o ρ of the initialisation.
        longest: chrono's T_max; draws its runs, and the range of its units' half-lives, beside the biases.
        keys: the runs to draw; all by default.

    Raises `RequestError` when the runs have no such columns, or none of them has a bias.
    """
    runs = finished_or_diverged(results, keys)
    advice = "; add the probe GradientThroughTime to the runs"
    require_columns(runs, bias, *_COLUMNS.values(), advice=advice)
    given = runs[bias].astype(float)
    biases = sorted(given.dropna().unique())
    if not biases:
        raise RequestError(f"no run has a forget-gate bias of its own in {bias}; add runs with ForgetBias")
    positions = {f"{value:g}": value for value in biases} | ({_CHRONO: biases[-1] + 1.3} if longest else {})
    starts = given.map(lambda value: _CHRONO if np.isnan(value) else f"{value:g}")
    tables = [
        pd.DataFrame({"stage": stage, "start": starts, "rate": runs[column].astype(float)})
        for stage, column in _COLUMNS.items()
    ]
    rates = pd.concat(tables).dropna(subset=["rate"])
    rates = rates[rates["start"].isin(positions)]
    data = _medians(rates, positions)
    lives = half_life_of_rate(rates["rate"].to_numpy(float))
    # Chrono: b_f = log u with u on [1, longest − 1], hence f = u/(1 + u).
    units = half_life_of_bias(np.log([1.0, longest - 1.0])) if longest else np.array([1.0])
    shown = [*lives[np.isfinite(lives)], *units]
    floor, top = 0.7 * min(shown), 1.6 * max(shown)
    ceiling = top * (top / floor) ** _STRIP
    strip, above = (float(top * (ceiling / top) ** share) for share in (0.3, 0.75))
    line = np.linspace(biases[0] - 0.4, biases[-1] + 0.4, 400)
    with house_style():
        figure, axes = panels(2, height=4.9)
        figure.set_figwidth(9.6)
        for axis, (stage, title) in zip(axes, STAGES.items(), strict=True):
            for gain, dash, width in ((0.0, DASHED, 1.5), (loop, _LOOP, 1.8)):
                lives = half_life_of_bias(line, gain)
                axis.plot(line, np.where(lives < top, lives, np.nan), color=BOUND, linestyle=dash, linewidth=width)
            if longest:
                axis.plot([positions[_CHRONO]] * 2, units, color="0.8", linewidth=13, solid_capstyle="butt", zorder=1)
            _runs_of_stage(axis, *(table[table["stage"] == stage] for table in (rates, data)), positions, strip, above)
            _half_life_axis(axis, floor, top, ceiling, strip)
            axis.set(title=title, xlabel="forget-gate bias b at the start")
            axis.set_xticks(list(positions.values()), list(positions))
        axes[0].set_ylabel("half-life of dL/dcₜ\n(steps back, logarithmic)")
        legend_below(figure, _entries(longest))
    caption = (
        f"In how many steps back the gradient at the cell state halves (from the slope of its profile over all lags), "
        f"LSTM, T = {', '.join(map(str, sorted(runs['length'].unique())))}. In the strip at the top: how many of the "
        f"runs have a slope of 0 or more, a gradient that does not fall. Large marks: of the median slope over "
        f"{counted(data['runs'])}, bar: {band_words(data['runs'])}; dots: runs. Lines, closed forms: a constant gate, "
        f"log 2/(−log σ(b)), and the same with σ(b) + {loop:.3f}, the way back to the cell through h near c = h = 0."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _medians(rates: pd.DataFrame, positions: Mapping[str, float]) -> pd.DataFrame:
    """Median and band over runs of the rate and of the half-life, by stage and start, in a fixed order."""
    by = ["stage", "start"]
    data = medians_of(rates, by, "rate")
    for name, rate in {"half_life": "rate", "half_life_low": "low", "half_life_high": "high"}.items():
        data[name] = half_life_of_rate(data[rate].to_numpy())
    data.insert(len(by), "place", data["start"].map(positions))
    data["runs"] = data.pop("runs")
    return ordered(data, by, start=list(positions).index)


def _height(lives: np.ndarray, strip: float) -> np.ndarray:
    """Where half-lives are drawn: infinite ones at `strip`, the middle of the strip."""
    return np.where(np.isfinite(lives), lives, strip)


def _runs_of_stage(
    axis: Axes, rates: pd.DataFrame, data: pd.DataFrame, positions: Mapping[str, float], strip: float, above: float
) -> None:
    """Every run that falls as a dot; how many do not, at the height `above`; the median over runs with its band."""
    for start, group in rates.groupby("start"):
        lives, x = half_life_of_rate(group["rate"].to_numpy(float)), positions[str(start)]
        falling = lives[np.isfinite(lives)]
        # Beside the mark, so that it hides none of them.
        dots = {"color": _COLOUR, "alpha": 0.5, "mew": 0, "markersize": 8, "zorder": 2}
        axis.plot(np.full(len(falling), x + _ASIDE), falling, ".", **dots)
        if len(falling) < len(lives):
            words = f"{len(lives) - len(falling)}/{len(lives)}"
            axis.text(x, above, words, ha="center", va="center", fontsize=9, color=_COLOUR)
    for row in data.itertuples():
        low, middle, high = _height(np.array([row.half_life_low, row.half_life, row.half_life_high]), strip)
        axis.plot([row.place, row.place], [low, high], color=_COLOUR, linewidth=2.4, zorder=3)
        axis.plot(row.place, middle, marker="o", color=_COLOUR, mec="white", markersize=9, zorder=3.2)


def _half_life_axis(axis: Axes, floor: float, top: float, ceiling: float, strip: float) -> None:
    """Logarithmic from `floor` to `top`; from there to `ceiling` the strip for gradients that do not fall."""
    axis.set_yscale("log")
    axis.set_ylim(floor, ceiling)
    axis.axhspan(top, ceiling, color="0.93", linewidth=0, zorder=0)
    axis.axhline(top, color=BOUND, linewidth=1)
    # No tick so close to the strip that the labels would overlap.
    ticks = [step for step in _TICKS if floor <= step < top / (top / floor) ** 0.05]
    axis.set_yticks([*ticks, strip], [*(f"{step:,g}" for step in ticks), "does not fall"])
    axis.yaxis.set_minor_locator(NullLocator())


def _entries(longest: int | None) -> list[Any]:
    return [
        line_entry("of the median slope", marker="o", color=_COLOUR, mec="white", linestyle="", markersize=9),
        line_entry("one run", color=_COLOUR, alpha=0.5, marker=".", markersize=9, mew=0, linestyle=""),
        line_entry("constant gate, σ(b)", color=BOUND, linestyle=DASHED),
        line_entry("with the loop through h", color=BOUND, linestyle=_LOOP),
        *([patch_entry("chrono's units, gate alone", "0.8")] if longest else []),
    ]
