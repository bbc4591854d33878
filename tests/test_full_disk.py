"""A disk that is really full: a small file system holds one of the folders that a sweep writes to.

Needs the right to mount; whatever room is left, the sweep ends with one line, and the same command goes on when there
is room again.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.results import load
from rnnstudy.store.errors import StoreUnavailable
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from tests.test_faults import SWEEP, runs_of, statuses

MEGABYTES = 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system on `folder`; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    command = [mount, "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """A file that leaves `left` KB of the file system."""
    system = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(system.f_bavail * system.f_frsize - 1024 * left))
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "left"),
    [("", left) for left in (0, 16, 64, 128, 256, 400)]
    + [("claims", 8), ("checkpoints", 8), ("artifacts", 0), ("artifacts", 20)],
)
def test_a_sweep_on_a_full_disk_ends_with_one_line_and_the_same_command_goes_on(
    project_with_store: Path, empty_database: Path, rnnstudy: Callable[..., Any], folder: str, left: int
) -> None:
    project = project_with_store
    with small_disk(project / "mlruns" / folder) as disk:
        shutil.copy(empty_database, project / "mlruns" / "mlflow.db")
        ballast = fill(disk, left)
        full = rnnstudy(*SWEEP)
        assert full.returncode == 2, full.stdout
        assert_one_line(full.stderr, disk)
        assert "Traceback" not in full.stdout
        looked = rnnstudy("list", "experiments/small.py", "--scale", "smoke")
        assert (looked.returncode, looked.stderr) == (0, "")
        ballast.unlink()
        assert rnnstudy(*SWEEP).returncode == 0
        assert_whole(project)


def assert_one_line(told: str, disk: Path) -> None:
    assert told.count("\n") == 1, told
    assert told.startswith(f"rnnstudy: the disk is full at {disk}"), told
    assert told.endswith("; nothing is lost: make room, and the same command goes on\n"), told


def assert_whole(project: Path) -> None:
    """Each run is finished and can be read."""
    assert statuses(project) == ["FINISHED"] * 4
    keys = [run.key for run in runs_of(project)]
    assert set(load(keys, project=Project(project)).runs.index) == set(keys)
    assert not list((project / "mlruns" / "claims").glob("*.json"))
    assert not list((project / "mlruns" / "checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_logs_that_find_no_room_stop_nothing(project_with_store: Path, rnnstudy: Callable[..., Any]) -> None:
    with small_disk(project_with_store / "mlruns" / "logs") as disk:
        fill(disk, 0)
        done = rnnstudy(*SWEEP)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert_whole(project_with_store)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 8, 24, 48])
def test_files_in_place_of_a_store_that_is_away_find_no_room(
    project_with_store: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """The refuge is full, too."""
    project = project_with_store
    monkeypatch.setattr("rnnstudy.store.writer.SECONDS_OF_PATIENCE_AT_THE_END", 0.05)
    monkeypatch.setattr("rnnstudy.store.writer.SECONDS_OF_PATIENCE", 0.05)
    with small_disk(project / "mlruns" / "offline") as disk:
        ballast = fill(disk, left)
        with monkeypatch.context() as patch:
            away = StoreUnavailable("the database is locked")
            patch.setattr(MlflowTracker, "begin", lambda *_: (_ for _ in ()).throw(away))
            full = rnnstudy(*SWEEP)
        assert full.returncode == 2, full.stdout
        assert_one_line(full.stderr, disk)
        ballast.unlink()
        assert rnnstudy(*SWEEP).returncode == 0
        assert_whole(project)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 8, 24])
def test_an_offline_folder_on_a_full_disk(project: Path, rnnstudy: Callable[..., Any], left: int) -> None:
    with small_disk(project / "runs") as disk:
        ballast = fill(disk, left)
        full = rnnstudy(*SWEEP, "--offline", "runs")
        assert full.returncode == 2, full.stdout
        assert full.stderr.count("\n") == 1
        assert "the disk is full" in full.stderr
        ballast.unlink()
        assert rnnstudy(*SWEEP, "--offline", "runs").returncode == 0
        assert rnnstudy("sync", "runs").returncode == 0
    assert_whole(project)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 32, 96, 160])
def test_sync_into_a_full_disk_refuses_in_one_line_and_goes_on(
    project_with_store: Path, empty_database: Path, rnnstudy: Callable[..., Any], left: int
) -> None:
    project = project_with_store
    assert rnnstudy(*SWEEP, "--offline", "runs").returncode == 0
    with small_disk(project / "mlruns") as disk:
        shutil.copy(empty_database, project / "mlruns" / "mlflow.db")
        ballast = fill(disk, left)
        full = rnnstudy("sync", "runs")
        assert full.returncode == 2, full.stdout
        assert_one_line(full.stderr, disk)
        ballast.unlink()
        assert rnnstudy("sync", "runs").returncode == 0
        assert_whole(project)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 200, 700])
def test_a_store_that_is_made_on_a_full_disk_is_not_half_made(
    project: Path, rnnstudy: Callable[..., Any], left: int
) -> None:
    with small_disk(project / "mlruns") as disk:
        ballast = fill(disk, left)
        full = rnnstudy(*SWEEP)
        assert full.returncode == 2, full.stdout
        assert_one_line(full.stderr, disk)
        assert not Store(Project(project)).exists
        ballast.unlink()
        assert rnnstudy(*SWEEP).returncode == 0
        assert_whole(project)
