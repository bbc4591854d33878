"""Searches: the best settings of an experiment, found by Optuna; no other wing knows Optuna.

What comes in: a `Search` and a function `sample(trial, scale)` from an experiment file.
What goes out: studies in Optuna's storage, their candidates as ordinary runs in the store.
Begin with `definition.py`; `queue.py` feeds a sweep with candidates, `trials.py` reads a search back.
"""

from rnnstudy.search.definition import Search

__all__ = ["Search"]
