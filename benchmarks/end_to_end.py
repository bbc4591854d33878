"""A sweep from the shell and back: 64 quickstart runs by `rnnstudy sweep`, against 64 processes that use torch.nn.

Both sides have all cores. Ours is the command as a user types it, every gradient through time recorded; the others are
`separate_process`, one for each run, as many at once as there are cores, into a store that is there already.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rnnstudy.run import Run
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "experiments" / "quickstart.py"
RUNS = 64
TO_WARM_UP = 4
"""Runs of which both cells have some."""
EXPERIMENT = '''"""The quickstart's specifications, on seeds for {runs} runs."""

from benchmarks.end_to_end import quickstart


def runs(scale):
    return quickstart({runs})
'''


def quickstart(count: int = RUNS) -> list[Run]:
    """So many runs of experiments/quickstart.py at desk scale: its specifications in turn, on seeds 0, 1, 2, …"""
    kinds = [run for run in load_experiment(QUICKSTART).runs(Scale.DESK) if run.seed == 0]
    return [kinds[place % len(kinds)].replace(seed=place // len(kinds)) for place in range(count)]


def as_a_sweep(count: int, folder: Path) -> float:
    """Seconds that `rnnstudy sweep` takes for the runs, from the shell and back, in a project of its own."""
    file = folder / "experiments" / "end_to_end_sweep.py"
    file.parent.mkdir(parents=True)
    file.write_text(EXPERIMENT.format(runs=count))
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", "sweep", str(file)]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(RNNSTUDY_HOME=str(folder)), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"the sweep ended with exit code {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def as_separate_processes(count: int, folder: Path) -> float:
    """Seconds that a process for each run takes, as many at once as there are cores."""
    import mlflow

    store = f"sqlite:///{folder / 'mlflow.db'}"
    # Before the clock starts: a new store cannot be first touched by several processes.
    client = mlflow.MlflowClient(store)
    client.create_experiment("separate processes", artifact_location=(folder / "artifacts").as_uri())

    def one(place: int) -> None:
        command = [sys.executable, "-m", "benchmarks.separate_process", str(place), store]
        done = subprocess.run(command, cwd=ROOT, env=_environment(OMP_NUM_THREADS="1"), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"process {place} ended with exit code {done.returncode}:\n{done.stderr}")

    began = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, range(count)))
    return time.perf_counter() - began


def measure(count: int = RUNS) -> list[dict[str, Any]]:
    """Both, one after the other. The kernels are compiled before: that happens once on a machine."""
    with tempfile.TemporaryDirectory(prefix="rnnstudy-") as scratch:
        folder = Path(scratch)
        as_a_sweep(TO_WARM_UP, folder / "warm")
        ours = as_a_sweep(count, folder / "sweep")
        (folder / "separate").mkdir()
        theirs = as_separate_processes(count, folder / "separate")
    return [{"runs": count, "seconds": {"sweep": ours, "processes": theirs}, "times_sooner": theirs / ours}]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}
