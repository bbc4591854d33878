"""Searches: the best settings of an experiment, found by Optuna. No other wing imports Optuna.

What comes in: a `Search` and a function `sample(trial, scale)` from an experiment file.
What goes out: studies in Optuna's storage; their candidates are ordinary runs in the store.
Begin with `definition.py`. `studies.py` opens Optuna's storage, `study_runner.py` runs one study, `queue.py` hands the
candidates of all studies to a sweep, `trials.py` reads the result of a search.
"""

from rnnstudy.search.definition import Search

__all__ = ["Search"]
