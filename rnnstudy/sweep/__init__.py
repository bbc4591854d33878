"""Sweeps: an experiment file in, all of its runs trained and in the store.

What comes in: an experiment file (`experiment.py`), whose runs are often a `grid` (`grids.py`).
What goes out: runs in the store, and a `SweepSummary`.
Begin with `session.py`: `launch` is a whole sweep on one screen; `launcher.py` is the loop that it calls.
"""

from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale, grid, override

__all__ = ["Experiment", "Scale", "grid", "load_experiment", "override"]
