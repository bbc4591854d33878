"""Kill -9 at random moments, workers and parents: every run ends in the store exactly once, with the same bits."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from rnnstudy.results.trained import load_network
from rnnstudy.store.arrays import READINGS, read_manifest, read_series
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.grouping import populations
from rnnstudy.training.loop import train

SOAK = '''
"""Many short runs, in populations of a few."""
from rnnstudy.cells import LSTM, Elman
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


def runs(scale):
    training = Training(steps={steps}, batch=4, check_every=50, stop_when_solved=False, validation_sequences=20,
                        test_sequences=40)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=training,
               probes=(ParameterGradients(every=10), GradientThroughTime(every=50, sequences=4)))
    axes = {{"cell": [Elman(width=4), LSTM(width=4)], "task.length": list(range(10, 10 + {lengths}))}}
    return grid(base, axes, seeds=range({seeds}))
'''


def soak(project: Path, *, steps: int, lengths: int, seeds: int, kills: int, longest: float, seed: int) -> None:
    """Sweep 2 · lengths · seeds runs while workers and parents are killed; hold what is in the store against training
    in this process."""
    file = project / "experiments" / "soak.py"
    file.write_text(SOAK.format(steps=steps, lengths=lengths, seeds=seeds))
    chance = random.Random(seed)
    parent = _start(project)
    killed: list[str] = []
    while len(killed) < kills:
        victims = _workers_in_training(parent)
        if parent.poll() is not None:
            assert parent.returncode == 0, (project / "log.txt").read_text()
            break
        time.sleep(chance.uniform(0.0, longest))
        if chance.random() < 0.5:
            with suppress(psutil.NoSuchProcess):
                chance.choice(victims).kill()
                killed.append("worker")
        else:
            workers = _workers(parent)
            parent.kill()
            parent.wait()
            killed.append("parent")
            _, orphans = psutil.wait_procs(workers, timeout=180)
            assert not orphans, "workers whose parent was killed end by themselves"
            parent = _start(project)
    assert len(killed) == kills, f"the sweep ended after {len(killed)} kills: make it longer"
    ended = parent.wait(timeout=900)
    log = (project / "log.txt").read_text()
    if ended != 0:
        parent = _start(project)
        assert parent.wait(timeout=900) == 0, log + (project / "log.txt").read_text()

    runs = load_experiment(file).runs(Scale.SMOKE)
    assert len(runs) == 2 * lengths * seeds
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        statuses = database.execute("select status from runs where lifecycle_stage = 'active'").fetchall()
        keys = database.execute("select value from tags where key = 'rnnstudy.key'").fetchall()
    assert statuses == [("FINISHED",)] * len(runs)
    assert sorted(key for (key,) in keys) == sorted(run.key for run in runs)
    assert not list((project / "mlruns" / "checkpoints").glob("*.pt"))
    assert not list((project / "mlruns" / "claims").glob("*.json"))

    store = Store(Project(project))
    stored = store.finished()
    for population in populations(runs):
        for record in train(population, device="cpu"):
            if record.outcome is None:
                continue
            kept = load_network(record.key, project=Project(project)).parameters
            assert kept.keys() == (record.weights or {}).keys()
            for name, value in (record.weights or {}).items():
                np.testing.assert_array_equal(kept[name].numpy(), value, err_msg=f"{record.key} {name}")
            path = store.artifact(stored[record.key], READINGS)
            manifest = read_manifest(path)
            assert set(manifest["series"]) == set(record.series)
            assert manifest["run"]["outcome"]["engine"] == record.outcome.engine == "compiled"
            for name, series in record.series.items():
                read = read_series(path, name, manifest)
                np.testing.assert_array_equal(read.steps, series.steps)
                np.testing.assert_array_equal(read.values, series.values, err_msg=f"{record.key} {name}")


def _start(project: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", "sweep", "experiments/soak.py"]
    with (project / "log.txt").open("w") as log:
        return subprocess.Popen(
            [*command, "--scale", "smoke", "--workers", "2"], cwd=project, stdout=log, stderr=subprocess.STDOUT
        )


def _workers(parent: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _workers_in_training(parent: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers, once there are some; none when the sweep has ended."""
    deadline = time.monotonic() + 120
    while parent.poll() is None:
        if found := _workers(parent):
            return found
        assert time.monotonic() < deadline, "no worker was started"
        time.sleep(0.05)
    return []


def test_kills_at_random_moments(project_with_store: Path) -> None:
    soak(project_with_store, steps=600, lengths=3, seeds=2, kills=3, longest=3.0, seed=1)


@pytest.mark.slow
def test_twenty_kills_over_sixty_runs(project_with_store: Path) -> None:
    soak(project_with_store, steps=4000, lengths=6, seeds=5, kills=20, longest=8.0, seed=2)


@pytest.mark.slow
def test_a_hundred_kills_over_one_sweep(project_with_store: Path) -> None:
    soak(project_with_store, steps=4000, lengths=8, seeds=5, kills=100, longest=4.0, seed=3)
