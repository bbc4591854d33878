"""From vanishing to exploding: the gradient over lag by recurrent gain, and its rate."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from rnnstudy.figures.chosen_runs import PROBE_ADVICE, Results, with_runs
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, median_table
from rnnstudy.figures.style import ABSENT, AROUND_ZERO, BOUND, edges, house_style, legend_below, panels, style
from rnnstudy.spec import SpecError

GAIN = "initialisation.gain"

DECADES_SHOWN = 12
"""Colours span so many decades on either side of no change."""

_VARIANTS = {"tanh": ("s", "-"), "relu": ("D", (0, (5, 1.6)))}
"""Marker and dash of the vanilla RNN's activations; other cells have their own."""


def vanishing_to_exploding(results: Results, *, state: str = "h", keys: Sequence[str] | None = None) -> Picture:
    """The gradient relative to lag 0 in colour, by lag and recurrent gain: a panel per cell and activation.

    The last panel shows the rate, in decades per step: the Theil–Sen slope of the median profile over lags, run by run
    (the summary `rate_initial`); then median and band over runs. Below zero the gradient vanishes, above it explodes.

    Raises `SpecError` when no run has such readings, or the runs do not differ in their gain.
    """
    if GAIN not in results.runs or results.runs[GAIN].nunique() < 2:
        raise SpecError(f"the runs do not differ in {GAIN}; sweep Orthogonal(gain=…) over several values")
    name = f"profile/{state}_initial_normalised"
    frame = with_runs(results, name, keys, ["cell", "cell.activation", GAIN, "seed"], quantile=0.5)
    if frame.empty:
        raise SpecError(f"no run has a reading {name}; {PROBE_ADVICE}")
    frame = frame.rename(columns={GAIN: "gain"})
    frame["kind"] = [
        _kind(cell, activation) for cell, activation in zip(frame["cell"], frame["cell.activation"], strict=True)
    ]
    data = frame.groupby(["kind", "gain", "lag"], as_index=False)["value"].median()
    data = data.rename(columns={"value": "median_decades"})
    rates = _rates(results, frame, state)
    data = data.merge(rates, on=["kind", "gain"], how="left").sort_values(["kind", "gain", "lag"], ignore_index=True)
    kinds = sorted(data["kind"].unique(), key=_place)
    with house_style():
        figure, axes = panels(len(kinds) + 1, height=4.3, share_y=False)
        for axis, kind in zip(axes, kinds, strict=False):
            _diagram(axis, data[data["kind"] == kind], kind)
        axes[0].set_ylabel("recurrent gain g (W_hh = g · orthogonal)")
        bar = figure.colorbar(
            ScalarMappable(Normalize(-DECADES_SHOWN, DECADES_SHOWN), AROUND_ZERO),
            ax=axes[: len(kinds)], extend="both", pad=0.02, aspect=28,
        )  # fmt: skip
        bar.set_label(f"log₁₀ ‖∂L/∂{state}ₜ‖ relative to lag 0\n(decades; blue vanishes, red explodes)")
        for kind in kinds:
            _rate_line(axes[-1], rates[rates["kind"] == kind].sort_values("gain"), kind)
        axes[-1].axhline(0, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3, zorder=1)
        axes[-1].set(xlabel="recurrent gain g", ylabel="decades per step back in time")
        axes[-1].set_title("rate", color="0.2")
        fewest, most = int(rates["runs"].min()), int(rates["runs"].max())
        band = band_words(fewest, most)
        handles = [_handle(kind) for kind in kinds]
        handles.append(Patch(facecolor="0.6", alpha=0.4, label=band))
        handles.append(
            Line2D(
                [],
                [],
                color=BOUND,
                linestyle=(0, (4, 2)),
                label="g = 1, where σ_max·max φ′ = 1 (RNN); no change (right)",
            )
        )
        if data["median_decades"].isna().any():
            handles.append(Patch(facecolor=ABSENT, label="no value: exactly zero, or not finite"))
        legend_below(figure, handles)
    caption = (
        "Gradient of the last step's loss with respect to the hidden state before any training, relative to lag 0, by "
        f"lag (across) and recurrent gain (upwards); median over {counted(fewest, most)}. Right: its Theil–Sen slope "
        f"over lags, median; band: {band}."
    )
    return Picture(figure, data, tuple(sorted(set(frame["key"]))), caption)


def _kind(cell: str, activation: object) -> str:
    return f"{cell} {activation}" if cell == "Elman" else cell


def _place(kind: str) -> tuple[bool, str]:
    """tanh before relu before the other cells."""
    return (not kind.startswith("Elman"), "" if kind.endswith("tanh") else kind)


def _label(kind: str) -> str:
    cell, _, activation = kind.partition(" ")
    return f"RNN, {activation}" if activation else style(cell).label


def _look_of(kind: str) -> dict[str, object]:
    cell, _, activation = kind.partition(" ")
    drawn = style(cell)
    marker, dash = _VARIANTS.get(activation, (drawn.marker, drawn.dash))
    return {"color": drawn.colour, "marker": marker, "linestyle": dash}


def _handle(kind: str) -> Line2D:
    return Line2D([], [], label=_label(kind), markersize=7, **_look_of(kind))


def _rates(results: Results, frame: pd.DataFrame, state: str) -> pd.DataFrame:
    """Median and band over runs of the rate, by kind and gain."""
    # That of the output state has no further name; see the probe.
    column = next((name for name in (f"rate_initial_{state}", "rate_initial") if name in results.runs), None)
    if column is None:
        raise SpecError(f"the runs have no column rate_initial; {PROBE_ADVICE}")
    runs = frame.drop_duplicates("key").join(results.runs[[column]], on="key").sort_values("key")
    rows = []
    for (kind, gain), group in runs.groupby(["kind", "gain"]):
        table = median_table(pd.DataFrame({gain: group[column].astype(float)}), "gain")
        rows.append(table.assign(kind=kind).rename(columns={"median": "rate"}))
    return pd.concat(rows, ignore_index=True)[["kind", "gain", "rate", "low", "high", "runs"]]


def _diagram(axis: Axes, data: pd.DataFrame, kind: str) -> None:
    table = data.pivot(index="gain", columns="lag", values="median_decades").sort_index().sort_index(axis=1)
    gains = table.index.to_numpy(float)
    across, upwards = edges(table.columns.to_numpy(float)), edges(np.arange(len(gains), dtype=float))
    axis.add_patch(
        Rectangle((across[0], upwards[0]), across[-1] - across[0], upwards[-1] - upwards[0], facecolor=ABSENT, zorder=0)
    )
    values = np.ma.masked_invalid(table.to_numpy(float))
    limits = {"vmin": -DECADES_SHOWN, "vmax": DECADES_SHOWN}
    axis.pcolormesh(across, upwards, values, cmap=AROUND_ZERO, rasterized=True, zorder=1, **limits)
    axis.set_yticks(range(len(gains)), [f"{gain:g}" for gain in gains])
    if kind.startswith("Elman"):
        # The bound is about a recurrent matrix that every path passes through; an LSTM's cell path does not.
        one = np.interp(1.0, gains, np.arange(len(gains)))
        axis.axhline(one, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3, zorder=2)
    axis.set_xlim(across[0], across[-1])
    axis.grid(False)
    axis.set_xlabel("lag τ − t (steps)")
    axis.set_title(_label(kind), color=style(kind.partition(" ")[0]).colour)


def _rate_line(axis: Axes, data: pd.DataFrame, kind: str) -> None:
    gain, rate, low, high = (data[name].to_numpy(float) for name in ("gain", "rate", "low", "high"))
    line = _look_of(kind)
    axis.fill_between(gain, low, high, color=line["color"], alpha=0.22, linewidth=0)
    axis.plot(gain, rate, markersize=6, mec="white", **line)
