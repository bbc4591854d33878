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

__all__ = ["Experiment", "Resources", "Scale", "grid", "launch", "load_experiment", "override"]

# An experiment file imports this package in every worker, and a worker needs no store.
__getattr__ = lazy_names(__name__, {"Resources": "sweep.session", "launch": "sweep.session"})
