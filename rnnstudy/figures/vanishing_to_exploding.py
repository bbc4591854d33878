"""From vanishing to exploding: the gradient over lag by recurrent gain, and its rate."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, readings_of, require_columns, required
from rnnstudy.figures.drawing import heat_map, median_line, panels
from rnnstudy.figures.legend import band_entry, bound_entry, legend_below, line_entry, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_of
from rnnstudy.figures.style import ABSENT, AROUND_ZERO, BOUND_LINE, DASHES, gradient_label, house_style, style
from rnnstudy.spec import RequestError

GAIN = "initialisation.gain"

DECADES_SHOWN = 12
"""The colours span so many decades on either side of no change."""

_VARIANTS = {"tanh": ("s", "-"), "relu": ("D", DASHES[1])}
"""Marker and dash of the vanilla RNN by its activation; other cells have the style of the cell."""


def vanishing_to_exploding(results: RunsAndReadings, *, state: str = "h", keys: Keys = None) -> Picture:
    """The gradient relative to lag 0 in colour, by lag and recurrent gain: a panel per cell and activation.

    The last panel shows the rate, in decades per step: the Theil–Sen slope of the median profile over lags, run by run
    (the summary `rate_initial`); then median and band over runs. Below zero the gradient vanishes, above it explodes.

    Raises `RequestError` when no run has such readings, or the runs do not differ in their gain.
    """
    if GAIN not in results.runs or results.runs[GAIN].nunique() < 2:
        raise RequestError(f"the runs do not differ in {GAIN}; sweep Orthogonal(gain=…) over several values")
    name = f"profile/{state}_initial_normalised"
    frame = readings_of(results, name, keys, ["cell", "cell.activation", GAIN, "seed"], quantile=0.5)
    frame = required(frame, name).rename(columns={GAIN: "gain"})
    activation = " " + frame["cell.activation"].astype(str)
    frame["kind"] = frame["cell"] + activation.where(frame["cell"] == "Elman", "")
    data = frame.groupby(["kind", "gain", "lag"], as_index=False)["value"].median()
    data = data.rename(columns={"value": "median_decades"})
    rates = _rates(results, frame, state)
    data = data.merge(rates, on=["kind", "gain"], how="left").sort_values(["kind", "gain", "lag"], ignore_index=True)
    kinds = sorted(data["kind"].unique(), key=_drawing_position)
    with house_style():
        figure, axes = panels(len(kinds) + 1, height=4.3, share_y=False)
        for axis, kind in zip(axes, kinds, strict=False):
            _diagram(axis, data[data["kind"] == kind], kind)
        axes[0].set_ylabel("recurrent gain g (W_hh = g · orthogonal)")
        colours = ScalarMappable(Normalize(-DECADES_SHOWN, DECADES_SHOWN), AROUND_ZERO)
        bar = figure.colorbar(colours, ax=axes[: len(kinds)], extend="both", pad=0.02, aspect=28)
        bar.set_label(f"{gradient_label([state])} relative to lag 0\n(decades; blue vanishes, red explodes)")
        for kind in kinds:
            own = rates[rates["kind"] == kind].sort_values("gain")
            median_line(axes[-1], own, "gain", median="rate", markersize=6, mec="white", **_line_of(kind))
        axes[-1].axhline(0, zorder=1, **BOUND_LINE)
        axes[-1].set(xlabel="recurrent gain g", ylabel="decades per step back in time")
        axes[-1].set_title("rate", color="0.2")
        band = band_words(rates["runs"])
        entries: list[Any] = [line_entry(_label(kind), markersize=7, **_line_of(kind)) for kind in kinds]
        entries += [band_entry(band), bound_entry("g = 1, where σ_max·max φ′ = 1 (RNN); no change (right)")]
        if data["median_decades"].isna().any():
            entries.append(patch_entry("no value: exactly zero, or not finite", ABSENT))
        legend_below(figure, entries)
    caption = (
        "Gradient of the last step's loss with respect to the hidden state before any training, relative to lag 0, by "
        f"lag (across) and recurrent gain (upwards); median over {counted(rates['runs'])}. Right: its Theil–Sen slope "
        f"over lags, median; band: {band}."
    )
    return Picture(figure, data, tuple(sorted(set(frame["key"]))), caption)


def _drawing_position(kind: str) -> tuple[bool, str]:
    """tanh before relu before the other cells."""
    return (not kind.startswith("Elman"), "" if kind.endswith("tanh") else kind)


def _label(kind: str) -> str:
    cell, _, activation = kind.partition(" ")
    return f"RNN, {activation}" if activation else style(cell).label


def _line_of(kind: str) -> dict[str, Any]:
    cell, _, activation = kind.partition(" ")
    marker, dash = _VARIANTS.get(activation, (style(cell).marker, style(cell).dash))
    return {"color": style(cell).colour, "marker": marker, "linestyle": dash}


def _rates(results: RunsAndReadings, frame: pd.DataFrame, state: str) -> pd.DataFrame:
    """Median and band over runs of the rate, by kind and gain."""
    # The rate of the output state has no suffix; see the probe.
    column = f"rate_initial_{state}" if f"rate_initial_{state}" in results.runs else "rate_initial"
    require_columns(results.runs, column, advice="; add the probe GradientThroughTime to the runs")
    runs = frame.drop_duplicates("key").join(results.runs[[column]], on="key").sort_values("key")
    return medians_of(runs.rename(columns={column: "rate"}), ["kind", "gain"], "rate")


def _diagram(axis: Axes, data: pd.DataFrame, kind: str) -> None:
    table = data.pivot(index="gain", columns="lag", values="median_decades")
    gains = table.index.to_numpy(float)
    across, _ = heat_map(axis, table.reset_index(drop=True), AROUND_ZERO, (-DECADES_SHOWN, DECADES_SHOWN))
    axis.set_yticks(range(len(gains)), [f"{gain:g}" for gain in gains])
    if kind.startswith("Elman"):
        # The bound holds where every path passes through W_hh; an LSTM's path along its cell state does not.
        axis.axhline(np.interp(1.0, gains, np.arange(len(gains))), zorder=2, **BOUND_LINE)
    axis.set_xlim(across[0], across[-1])
    axis.set_xlabel("lag τ − t (steps)")
    axis.set_title(_label(kind), color=style(kind.partition(" ")[0]).colour)
