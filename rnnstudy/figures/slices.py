"""The value of each candidate of a search against each parameter."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.search_panels import BEST, CANDIDATE, complete_trials, keys_of_trials, parameters_of, short_name
from rnnstudy.figures.style import house_style


def slices(trials: pd.DataFrame, *, value: str, logarithmic: Sequence[str] = ()) -> Picture:
    """Value against each parameter, a row of panels per study; parameters in `logarithmic` on a logarithmic axis.

    Raises `RequestError` when no trial is complete.
    """
    complete, parameters = complete_trials(trials), parameters_of(trials)
    names = list(dict.fromkeys(trials["study"]))
    with house_style():
        figure, axes = panels(len(parameters), height=2.6, rows=len(names))
        for row, name in enumerate(names):
            own = complete[complete["study"] == name]
            best = own.loc[[own["value"].astype(float).idxmin()]] if len(own) else own
            for column, parameter in enumerate(parameters):
                axis = axes[row * len(parameters) + column]
                axis.plot(own[parameter], own["value"], "o", color=CANDIDATE, markersize=5, alpha=0.7)
                axis.plot(best[parameter], best["value"], "D", color=BEST, markersize=7)
                # The same limits for all studies, with a margin of a twentieth.
                low, high = float(complete[parameter].min()) / 1.05, float(complete[parameter].max()) * 1.05
                axis.set_xlim(low, high)
                if parameter in logarithmic:
                    axis.set_xscale("log")
                    ticks = _logarithmic_ticks(low, high)
                    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                    axis.xaxis.set_minor_formatter(NullFormatter())
                if row == len(names) - 1:
                    scale = "\n(logarithmic)" if parameter in logarithmic else ""
                    axis.set_xlabel(parameter.replace("_", " ") + scale)
                if column == 0:
                    axis.set_ylabel(short_name(name))
        candidate = line_entry(f"a candidate (upwards: {value})", marker="o", linestyle="", color=CANDIDATE)
        legend_below(figure, [candidate, line_entry("the winner", marker="D", linestyle="", color=BEST)])
    caption = f"Each complete candidate's {value} against each parameter; a row for each study."
    return Picture(figure, complete[["study", "trial", *parameters, "value"]], keys_of_trials(trials), caption)


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high`: a few over many decades, more within less than one decade."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1,) if high / low > 1e3 else (1, 3) if high / low > 30 else (1, 2, 5)
    return [float(f"{digit}e{decade}") for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
