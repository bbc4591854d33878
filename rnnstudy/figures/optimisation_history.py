"""The value of each trial of a search, and the best so far."""

# pyright: reportCallIssue=false

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.search_panels import BEST, CANDIDATE, complete_trials, keys_of_trials, study_panels
from rnnstudy.figures.style import BOUND, house_style


def optimisation_history(trials: pd.DataFrame, *, value: str) -> Picture:
    """Value of each trial and the best so far, one panel per study; `value` says what the value is.

    Raises `RequestError` when no trial is complete.
    """
    complete_trials(trials)
    rows = []
    with house_style():
        figure, axes = study_panels(trials)
        for name, axis in axes.items():
            own = trials[trials["study"] == name].sort_values("trial")
            own = own.assign(best=own["value"].astype(float).cummin().ffill(), order=range(1, len(own) + 1))
            rows.append(own[["study", "trial", "order", "state", "value", "best"]])
            shown = own[np.isfinite(own["value"].astype(float))]
            axis.plot(shown["order"], shown["value"], "o", color=CANDIDATE, markersize=6, mec="white", zorder=3)
            axis.step(own["order"], own["best"], where="post", color=BEST)
            for order in own.loc[own["state"] == "pruned", "order"]:
                axis.plot(order, 0.0, "x", color=BOUND, transform=axis.get_xaxis_transform(), clip_on=False)
            axis.set_xlabel("candidate, in the order of trials")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.axes[0].set_ylabel(value)
        candidate = line_entry("a candidate", marker="o", linestyle="", color=CANDIDATE)
        entries = [candidate, line_entry("best so far", color=BEST)]
        caption = f"Each candidate's {value}, the median over its seeds, and the lowest so far."
        if (trials["state"] == "pruned").any():
            entries.append(line_entry("pruned (on the axis)", marker="x", linestyle="", color=BOUND))
            caption += " Crosses on the axis: candidates that were stopped early (pruned)."
        legend_below(figure, entries)
    return Picture(figure, pd.concat(rows, ignore_index=True), keys_of_trials(trials), caption)
