"""What the figures of hyper-parameter searches share.

`trials` are tables of `rnnstudy.search`, one below the other: a row for each trial, with the columns of
`TRIAL_COLUMNS` and one for each parameter.
"""

# pyright: reportReturnType=false

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnstudy.figures.drawing import panels
from rnnstudy.spec import RequestError

__all__ = []

CANDIDATE = "0.55"
"""The colour of a candidate: grey, so that it is not taken for a cell."""

BEST = "black"
"""The colour of the best candidate."""

TRIAL_COLUMNS = ("study", "trial", "state", "value", "keys", "fresh")

_MOST_IN_A_ROW = 3


def study_panels(table: pd.DataFrame, height: float = 3.2) -> tuple[Figure, dict[str, Axes]]:
    """A figure and its panel for each study, titled, in rows of at most three."""
    names = list(dict.fromkeys(table["study"]))
    across = min(len(names), _MOST_IN_A_ROW)
    figure, axes = panels(across, height=height, rows=-(-len(names) // across))
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    studies = dict(zip(names, axes, strict=False))
    for name, axis in studies.items():
        axis.set_title(short_name(name))
    return figure, studies


def complete_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with a finite value. Raises `RequestError` when there is none."""
    complete = trials[np.isfinite(trials["value"].astype(float))].reset_index(drop=True)
    if complete.empty:
        raise RequestError("no trial is complete with a finite value; continue the search")
    return complete


def parameters_of(trials: pd.DataFrame) -> list[str]:
    return [column for column in trials.columns if column not in TRIAL_COLUMNS]


def keys_of_trials(trials: pd.DataFrame) -> tuple[str, ...]:
    """The keys of the runs of all trials, sorted."""
    return tuple(sorted({key for keys in trials["keys"] for key in keys.split()}))


def short_name(study: str) -> str:
    """The last part of a study's name, which differs between the studies of one experiment and scale."""
    return study.rpartition("/")[2]
