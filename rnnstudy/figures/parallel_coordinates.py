"""The candidates of a search as lines over their parameters."""

# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from rnnstudy.figures.picture import Picture
from rnnstudy.figures.search_panels import complete_trials, keys_of_trials, parameters_of, study_panels
from rnnstudy.figures.style import HEAT, house_style


def parallel_coordinates(trials: pd.DataFrame, *, value: str, logarithmic: Sequence[str] = ()) -> Picture:
    """Each candidate as a line over its parameters, coloured by its value, one panel per study.

    Raises `RequestError` when no trial is complete.
    """
    complete, parameters = complete_trials(trials), parameters_of(trials)
    scaled = complete[parameters].astype(float)
    scaled = scaled.assign(**{name: np.log10(scaled[name]) for name in logarithmic if name in parameters})
    low = scaled.min()
    heights = (scaled - low) / (scaled.max() - low).replace(0.0, 1.0)
    norm = Normalize(float(complete["value"].min()), float(complete["value"].max()))
    with house_style():
        figure, axes = study_panels(trials, height=3.6)
        for name, axis in axes.items():
            # The best candidates last, on top of the others.
            own = complete[complete["study"] == name].sort_values("value", ascending=False)
            for key, reached in own["value"].items():
                colour = colormaps[HEAT](norm(reached))
                axis.plot(range(len(parameters)), heights.loc[key], color=colour, linewidth=1.6, alpha=0.9)
            words = [name.replace("_", "\n") + ("\n(log)" if name in logarithmic else "") for name in parameters]
            axis.set_xticks(range(len(parameters)), words)
            axis.set_yticks([0, 1], ["least", "most"])
            axis.set_ylim(-0.05, 1.05)
        figure.colorbar(ScalarMappable(norm, HEAT), ax=figure.axes, label=value, shrink=0.8)
    ranges = ", ".join(
        f"{name.replace('_', ' ')} {complete[name].min():.3g} to {complete[name].max():.3g}"
        + (" (logarithmic)" if name in logarithmic else "")
        for name in parameters
    )
    caption = f"Each complete candidate as a line, coloured by its {value}. The axes, from least to most: {ranges}."
    return Picture(figure, complete[["study", "trial", *parameters, "value"]], keys_of_trials(trials), caption)
