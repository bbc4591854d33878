"""What tracking costs: wall time where a run trains for a minute, the writer's time for a short one, a second start.

Sweeps have one worker and a project of their own; the writer's seconds are those its thread spends in the tracker,
beside the training. A second start is the whole command, from the shell and back.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rnnstudy.cells.lstm import LSTM
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.writer import Writer
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.grids import grid
from rnnstudy.sweep.launcher import Launcher
from rnnstudy.sweep.plan import make_plan
from rnnstudy.sweep.sharing import Sharing
from rnnstudy.sweep.summary import Silent, SweepSummary
from rnnstudy.sweep.workers import ProcessPool
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

ROOT = Path(__file__).parent.parent

LIMITS = {"share_of_wall_time": 0.03, "writer_seconds_per_run": 0.5, "restart_seconds": 5.0}


class PrintedMessages(Silent):
    """Prints messages and draws nothing."""

    def message(self, line: str) -> None:
        print(line)


def short_runs(count: int) -> list[Run]:
    training = Training(steps=200, stop_when_solved=False, validation_sequences=100, test_sequences=100)
    return grid(Run(task=TemporalOrder(length=20), cell=LSTM(width=10), training=training), {}, seeds=range(count))


def minute_run(steps: int) -> Run:
    training = Training(steps=steps, stop_when_solved=False)
    return Run(task=TemporalOrder(length=100), cell=LSTM(width=50), training=training)


def experiment_file(count: int, home: Project) -> Path:
    """An experiment of many short runs."""
    file = home.root / "experiments" / "short.py"
    file.parent.mkdir()
    file.write_text(
        f"from benchmarks.tracking import short_runs\n\n\ndef runs(scale):\n    return short_runs({count})\n"
    )
    return file


def sweep(runs: Sequence[Run], home: Project, file: Path) -> SweepSummary:
    """Train what the store does not hold, in a worker, as `rnnstudy sweep` does with an experiment of these runs."""
    tracker = MlflowTracker(open_store(home), SweepInfo(file.stem, str(file)))
    claims = Claims(home.claims)
    plan = make_plan(runs, tracker.store, home.checkpoints, workers=1)
    claims = Claims(home.claims)
    sharing = Sharing(claims, tracker.store, lambda free: make_plan(free, tracker.store, home.checkpoints, 1))
    pool = ProcessPool(1, ["cpu"], None, "auto", home.logs)
    return Launcher(plan.queue(), pool, Writer(tracker, None), sharing, home, PrintedMessages()).run()


def second_start(count: int, file: Path) -> float:
    """Seconds that `rnnstudy sweep` takes where the store holds every run."""
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", "sweep", str(file), "--workers", "1"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    assert f"{count} in the store, 0 to train" in done.stdout, done.stdout
    return seconds


def measure(short: int = 200, seconds: float = 60.0) -> list[dict[str, Any]]:
    """The three costs, each beside its limit."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
        home = Project(Path(folder))
        assert Store(home).client is not None
        file = experiment_file(short, home)
        many = sweep(short_runs(short), home, file)
        assert len(many.ended) == short
        restart = second_start(short, file)
        sample = minute_run(200)
        list(train(Population((sample,)), device="cpu"))
        began = time.perf_counter()
        list(train(Population((sample,)), device="cpu"))
        steps = round(200 * seconds / (time.perf_counter() - began))
        long = sweep([minute_run(steps)], home, file)
    (outcome,) = long.ended.values()
    costs = {
        "share_of_wall_time": long.writing_seconds / outcome.seconds,
        "writer_seconds_per_run": many.writing_seconds / short,
        "restart_seconds": restart,
    }
    return [{"cost": name, "measured": cost, "limit": LIMITS[name]} for name, cost in costs.items()]
