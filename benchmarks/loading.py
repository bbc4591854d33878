"""Loading a study: 200 runs with their full readings, from the store into data frames.

The store holds 100 runs of an Elman cell and 100 of an LSTM at T = 100, with what an experiment keeps at desk scale:
gradients by time step every 25 updates of 1500, by lag before and after training, norms and losses. The numbers are
random; what is measured is opening the files and building one data frame for each reading, as reports do.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training_step import spread
from rnnstudy import results
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series

RUNS, LENGTH, STEPS, SPACING = 200, 100, 1500, 25
ROUNDS = 5
LIMIT = 3.0
"""Seconds that a report may wait for its data."""


def measure() -> list[dict[str, Any]]:
    """Seconds to load all runs and all their readings: median, lowest and highest of the rounds."""
    with tempfile.TemporaryDirectory(prefix="rnnstudy-loading-") as folder:
        home = Project(Path(folder))
        fill(home, RUNS)
        seconds, rows = [], 0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            loaded = results.load(experiment="loading", project=home)
            rows = sum(len(loaded.readings(name)) for name in loaded.names)
            seconds.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in home.artifacts.rglob("*.npz"))
    found = {"runs": len(loaded.runs), "readings": len(loaded.names), "rows": rows, "megabytes": size / 1e6}
    return [{**found, "seconds": spread(seconds), "limit": LIMIT}]


def fill(home: Project, runs: int) -> None:
    """Make a store of so many runs, half of them of an Elman cell, half of an LSTM."""
    tracker = MlflowTracker(open_store(home), SweepInfo("loading", "experiments/loading.py", "benchmark"))
    for number in range(runs):
        cell = Elman(width=50) if number % 2 else LSTM(width=50)
        run = Run(task=TemporalOrder(length=LENGTH), cell=cell, training=Training(steps=STEPS), seed=number)
        tracker.begin(run, run.name)
        outcome = Outcome("finished", STEPS, True, STEPS, seconds=1.0, engine="compiled")
        tracker.write(Record(run.key, STEPS, 1000.0 + number, _series(run, number), outcome))
    tracker.close()


def _series(run: Run, seed: int) -> dict[str, Series]:
    draw = np.random.default_rng(seed).standard_normal
    every = np.arange(0, STEPS, SPACING)
    series = {"learning/loss": Series(np.arange(STEPS), draw(STEPS), (), "nats", 1)}
    series["learning/error"] = Series(np.arange(0, STEPS + 1, 50), draw(STEPS // 50 + 1), (), "share", 50)
    for name in ("W_xh_before", "W_hh_before", "b_h_before", "W_ho_before", "global_before", "global_after"):
        series[f"gradient/{name}"] = Series(np.arange(0, STEPS, 10), draw(STEPS // 10), (), "log10", 10)
    for state in run.cell.states:
        by_time = draw((len(every), 5, LENGTH))
        series[f"through_time/{state}"] = Series(every, by_time, ("quantile", "time"), "log10", SPACING)
        for stage in ("initial", "final"):
            for suffix in ("", "_normalised"):
                by_lag = draw((1, 5, LENGTH))
                name = f"profile/{state}_{stage}{suffix}"
                series[name] = Series(np.array([0]), by_lag, ("quantile", "lag"), "log10")
    return series
