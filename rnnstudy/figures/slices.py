"""The value of each candidate of a search against each parameter."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from pandas.api.types import is_numeric_dtype

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.search_panels import BEST, CANDIDATE, complete_trials, keys_of_trials, parameters_of, short_name
from rnnstudy.figures.style import house_style


def slices(trials: pd.DataFrame, *, value: str, logarithmic: Sequence[str] = ()) -> Picture:
    """Value against each parameter, a row of panels per study; parameters in `logarithmic` on a logarithmic axis.

    A parameter whose values are words has a place for each of them. A study without a parameter has no panel for it.
    Raises `RequestError` when no trial is complete.
    """
    complete, parameters = complete_trials(trials), parameters_of(trials)
    names = list(dict.fromkeys(trials["study"]))
    with house_style():
        figure, axes = panels(len(parameters), height=2.6, rows=len(names))
        for column, parameter in enumerate(parameters):
            words = [] if is_numeric_dtype(complete[parameter]) else sorted(complete[parameter].dropna().unique())
            places = complete[parameter].map(words.index, na_action="ignore") if words else complete[parameter]
            lowest = None
            for row, name in enumerate(names):
                axis = axes[row * len(parameters) + column]
                own = complete[(complete["study"] == name) & places.notna()]
                if column == 0:
                    axis.set_ylabel(short_name(name))
                if own.empty:
                    axis.set_visible(False)
                    continue
                best = own.loc[[own["value"].astype(float).idxmin()]]
                axis.plot(places[own.index], own["value"], "o", color=CANDIDATE, markersize=5, alpha=0.7)
                axis.plot(places[best.index], best["value"], "D", color=BEST, markersize=7)
                if words:
                    axis.set_xlim(-0.5, len(words) - 0.5)
                    axis.set_xticks(range(len(words)), words)
                else:
                    _numbers(axis, places, logarithmic=parameter in logarithmic)
                lowest = axis
            if lowest is not None:
                scale = "\n(logarithmic)" if parameter in logarithmic else ""
                lowest.set_xlabel(parameter.replace("_", " ") + scale)
        candidate = line_entry(f"a candidate (upwards: {value})", marker="o", linestyle="", color=CANDIDATE)
        legend_below(figure, [candidate, line_entry("the winner", marker="D", linestyle="", color=BEST)])
    caption = f"Each complete candidate's {value} against each parameter; a row for each study."
    return Picture(figure, complete[["study", "trial", *parameters, "value"]], keys_of_trials(trials), caption)


def _numbers(axis: Axes, values: pd.Series, *, logarithmic: bool) -> None:
    """The same limits for all studies, with a margin of a twentieth on each side."""
    low, high = float(values.min()), float(values.max())
    if not logarithmic:
        margin = (high - low) / 20 or 1.0
        axis.set_xlim(low - margin, high + margin)
        return
    margin = (high / low) ** 0.05 if high > low else 1.05
    low, high = low / margin, high * margin
    axis.set_xlim(low, high)
    axis.set_xscale("log")
    ticks = _logarithmic_ticks(low, high)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high`: a few over many decades, more within less than one decade."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1,) if high / low > 1e3 else (1, 3) if high / low > 30 else (1, 2, 5)
    return [float(f"{digit}e{decade}") for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
