"""What the command line prints of a sweep."""

from pathlib import Path

import numpy as np
from rich.console import Console

from rnnstudy.cells import Elman
from rnnstudy.cli.tables import outcomes_table
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.grids import grid
from rnnstudy.sweep.summary import SweepSummary
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series


def test_diverged_runs_count_as_unsolved_and_settings_that_are_none_are_a_dash(project_with_store: Path) -> None:
    home = Project(project_with_store)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=Training(steps=5))
    runs = grid(base, {"training.clip": [None, ClipNorm(threshold=2.5)]}, seeds=range(3))
    tracker = MlflowTracker(open_store(home), SweepInfo("planted", "experiments/planted.py"))
    for run in runs:
        diverged = run.training.clip is None and run.seed < 2
        outcome = Outcome("diverged" if diverged else "finished", 5, None if diverged else True, engine="reference")
        tracker.begin(run, run.name)
        series = {"learning/loss": Series(np.arange(5), np.ones(5), (), "nats", 1)}
        tracker.write(Record(run.key, 5, 1000.0, series, outcome))
    tracker.close()
    console = Console(width=200)
    with console.capture() as captured:
        console.print(outcomes_table(SweepSummary(runs=runs, project=home).table))
    header, *rows = (line.split() for line in captured.get().splitlines() if line.strip())
    assert header[:6] == ["cell", "length", "clip", "threshold", "solved", "diverged"]
    assert sorted(row[2:] for row in rows) == [
        ["ClipNorm", "2.5", "3", "of", "3", "–", "–", "–", "–"],
        ["–", "–", "1", "of", "3", "2", "–", "–", "–", "–"],
    ]
