"""How searches went: the best value by trial, what mattered, and where good candidates lie.

The tables come from `rnnstudy.search.studies`: `trials_table` of each study, below each other, and `importances`.
"""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import BOUND, HEAT, house_style, legend_below, panels
from rnnstudy.spec import SpecError

MOST_PANELS = 3
DOT = "0.55"
"""A candidate: grey, for no colour of a cell may be taken for it."""

BEST = "black"
"""The best one."""

OWN_COLUMNS = ("study", "trial", "state", "value", "keys", "fresh")


def optimisation_history(trials: pd.DataFrame, *, value: str) -> Picture:
    """Value of each trial and the best so far, one panel per study; `value` says what it is."""
    _required(trials)
    names = list(dict.fromkeys(trials["study"]))
    rows = []
    with house_style():
        figure, axes = _grid(len(names))
        for axis, name in zip(axes, names, strict=False):
            own = trials[trials["study"] == name].sort_values("trial")
            own = own.assign(best=own["value"].astype(float).cummin().ffill(), order=range(1, len(own) + 1))
            rows.append(own[["study", "trial", "order", "state", "value", "best"]])
            shown = own[np.isfinite(own["value"].astype(float))]
            axis.plot(shown["order"], shown["value"], "o", color=DOT, markersize=6, mec="white", zorder=3)
            axis.step(own["order"], own["best"], where="post", color=BEST)
            for order in own.loc[own["state"] == "pruned", "order"]:
                axis.plot(order, 0.0, "x", color=BOUND, transform=axis.get_xaxis_transform(), clip_on=False)
            axis.set(title=_short(name), xlabel="candidate, in the order of trials")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes[0].set_ylabel(value)
        legend_below(
            figure,
            [
                Line2D([], [], marker="o", linestyle="", color=DOT, label="a candidate"),
                Line2D([], [], color=BEST, label="best so far"),
                Line2D([], [], marker="x", linestyle="", color=BOUND, label="pruned (on the axis)"),
            ],
        )
    caption = (
        f"Each candidate's {value}, the median over its seeds, and the least so far. "
        "Crosses on the axis: given up early."
    )
    return Picture(figure, pd.concat(rows, ignore_index=True), _keys(trials), caption)


def parameter_importances(importances: pd.DataFrame, trials: pd.DataFrame) -> Picture:
    """Share of each parameter in how far candidates lie apart (PED-ANOVA), one group of bars per study."""
    if importances.empty:
        raise SpecError("no study has enough complete trials for importances; let it run on")
    parameters = list(dict.fromkeys(importances["parameter"]))
    names = list(dict.fromkeys(importances["study"]))
    with house_style():
        figure, axes = _grid(len(names), height=2.2)
        for axis, name in zip(axes, names, strict=False):
            own = importances[importances["study"] == name].set_index("parameter").reindex(parameters)
            axis.barh(range(len(parameters)), own["importance"].fillna(0.0), color=DOT, height=0.6)
            axis.set_yticks(range(len(parameters)), [word.replace("_", " ") for word in parameters])
            axis.set(title=_short(name), xlim=(0, 1), xlabel="share of importance")
    caption = "How much each parameter decides among a study's candidates (PED-ANOVA); a study's shares add to 1."
    return Picture(figure, importances.reset_index(drop=True), _keys(trials), caption)


def slices(trials: pd.DataFrame, *, value: str, logarithmic: Sequence[str] = ()) -> Picture:
    """Value against each parameter, a row of panels per study; parameters in `logarithmic` on a logarithmic axis."""
    _required(trials)
    parameters = _parameters(trials)
    names = list(dict.fromkeys(trials["study"]))
    complete = trials[np.isfinite(trials["value"].astype(float))]
    with house_style():
        figure, axes = panels(len(parameters), height=2.6, rows=len(names))
        for row, name in enumerate(names):
            own = complete[complete["study"] == name]
            best = own.loc[[own["value"].astype(float).idxmin()]] if len(own) else own
            for column, parameter in enumerate(parameters):
                axis = axes[row * len(parameters) + column]
                axis.plot(own[parameter], own["value"], "o", color=DOT, markersize=5, alpha=0.7)
                axis.plot(best[parameter], best["value"], "D", color=BEST, markersize=7)
                axis.set(xscale="log" if parameter in logarithmic else "linear", xlim=_room(complete, parameter))
                if parameter in logarithmic:
                    ticks = _logarithmic_ticks(*_room(complete, parameter))
                    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                    axis.xaxis.set_minor_formatter(NullFormatter())
                if row == len(names) - 1:
                    scale = "\n(logarithmic)" if parameter in logarithmic else ""
                    axis.set_xlabel(parameter.replace("_", " ") + scale)
                if column == 0:
                    axis.set_ylabel(_short(name))
        legend_below(
            figure,
            [
                Line2D([], [], marker="o", linestyle="", color=DOT, label=f"a candidate (upwards: {value})"),
                Line2D([], [], marker="D", linestyle="", color=BEST, label="the winner"),
            ],
        )
    caption = f"Each complete candidate's {value} against each parameter; a row for each study."
    return Picture(figure, complete[["study", "trial", *parameters, "value"]], _keys(trials), caption)


def parallel_coordinates(trials: pd.DataFrame, *, value: str, logarithmic: Sequence[str] = ()) -> Picture:
    """Each candidate as a line over its parameters, coloured by its value, one panel per study."""
    _required(trials)
    parameters = _parameters(trials)
    names = list(dict.fromkeys(trials["study"]))
    complete = trials[np.isfinite(trials["value"].astype(float))]
    ends = {
        name: (float(_scaled(complete, name, logarithmic).min()), float(_scaled(complete, name, logarithmic).max()))
        for name in parameters
    }
    colours = colormaps[HEAT]
    norm = Normalize(float(complete["value"].min()), float(complete["value"].max()))
    with house_style():
        figure, axes = _grid(len(names), height=3.6)
        for axis, name in zip(axes, names, strict=False):
            own = complete[complete["study"] == name].sort_values("value", ascending=False)
            places = np.column_stack(
                [
                    (_scaled(own, one, logarithmic) - ends[one][0]) / ((ends[one][1] - ends[one][0]) or 1.0)
                    for one in parameters
                ]
            )
            for line, worth in zip(places, own["value"], strict=True):
                axis.plot(range(len(parameters)), line, color=colours(norm(worth)), linewidth=1.6, alpha=0.9)
            worded = [one.replace("_", "\n") + ("\n(log)" if one in logarithmic else "") for one in parameters]
            axis.set_xticks(range(len(parameters)), worded)
            axis.set_yticks([0, 1], ["least", "most"])
            axis.set(title=_short(name), ylim=(-0.05, 1.05))
        figure.colorbar(ScalarMappable(norm, HEAT), ax=axes, label=value, shrink=0.8)
    words = ", ".join(
        f"{one.replace('_', ' ')} {complete[one].min():.3g} to {complete[one].max():.3g}"
        + (" (logarithmic)" if one in logarithmic else "")
        for one in parameters
    )
    caption = f"Each complete candidate as a line, coloured by its {value}. The axes, from least to most: {words}."
    return Picture(figure, complete[["study", "trial", *parameters, "value"]], _keys(trials), caption)


def _grid(count: int, height: float = 3.2) -> tuple:
    """Panels in rows of at most `MOST_PANELS`; the ones left over are hidden."""
    across = min(count, MOST_PANELS)
    rows = -(-count // across)
    figure, axes = panels(across, height=height, rows=rows)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes


def _required(trials: pd.DataFrame) -> None:
    if trials.empty or not np.isfinite(trials["value"].astype(float)).any():
        raise SpecError("no trial is complete with a finite value; let the search run on")


def _parameters(trials: pd.DataFrame) -> list[str]:
    return [column for column in trials.columns if column not in OWN_COLUMNS]


def _room(trials: pd.DataFrame, parameter: str) -> tuple[float, float]:
    """Limits of an axis, the same for all studies, with a margin of a twentieth."""
    low, high = float(trials[parameter].min()), float(trials[parameter].max())
    return low / 1.05, high * 1.05


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Round values within a range: few over many decades, and some within less than one."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1,) if high / low > 1e3 else (1, 3) if high / low > 30 else (1, 2, 5)
    return [float(f"{digit}e{decade}") for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]


def _scaled(trials: pd.DataFrame, parameter: str, logarithmic: Sequence[str]) -> np.ndarray:
    values = trials[parameter].to_numpy(float)
    return np.log10(values) if parameter in logarithmic else values


def _keys(trials: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted({key for keys in trials["keys"] for key in keys.split()}))


def _short(study: str) -> str:
    """What tells the studies of one experiment and scale apart."""
    return study.rpartition("/")[2]
