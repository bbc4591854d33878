"""Results -> pictures, one function per kind: what is drawn comes back beside the figure, as a table.

Every cell has one colour, marker and dash wherever it is drawn (Okabe & Ito's palette, safe for colour-blind readers).
Gradients are on a logarithmic scale: log10 of a Euclidean norm. No function opens a window or needs a display.
"""

# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Protocol

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from rnnstudy.spec import SpecError, nearest

SEEDS_FOR_INTERVAL = 10
"""Below so many runs a bootstrap interval promises more than it can keep: the band is then the range of the runs."""

ABSENT = "0.78"
"""Neutral grey for values that are absent: no colour of the map is near it."""

_ABSENT_WORDS = "no value: the gradient is exactly zero, or not finite"

DECADES_SHOWN = 20
"""A heat map's colours span at most so many decades below its largest value, so that differences stay visible."""


class Results(Protocol):
    """What is drawn: `rnnstudy.results.Results`, or anything with these two.

    `readings` raises `SpecError` for a name that no run has.
    """

    @property
    def runs(self) -> pd.DataFrame: ...

    def readings(self, name: str, *, quantile: float | None = None) -> pd.DataFrame: ...


@dataclass(frozen=True)
class Style:
    """How a cell is drawn, everywhere."""

    label: str
    colour: str
    marker: str
    dash: str


STYLES: Mapping[str, Style] = {
    "Elman": Style("RNN (Elman)", "#D55E00", "s", "-"),
    "Jordan": Style("RNN (Jordan)", "#CC79A7", "D", "-."),
    "GRU": Style("GRU", "#009E73", "^", ":"),
    "LSTM": Style("LSTM", "#0072B2", "o", "--"),
}
"""In the order of drawing. Further cells get one of the colours that are left."""

_PROBE_ADVICE = "add the probe GradientThroughTime to the runs"
_FURTHER_COLOURS = ("#E69F00", "#56B4E9", "#000000")
_FURTHER_MARKERS = ("v", "P", "X", "<", ">")
_LENGTH_DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_LENGTH_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure with what it shows.

    Attributes:
        figure: drawn, on no display.
        data: the numbers in it, one row per point, in a fixed order.
        keys: the runs it was made from, sorted.
        caption: what a reader must know: bands, choices, counts.
    """

    figure: Figure
    data: pd.DataFrame
    keys: tuple[str, ...]
    caption: str

    def __repr__(self) -> str:
        return f"Picture of {len(self.keys)} runs. {self.caption}"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """For notebooks: the picture, and what a reader hears who cannot see it."""
        return _rendered(self.figure, "png"), {"alt": self.caption}


@dataclass(frozen=True)
class Provenance:
    """Where a figure came from, beside its run keys.

    Attributes:
        experiment: the experiment file, relative to the project.
        command: what repeats it.
        commit: of the source, or None outside a git checkout.
        versions: package name to version.
    """

    experiment: str
    command: str
    commit: str | None
    versions: Mapping[str, str]

    @staticmethod
    def of(experiment: str, command: str, commit: str | None) -> "Provenance":
        """With the versions of the packages that computed and drew the numbers."""
        packages = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "torch")
        return Provenance(experiment, command, commit, {name: metadata.version(name) for name in packages})


def style(cell: str) -> Style:
    """The style of a cell's class name; the same one at every call, for unknown cells too."""
    if cell in STYLES:
        return STYLES[cell]
    number = zlib.crc32(cell.encode())
    colour = _FURTHER_COLOURS[number % len(_FURTHER_COLOURS)]
    return Style(cell, colour, _FURTHER_MARKERS[number % len(_FURTHER_MARKERS)], "-.")


def gradient_by_lag(
    results: Results,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Gradient of the last step's loss with respect to a state, against the lag: a panel per state and cell.

    Each run gives its median over sequences; drawn are the median over runs and a band: the bootstrap 95 % interval of
    that median from 10 runs on, the range of the runs below. A lag is drawn where at least half of the runs have a
    value; exact zeros are none.

    Args:
        stage: before the first update, or after the last.
        states: which of the cells' states; cells without one are left out.
        normalised: relative to lag 0, sequence by sequence (the rate of decay alone, whatever the size of the loss).
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has such a reading.
    """
    suffix = f"_{stage}{'_normalised' if normalised else ''}"
    data = pd.concat(
        [_by_lag(_medians(results, f"profile/{state}{suffix}", keys)).assign(state=state) for state in states]
    )
    if data.empty:
        raise SpecError(f"no run has a reading profile/{states[0]}{suffix}; {_PROBE_ADVICE}")
    data = _ordered(data[["state", "cell", "length", "lag", "median", "low", "high", "runs", "of_runs"]])
    fewest, most = int(data["of_runs"].min()), int(data["of_runs"].max())
    panels = list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None))
    lengths = sorted(data["length"].unique())
    with _look():
        figure, axes = _panels(len(panels), height=4.2)
        for axis, (state, cell) in zip(axes, panels, strict=True):
            axis.set_title(f"{style(cell).label}, state {state}", color=style(cell).colour)
            chosen = data[(data["state"] == state) & (data["cell"] == cell)]
            for length in reversed(lengths):
                _lag_line(axis, chosen[chosen["length"] == length], style(cell).colour, lengths, length)
            axis.set_xlabel("lag τ − t (steps)")
            axis.margins(x=0.03)
        axes[0].set_ylabel(_gradient_label(list(dict.fromkeys(data["state"])), normalised))
        band = _band_words(fewest, most)
        handles = [_length_handle(lengths, length) for length in lengths]
        handles.append(Patch(facecolor="0.6", alpha=0.4, label=band))
        _legend_below(figure, handles)
    moment = "before the first update" if stage == "initial" else "after the last update"
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {moment}, by lag (lag 0: the step of the loss). "
        f"Line: median over {_counted(fewest, most)} of each run's median over sequences; band: {band}."
    )
    return Picture(figure, data, _drawn_keys(results, keys), caption)


def gradient_heat_map(
    results: Results, *, length: int | None = None, state: str = "h", keys: Sequence[str] | None = None
) -> Picture:
    """Gradient over time step by training step, one panel per cell, on one colour scale.

    One run per cell is drawn: the one with the lowest seed among `keys` (all runs by default) at `length` (the longest
    by default). Colours span at most `DECADES_SHOWN` decades; the table has every value.

    Raises `SpecError` when no run has such a reading, or none at that length.
    """
    frame = _medians(results, f"through_time/{state}", keys)
    if frame.empty:
        raise SpecError(f"no run has a reading through_time/{state}; {_PROBE_ADVICE}")
    known = sorted(frame["length"].unique())
    length = known[-1] if length is None else length
    frame = frame[frame["length"] == length]
    if frame.empty:
        raise SpecError(f"no run has length {length}; the lengths here: {', '.join(map(str, known))}")
    first = frame.sort_values(["seed", "key"]).groupby("cell")["key"].first()
    data = _ordered(frame[frame["key"].isin(first)][["cell", "key", "seed", "length", "step", "time", "value"]])
    cells = list(dict.fromkeys(data["cell"]))
    finite = data["value"].dropna()
    top = float(finite.max()) if len(finite) else 0.0
    bottom = max(float(finite.min()), top - DECADES_SHOWN) if len(finite) else top - 1
    with _look():
        figure, axes = _panels(len(cells), height=4.4)
        for axis, cell in zip(axes, cells, strict=True):
            run = results.runs.loc[first[cell]]
            _heat(axis, data[data["cell"] == cell], (bottom, top), data["step"].max())
            axis.set_title(f"{style(cell).label}, seed {run['seed']}: {_ending(run)}", color=style(cell).colour)
            axis.set_xlabel(f"time step t (of {int(data['time'].max())})")
        axes[0].set_ylabel("training step (updates made)")
        arrow = "min" if len(finite) and finite.min() < bottom else "neither"
        bar = figure.colorbar(
            ScalarMappable(Normalize(bottom, top), "viridis"), ax=axes, extend=arrow, pad=0.02, aspect=28
        )
        bar.set_label(f"log₁₀ ‖∂L/∂{state}ₜ‖")
        if data["value"].isna().any():
            _legend_below(figure, [Patch(facecolor=ABSENT, label=_ABSENT_WORDS)])
    caption = (
        f"Gradient of the loss with respect to state {state} at each time step (across), as training goes on "
        f"(upwards), T = {length}; median over sequences. One run per cell is drawn: the one with the lowest seed."
    )
    return Picture(figure, data, tuple(sorted(first)), caption)


def success_by_length(
    results: Results, *, chance: float, error: str = "test error", keys: Sequence[str] | None = None
) -> Picture:
    """Share of runs that solved the task, with Wilson 95 % intervals, and their test error, both against length.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the runs to draw; all by default.

    Diverged runs count as unsolved; failed ones (a fault of the machinery) are left out.
    """
    runs = _judged(results, keys)
    data = _ordered(pd.DataFrame([_success(cell, length, group) for (cell, length), group in _by_cell(runs)]))
    cells, lengths = list(dict.fromkeys(data["cell"])), sorted(data["length"].unique())
    width = 0.24
    with _look():
        figure, (left, right) = _panels(2, height=4.2, share_y=False)
        for number, cell in enumerate(cells):
            chosen = data[data["cell"] == cell]
            shift = (number - (len(cells) - 1) / 2) * width
            across = np.array([lengths.index(length) for length in chosen["length"]]) + shift
            _success_points(left, across, chosen, style(cell))
            dots = runs[runs["cell"] == cell]
            dots_across = np.array([lengths.index(length) for length in dots["length"]]) + shift
            _error_points(right, across, chosen, dots_across, dots["error"].to_numpy(float), style(cell))
        left.axhline(0, color="0.35", linestyle=(0, (4, 2)), linewidth=1.3, zorder=1)
        left.text(-0.46, -0.035, "chance: guessing solves no run", color="0.25", va="top", fontsize=10)
        left.set(ylim=(-0.13, 1.13), ylabel="share of runs that solved the task")
        highest = float(np.nanmax([chance, *runs["error"].astype(float)]))
        _chance_line(right, chance, labelled=True)
        right.set(ylim=(-0.06 * highest, 1.22 * highest), ylabel=error)
        for axis in (left, right):
            axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axis.set(xlim=(-0.5, len(lengths) - 0.5), xlabel="length T (steps)")
        handles = [_cell_handle(cell) for cell in cells]
        handles.append(Line2D([], [], marker="o", linestyle="", color="0.45", markersize=4, label="one run (right)"))
        _legend_below(figure, handles)
    caption = (
        "Left: share of runs that solved the task on fresh test sequences, with Wilson 95 % intervals; k/n above each "
        "point: solved of all. Right: test error, one dot per run, the large mark is their median; dashed: what the "
        f"best predictor that sees no input attains ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def learning_curves(
    results: Results, *, chance: float, error: str = "validation error", keys: Sequence[str] | None = None
) -> Picture:
    """Validation error against training step, one line per run, one panel per length.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has a reading `learning/error`.
    """
    frame = _with_runs(results, "learning/error", keys, ["cell", "length", "seed", "solved", "status"])
    if frame.empty:
        raise SpecError("no run has a reading learning/error; these runs were never validated")
    columns = ["cell", "length", "seed", "key", "step", "error", "solved"]
    data = _ordered(frame.rename(columns={"value": "error"})[columns])
    cells, lengths = list(dict.fromkeys(data["cell"])), sorted(data["length"].unique())
    with _look():
        figure, axes = _panels(len(lengths), height=4.0)
        for axis, length in zip(axes, lengths, strict=True):
            for cell in cells:
                _curves(axis, data[(data["length"] == length) & (data["cell"] == cell)], style(cell))
            axis.set(title=f"T = {length}", xlabel="training step (updates made)")
            axis.set_xlim(-0.02 * data["step"].max(), 1.05 * data["step"].max())
        highest = max(chance, float(data["error"].max()))
        for axis in axes:
            _chance_line(axis, chance, labelled=axis is axes[-1])
        axes[0].set(ylim=(-0.04 * highest, 1.16 * highest), ylabel=error)
        handles = [_cell_handle(cell) for cell in cells]
        words = "at the end: not solved (filled: solved)"
        handles.append(Line2D([], [], color="0.4", linestyle="", marker="x", markersize=8, mew=2, label=words))
        _legend_below(figure, handles)
    caption = (
        "Error on fixed validation sequences during training, one line per run; a run stops early once it solves the "
        f"task. Dashed: what the best predictor that sees no input attains ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(set(data["key"]))), caption)


def validation_table(results: Results, over: str = "learning_rate") -> pd.DataFrame:
    """How each setting did in validation: one row per cell, length and value of the column `over`.

    Columns: runs; solved_in_validation, the runs that met the criterion twice in a row; final_validation_error, the
    median over runs of the last reading of `learning/error`, infinite for a diverged run; steps_to_solve, the median of
    the runs that have one; chosen, the best value for the cell and length. Best has the largest share solved in
    validation; among equals the lowest final error, then the fewest steps, then the lowest value. The test sequences
    play no part. Failed runs are left out.
    """
    runs = _judged(results, None)
    if over not in runs.columns:
        raise SpecError(f"the runs have no column '{over}'{nearest(over, map(str, runs.columns))}")
    readings = _with_runs(results, "learning/error", None, []).dropna(subset=["value"])
    last = readings.sort_values(["key", "step"]).groupby("key")["value"].last()
    ending = last.reindex(runs.index).fillna(np.inf).where(runs["status"] != "diverged", np.inf)
    steps = runs["steps_to_solve"].astype(float)
    frame = runs.assign(final_validation_error=ending, steps_to_solve=steps, has_solved=steps.notna())
    table = (
        frame.groupby(["cell", "length", over], sort=True)
        .agg(
            runs=("has_solved", "size"),
            solved_in_validation=("has_solved", "sum"),
            final_validation_error=("final_validation_error", "median"),
            steps_to_solve=("steps_to_solve", "median"),
        )
        .reset_index()
    )
    ranked = table.assign(share=-table["solved_in_validation"] / table["runs"]).sort_values(
        ["cell", "length", "share", "final_validation_error", "steps_to_solve", over], na_position="last", kind="stable"
    )
    table["chosen"] = table.index.isin(ranked.groupby(["cell", "length"]).head(1).index)
    return _ordered(table)


def best_by_validation(results: Results, over: str = "learning_rate") -> list[str]:
    """Keys, sorted, of the runs whose setting `over` is the best of their cell and length by `validation_table`."""
    table = validation_table(results, over)
    setting = ["cell", "length", over]
    chosen = set(table[table["chosen"]][setting].itertuples(index=False, name=None))
    runs = _judged(results, None)[setting]
    return sorted(key for key, *values in runs.itertuples(name=None) if tuple(values) in chosen)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def save(picture: Picture, folder: Path, name: str, provenance: Provenance) -> list[Path]:
    """Write `name`.png, .svg, .csv (what the figure shows) and .json (where it came from) into `folder`.

    The same picture gives the same bytes. Each file is replaced in one step, after all four could be written.
    """
    described = {
        "figure": name,
        "caption": picture.caption,
        "experiment": provenance.experiment,
        "command": provenance.command,
        "commit": provenance.commit,
        "versions": dict(provenance.versions),
        "runs": list(picture.keys),
    }
    contents = {
        "png": _rendered(picture.figure, "png"),
        "svg": _rendered(picture.figure, "svg"),
        "csv": picture.data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode(),
        "json": (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    return write_all({folder / f"{name}.{ending}": content for ending, content in contents.items()})


def write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write files so that each is there whole or not at all: all of them aside first, then each moved into place."""
    aside: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            aside[path] = Path(temporary)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp's files are for their owner alone; a report is for everyone.
            os.chmod(temporary, 0o644)
        for path, temporary in aside.items():
            os.replace(temporary, path)
    finally:
        for temporary in aside.values():
            temporary.unlink(missing_ok=True)
    return list(contents)


def _look() -> AbstractContextManager[None]:
    settings: dict[str, Any] = {
        **seaborn.axes_style("ticks"),
        "axes.grid": True,
        "axes.labelsize": 12,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "font.family": ["DejaVu Sans"],
        "font.size": 11,
        "grid.color": "0.9",
        "legend.fontsize": 11,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
    }
    return matplotlib.rc_context(settings)


def _rendered(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The bytes of a picture: no date, no version, and the same identifiers every time."""
    buffer = BytesIO()
    absent = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnnstudy"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=absent)
    return buffer.getvalue()


def _panels(count: int, *, height: float, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    width = max(6.0, 1.2 + 3.6 * count) if count < 3 else 1.0 + 3.3 * count
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure, list(figure.subplots(1, count, sharey=share_y, squeeze=False)[0])


def _legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    # Two rows for many entries, so that the legend never grows wider than the figure.
    characters = sum(len(handle.get_label()) + 6 for handle in handles)
    columns = len(handles) if characters < 12 * figure.get_figwidth() else (len(handles) + 1) // 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.6)


def _cell_position(cell: str) -> tuple[int, str]:
    known = list(STYLES)
    return (known.index(cell) if cell in known else len(known), cell)


def _ordered(data: pd.DataFrame) -> pd.DataFrame:
    """Rows in a fixed order: by the columns as they stand, cells in the order of `STYLES`."""
    position = {cell: number for number, cell in enumerate(sorted(set(data["cell"]), key=_cell_position))}
    ranks = ("state", "cell", "length", "learning_rate", "seed", "key", "step", "lag", "time")
    order = data[[name for name in ranks if name in data.columns]].assign(cell=data["cell"].map(position))
    if "state" in order:
        order["state"] = order["state"].map({name: place for place, name in enumerate(dict.fromkeys(data["state"]))})
    return data.loc[data.index[_lexical(order)]] if data.index.is_unique else _ordered(data.reset_index(drop=True))


def _lexical(order: pd.DataFrame) -> np.ndarray:
    return np.lexsort([order[name].to_numpy() for name in reversed(list(order.columns))])


def _drawn_keys(results: Results, keys: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted(results.runs.index if keys is None else keys))


def _with_runs(
    results: Results, name: str, keys: Sequence[str] | None, columns: Sequence[str], quantile: float | None = None
) -> pd.DataFrame:
    """A reading of the runs `keys`, joined with columns of `runs`; empty when no run has it."""
    try:
        frame = results.readings(name, quantile=quantile)
    except SpecError:
        return pd.DataFrame(columns=["key", "value", *columns])
    frame = frame if keys is None else frame[frame["key"].isin(list(keys))]
    return frame.assign(key=frame["key"].astype(str)).join(results.runs[list(columns)], on="key")


def _medians(results: Results, name: str, keys: Sequence[str] | None) -> pd.DataFrame:
    """The median over sequences of a reading with quantiles, joined with the runs' cell, length and seed."""
    return _with_runs(results, name, keys, ["cell", "length", "seed"], quantile=0.5)


def _judged(results: Results, keys: Sequence[str] | None) -> pd.DataFrame:
    """The runs that say something about their cell: those that failed by a fault of the machinery do not."""
    runs = results.runs if keys is None else results.runs.loc[list(keys)]
    runs = runs[runs["status"] != "failed"].sort_index()
    if runs.empty:
        raise SpecError("there is no finished or diverged run to draw")
    return runs


def _by_cell(runs: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    return [((str(cell), int(length)), group) for (cell, length), group in runs.groupby(["cell", "length"])]


def _by_lag(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and band over runs, by cell, length and lag."""
    columns = ["cell", "length", "lag", "median", "low", "high", "runs", "of_runs"]
    parts = []
    for (cell, length), group in frame.groupby(["cell", "length"]) if len(frame) else ():
        table = group.pivot(index="key", columns="lag", values="value").sort_index().sort_index(axis=1)
        values = table.to_numpy(float)
        present = np.isfinite(values).sum(axis=0)
        median, low, high = _median_and_band(values)
        shown = present * 2 >= len(values)
        part = pd.DataFrame({"lag": table.columns, "median": median, "low": low, "high": high, "runs": present})
        parts.append(part.assign(cell=cell, length=length, of_runs=len(values))[shown & (present > 0)])
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _median_and_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over the first axis (run): median, lower and upper end of the band, NaN where nothing is present."""
    low, median, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    somewhere = np.isfinite(values).any(axis=0)
    present = values[:, somewhere]
    if present.size:
        median[somewhere] = np.nanmedian(present, axis=0)
        low[somewhere], high[somewhere] = np.nanmin(present, axis=0), np.nanmax(present, axis=0)
    if len(values) >= SEEDS_FOR_INTERVAL and present.size:
        drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        for column in np.flatnonzero(somewhere):
            resampled = values[:, column][drawn]
            medians = np.nanmedian(resampled[np.isfinite(resampled).any(axis=1)], axis=1)
            low[column], high[column] = np.quantile(medians, [0.025, 0.975])
    return median, low, high


def _band_words(fewest: int, most: int) -> str:
    if fewest >= SEEDS_FOR_INTERVAL:
        return "95 % bootstrap interval over runs"
    return "range of the runs" if most < SEEDS_FOR_INTERVAL else "95 % bootstrap interval, or range below 10 runs"


def _counted(fewest: int, most: int) -> str:
    return f"{most} runs" if fewest == most else f"{fewest} to {most} runs"


def _gradient_label(states: Sequence[str], normalised: bool) -> str:
    label = f"log₁₀ ‖∂L/∂{states[0]}ₜ‖" if len(states) == 1 else f"log₁₀ ‖∂L/∂sₜ‖, s = {' or '.join(states)}"
    return label + (",\nrelative to lag 0 (decades)" if normalised else "")


def _lag_line(axis: Axes, data: pd.DataFrame, colour: str, lengths: Sequence[int], length: int) -> None:
    if data.empty:
        return
    place = lengths.index(length)
    shade = _shade(colour, place, len(lengths))
    lag, median, low, high = (data[name].to_numpy(float) for name in ("lag", "median", "low", "high"))
    axis.fill_between(lag, low, high, color=shade, alpha=0.22, linewidth=0)
    dash = _LENGTH_DASHES[place % len(_LENGTH_DASHES)]
    seaborn.lineplot(x=lag, y=median, ax=axis, color=shade, linestyle=dash, estimator=None)
    marker = _LENGTH_MARKERS[place % len(_LENGTH_MARKERS)]
    axis.plot(lag[-1:], median[-1:], marker=marker, color=shade, markersize=8, mec="white")


def _shade(colour: str, place: int, count: int) -> tuple[float, ...]:
    """The cell's colour, from lighter (short) to darker (long)."""
    weight = 0.0 if count == 1 else 2 * place / (count - 1) - 1
    towards, share = (np.ones(3), -0.45 * weight) if weight < 0 else (np.zeros(3), 0.45 * weight)
    return tuple((1 - share) * np.array(to_rgb(colour)) + share * towards)


def _length_handle(lengths: Sequence[int], length: int) -> Line2D:
    place = lengths.index(length)
    dash = _LENGTH_DASHES[place % len(_LENGTH_DASHES)]
    marker = _LENGTH_MARKERS[place % len(_LENGTH_MARKERS)]
    shade = _shade("0.5", place, len(lengths))
    return Line2D([], [], color=shade, linestyle=dash, marker=marker, markersize=8, mec="white", label=f"T = {length}")


def _cell_handle(cell: str) -> Line2D:
    look = style(cell)
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash, label=look.label, markersize=8)


def _edges(positions: np.ndarray) -> np.ndarray:
    """Borders half-way between neighbouring positions."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    between = (positions[1:] + positions[:-1]) / 2
    first, last = 2 * positions[0] - between[0], 2 * positions[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def _heat(axis: Axes, data: pd.DataFrame, limits: tuple[float, float], last_step: int) -> None:
    table = data.pivot(index="step", columns="time", values="value").sort_index().sort_index(axis=1)
    across, upwards = _edges(table.columns.to_numpy(float)), _edges(table.index.to_numpy(float))
    ground = Rectangle(
        (across[0], upwards[0]), across[-1] - across[0], upwards[-1] - upwards[0], facecolor=ABSENT, zorder=0.5
    )
    axis.add_patch(ground)
    values = np.ma.masked_invalid(table.to_numpy(float))
    # As an image inside the SVG: tens of thousands of rectangles would make it slow to open.
    axis.pcolormesh(across, upwards, values, cmap="viridis", vmin=limits[0], vmax=limits[1], rasterized=True, zorder=1)
    top = max(float(last_step), upwards[-1])
    axis.set(xlim=(across[0], across[-1]), ylim=(upwards[0], top))
    axis.grid(False)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if top - upwards[-1] > 0.12 * (top - upwards[0]):
        middle = (across[0] + across[-1]) / 2, (upwards[-1] + top) / 2
        axis.text(*middle, "training had ended", ha="center", va="center", color="0.35")


def _ending(run: pd.Series) -> str:
    if run["status"] == "diverged":
        return f"diverged at {int(run['step'])}"
    return "solved" if _true(pd.Series([run["solved"]])).iloc[0] else "not solved"


def _true(values: pd.Series) -> pd.Series:
    """Whether each value is true; a run that was not judged (diverged) has not solved its task."""
    return values.eq(True).fillna(False).astype(bool)


def _success(cell: str, length: int, group: pd.DataFrame) -> dict[str, Any]:
    solved = int(_true(group["solved"]).sum())
    low, high = wilson(solved, len(group))
    share, error = solved / len(group), float(group["error"].astype(float).median())
    return {
        "cell": cell,
        "length": length,
        "solved": solved,
        "runs": len(group),
        "share": share,
        "wilson_low": low,
        "wilson_high": high,
        "median_error": error,
    }


def _success_points(axis: Axes, across: np.ndarray, data: pd.DataFrame, drawn: Style) -> None:
    share, low, high = (data[name].to_numpy(float) for name in ("share", "wilson_low", "wilson_high"))
    # A share of 0 or 1 is an end of its own interval, up to rounding.
    bars = np.clip([share - low, high - share], 0, None)
    axis.errorbar(
        across,
        share,
        bars,
        color=drawn.colour,
        marker=drawn.marker,
        linestyle=drawn.dash,
        linewidth=1.3,
        elinewidth=2,
        capsize=4,
        markersize=9,
        mec="white",
        zorder=3,
    )
    for place, top, solved, runs in zip(across, high, data["solved"], data["runs"], strict=True):
        axis.text(place, top + 0.025, f"{solved}/{runs}", ha="center", va="bottom", color=drawn.colour, fontsize=10)


def _error_points(
    axis: Axes, across: np.ndarray, data: pd.DataFrame, dots_across: np.ndarray, dots: np.ndarray, drawn: Style
) -> None:
    # Beside the median's mark, which would hide them.
    beside = dots_across + 0.09
    axis.plot(beside, dots, linestyle="", marker="o", color=drawn.colour, markersize=4, alpha=0.45, mew=0, zorder=2)
    axis.plot(
        across,
        data["median_error"].to_numpy(float),
        color=drawn.colour,
        marker=drawn.marker,
        linestyle=drawn.dash,
        linewidth=1.3,
        markersize=9,
        mec="white",
        zorder=3,
    )


def _chance_line(axis: Axes, chance: float, labelled: bool) -> None:
    axis.axhline(chance, color="0.35", linestyle=(0, (4, 2)), linewidth=1.3, zorder=1)
    if labelled:
        # Beside the axes, where no data are.
        beside = axis.get_yaxis_transform()
        axis.text(1.02, chance, f"chance\n({chance:.3g})", transform=beside, color="0.25", fontsize=10, va="center")


def _curves(axis: Axes, data: pd.DataFrame, drawn: Style) -> None:
    if data.empty:
        return
    seaborn.lineplot(
        data=data,
        x="step",
        y="error",
        units="key",
        estimator=None,
        ax=axis,
        color=drawn.colour,
        linestyle=drawn.dash,
        linewidth=1.5,
        alpha=0.75,
        legend=False,
    )
    ends = data.dropna(subset=["error"]).groupby("key").last()
    for solved, marker, edge in ((True, drawn.marker, 0.0), (False, "x", 2.0)):
        chosen = ends[_true(ends["solved"]) == solved]
        axis.plot(
            chosen["step"],
            chosen["error"],
            linestyle="",
            marker=marker,
            color=drawn.colour,
            markersize=7,
            mew=edge,
            zorder=4,
        )
