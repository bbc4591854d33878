"""Searches: the best settings of an experiment, found by Optuna. No other wing imports Optuna.

What comes in: a `Search` and a function `sample(trial, scale)` from an experiment file.
What goes out: studies in Optuna's storage; their candidates are ordinary runs in the store.
Begin with `definition.py`; `session.py` is a whole search on one screen. `studies.py` opens Optuna's storage,
`study_runner.py` runs one study, `queue.py` hands the candidates of all studies to a sweep, `trials.py` reads results.
"""

from rnnstudy.search.definition import Search
from rnnstudy.spec import lazy_names

__all__ = ["Search"]

# `launch_search` loads Optuna and the store, which a worker that imports an experiment file does not need.
__getattr__ = lazy_names(__name__, {"launch_search": "search.session"})
