"""A folder that is removed while a sweep runs: the sweep goes on, or ends in one line; the store keeps what it has."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.store import writer
from rnnstudy.training import loop
from tests.test_faults import SWEEP, add, runs_of

pytestmark = pytest.mark.slow

REMOVED = """
def meddle(runs, records, options):
    for number, record in enumerate(records):
        if number == 1 and not (HERE / "done").exists() and runs.runs[0].cell.label() == "lstm":
            (HERE / "done").touch()
            project = HERE.parent
            os.rename(project / "{folder}", project.with_name(project.name + "-gone"))
        yield record
"""


@pytest.fixture(autouse=True)
def the_fault_ends_with_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "train", loop.train)


def statuses(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
    return sorted(status for (status,) in rows)


@pytest.fixture(autouse=True)
def a_store_that_is_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SECONDS_OF_PATIENCE_AT_THE_END", 1.0)


@pytest.mark.parametrize("folder", ["mlruns/checkpoints", "mlruns/claims", "mlruns/logs", "mlruns/artifacts"])
def test_without_a_folder_beside_the_store_the_sweep_goes_on(
    project_with_store: Path, rnnstudy: Callable[..., Any], folder: str
) -> None:
    add(project_with_store, REMOVED.replace("{folder}", folder))
    done = rnnstudy(*SWEEP)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert statuses(project_with_store / "mlruns" / "mlflow.db") == ["FINISHED"] * 4
    assert "Traceback" not in done.stdout
    assert "another launcher took" not in done.stdout


def test_without_the_store_runs_go_to_files_and_come_into_it_when_it_is_back(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    add(project, REMOVED.replace("{folder}", "mlruns"))
    done = rnnstudy(*SWEEP)
    told = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    # The other population may have ended in the store before.
    assert re.search(r"mlflow\.db is gone; [24] runs in files: when the store is back, run: rnnstudy sync \S+", told)
    [offline] = (project / "mlruns" / "offline").iterdir()
    back = project.with_name(f"{project.name}-gone")
    shutil.move(offline, project / "runs")
    shutil.rmtree(project / "mlruns")
    back.rename(project / "mlruns")
    assert rnnstudy("sync", "runs").returncode == 0
    assert statuses(project / "mlruns" / "mlflow.db") == ["FINISHED"] * 4


def test_where_nothing_can_be_written_instead_one_line_says_so_and_what_was_stored_stays(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    assert rnnstudy(*SWEEP, "--only", runs_of(project)[0].key).returncode == 0
    # A file in its place: no folder can be made there.
    in_place = '"{folder}", project.with_name(project.name + "-gone"))'
    add(project, REMOVED.replace(in_place, f'{in_place}; (project / "mlruns").touch()').replace("{folder}", "mlruns"))
    done = rnnstudy(*SWEEP)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"rnnstudy: \S+/mlruns/\S+ (is gone|cannot be written) .*\n", done.stderr)
    (project / "mlruns").unlink()
    project.with_name(f"{project.name}-gone").rename(project / "mlruns")
    assert "FINISHED" in statuses(project / "mlruns" / "mlflow.db")
    # The launcher was this process, which lives: its claims, which went away with the folder, count still.
    shutil.rmtree(project / "mlruns" / "claims")
    assert rnnstudy(*SWEEP).returncode == 0
    assert statuses(project / "mlruns" / "mlflow.db") == ["FINISHED"] * 4
