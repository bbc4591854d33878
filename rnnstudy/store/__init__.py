"""The store: what is kept of a run, in MLflow or in files.

What comes in: a run when it begins, then its records (`tracker.Tracker`, the contract of whoever writes them).
What goes out: which runs are complete (`tracker.RunIndex`), and their artifacts.
Begin with `tracker.py`; then `open_run.py` (one run being written), `mlflow_tracker.py` and `offline.py`.
"""
