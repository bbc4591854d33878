"""What breaks while a search runs: workers that are killed, a storage whose disk is full; the search goes on."""

import multiprocessing
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.search.queue import SearchQueue
from rnnstudy.search.studies import StudyStatus, study_statuses
from rnnstudy.search.study_runner import StudyRunner
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.records import Outcome, Record, ValidationCheck
from tests.test_full_disk import assert_one_line, fill, small_disk
from tests.test_malformed_stores import write
from tests.test_search import FILE

SEARCH = ("sweep", "experiments/mine.py", "--scale", "smoke", "--workers", "1", "--engine", "reference")


@pytest.fixture
def searching(project_with_store: Path, empty_storage: Path) -> Path:
    shutil.copy(empty_storage, project_with_store / "mlruns" / "optuna.db")
    (project_with_store / "experiments" / "mine.py").write_text(FILE.format(trials=4))
    return project_with_store


def kill_workers() -> int:
    """Kill the worker processes of this launcher, and wait until they have ended; how many there were."""
    workers = [child for child in multiprocessing.active_children() if child.is_alive()]
    for worker in workers:
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    return len(workers)


def whole(project: Path) -> StudyStatus:
    """The status of the only study; each of its runs is in the store once."""
    runs = Store(Project(project)).runs()
    assert len(runs) == len({run.key for run in runs}) == 4 * 2 + 2
    assert {run.state for run in runs} == {"finished"}
    [status] = study_statuses(Project(project))
    assert (status.complete, status.failed, status.running, len(status.fresh_keys)) == (4, 0, 0, 2)
    return status


def test_a_worker_that_is_killed_while_it_is_idle_is_replaced(
    searching: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed the next candidates, and the search ended with exit code 1 and no word."""
    ask, killed = StudyRunner._ask, []

    def ask_after_a_kill(self: StudyRunner, count: int) -> None:
        # The only study has nothing open, so that every worker is idle.
        killed.append(kill_workers())
        ask(self, count)

    monkeypatch.setattr(StudyRunner, "_ask", ask_after_a_kill)
    done = rnnstudy(*SEARCH)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert killed == [0, 1]
    whole(searching)


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_trains_candidates_is_replaced(
    searching: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, killed = SearchQueue.on_validation, []

    def check_after_a_kill(self: SearchQueue, message: ValidationCheck) -> Collection[str]:
        if not killed:
            killed.append(kill_workers())
        return check(self, message)

    monkeypatch.setattr(SearchQueue, "on_validation", check_after_a_kill)
    done = rnnstudy(*SEARCH)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert killed == [1]
    assert "worker ended with exit code -9; " in " ".join(done.stdout.split())
    whole(searching)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 32, 64, 96, 160, 256])
def test_a_search_on_a_full_disk_ends_with_one_line_and_the_same_command_goes_on(
    searching: Path, empty_storage: Path, empty_database: Path, rnnstudy: Callable[..., Any], left: int
) -> None:
    project = searching
    with small_disk(project / "mlruns") as disk:
        shutil.copy(empty_database, disk / "mlflow.db")
        shutil.copy(empty_storage, disk / "optuna.db")
        ballast = fill(disk, left)
        full = rnnstudy(*SEARCH)
        assert full.returncode == 2, full.stdout
        assert_one_line(full.stderr, disk)
        assert "Traceback" not in full.stdout
        looked = rnnstudy("studies")
        assert (looked.returncode, looked.stderr) == (0, "")
        ballast.unlink()
        assert rnnstudy(*SEARCH).returncode == 0
        assert_nothing_lost(project)


def assert_nothing_lost(project: Path) -> None:
    """All candidates have a value; one that was told to Optuna in vain is repeated, with the same parameters."""
    runs = Store(Project(project)).runs()
    assert {run.state for run in runs} == {"finished"}
    assert len(runs) == len({run.key for run in runs})
    [status] = study_statuses(Project(project))
    assert (status.complete, status.running, len(status.fresh_keys)) == (4, 0, 2)


def stored(project: Path) -> str:
    """The key of a run that is written into the store, as if it had failed."""
    run = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)[0]
    write(Project(project), run, [Record(run.key, 0, 1.0, {}, Outcome("failed", 0))])
    return run.key


@pytest.mark.slow
def test_what_writes_into_a_read_only_folder_is_refused_in_one_line_and_what_reads_is_not(
    searching: Path, empty_storage: Path, rnnstudy: Callable[..., Any]
) -> None:
    key = stored(searching)
    # Not written on the disk itself: MLflow keeps its database open.
    database = shutil.copy(searching / "mlruns" / "mlflow.db", searching / "kept.db")
    with small_disk(searching / "mlruns") as disk:
        shutil.copy(database, disk / "mlflow.db")
        shutil.copy(empty_storage, disk / "optuna.db")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for words in (SEARCH, ("sweep", "experiments/small.py", "--scale", "smoke"), ("forget", key)):
            refused = rnnstudy(*words)
            assert refused.returncode == 2
            assert refused.stderr.count("\n") == 1
            assert re.search(r"optuna\.db cannot be written|mlruns cannot hold runs \(Read-only file", refused.stderr)
        for words in (("studies",), ("list", "experiments/small.py", "--scale", "smoke")):
            looked = rnnstudy(*words)
            assert (looked.returncode, looked.stderr) == (0, ""), words
