"""The store: what is stored of each run, in MLflow or in files.

What comes in: a run when it begins, then its records (the contract `tracker.Tracker`).
What goes out: which runs are complete (`stored_run.RunIndex`), and their files.
Begin with `tracker.py`; then `open_run.py` (a run being written), `mlflow_tracker.py`, `mlflow_store.py`, `offline.py`.
"""
