"""Sweeps: an experiment file in, all of its runs trained and in the store.

What comes in: an experiment file (`experiment.py`), whose runs are often a `grid` (`grids.py`).
What goes out: runs in the store, and a `SweepSummary`.
Begin with `session.py`: `launch` is a whole sweep on one screen; `launcher.py` is the loop that it calls.
"""

from typing import TYPE_CHECKING

from rnnstudy.spec import lazy_names
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale, grid, override

if TYPE_CHECKING:
    from rnnstudy.sweep.session import Resources, launch
    from rnnstudy.sweep.summary import ProgressListener, SweepSummary

__all__ = [
    "Experiment",
    "ProgressListener",
    "Resources",
    "Scale",
    "SweepSummary",
    "grid",
    "launch",
    "load_experiment",
    "override",
]

# An experiment file imports this package in every worker, and a worker needs no store.
__getattr__ = lazy_names(
    __name__,
    {
        "ProgressListener": "sweep.summary",
        "Resources": "sweep.session",
        "SweepSummary": "sweep.summary",
        "launch": "sweep.session",
    },
)
