"""Searches in a PostgreSQL database and sweeps with an MLflow server; the tests start both servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from rnnstudy import results
from rnnstudy.search.studies import study_statuses
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

pytestmark = pytest.mark.slow

PASSWORD = "not-to-be-seen"

SEARCH = '''
"""A small search."""
from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.search import Search
from rnnstudy.tasks import TemporalOrder

SEARCH = Search(trials=6, together=2, seeds=(0, 1), fresh_seeds=(10, 11))


def sample(trial, scale):
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    training = Training(steps=600, batch=4, check_every=100, learning_rate=rate, validation_sequences=20,
                        test_sequences=40)
    return Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=training, probes=())
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.1)


def _programs() -> Path | None:
    """The folder of PostgreSQL's programs: of the newest version of Debian's package, or else on the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    named = shutil.which("initdb")
    return max(found, default=Path(named).parent if named else None)


def _user() -> str | None:
    """The user that runs PostgreSQL, which refuses to run as root; None for the current user."""
    import pwd

    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address, with password, of a new server with an empty database."""
    import tempfile

    pytest.importorskip("psycopg2", reason="rnnstudy[postgres] is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package is called postgresql)")
    user, port = _user(), free_port()

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, user=user, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    # Not in pytest's folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="rnnstudy-postgres-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD + "\n")
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        run(
            *(str(programs / "initdb"), "--pgdata", str(folder / "data"), "--username", "searcher", "--no-sync"),
            *("--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--encoding", "UTF8"),
        )
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -p {port}"
        control = (str(programs / "pg_ctl"), "--pgdata", str(folder / "data"))
        run(*control, "--wait", "--log", str(folder / "log"), "--options", options, "start")
        try:
            yield f"postgresql://searcher:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "--wait", "--mode", "immediate", "stop")


def started(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command line in a new process group, so that all of its processes can be killed."""
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finished(process: "subprocess.Popen[str]", seconds: float = 300) -> str:
    """The output of a process, which must end with exit code 0."""
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, printed
    return printed


def once_each(stored: Sequence[Any], expected: int) -> None:
    keys = [run.key for run in stored]
    assert len(keys) == len(set(keys)) == expected
    assert {run.state for run in stored} == {"finished"}


def test_a_search_in_postgresql_continues_after_a_kill(project_with_store: Path, postgres: str) -> None:
    project = Project(project_with_store)
    (project.root / "experiments" / "mine.py").write_text(SEARCH)
    sweep = ("sweep", "experiments/mine.py", "--scale", "smoke", "--workers", "1", "--storage", postgres)

    killed = started(project.root, *sweep)

    def batch_in_training() -> bool:
        assert killed.poll() is None, killed.communicate()[0]
        studies = study_statuses(project, postgres)
        return bool(studies) and studies[0].complete >= 2 and studies[0].running > 0

    wait_until(batch_in_training, 240, "batch with results and batch in training")
    os.killpg(killed.pid, signal.SIGKILL)
    printed = [killed.communicate()[0]]
    [status] = study_statuses(project, postgres)
    assert 0 < status.complete < 6

    printed.append(finished(started(project.root, *sweep)))
    [status] = study_statuses(project, postgres)
    assert (status.complete, status.running, len(status.fresh_keys)) == (6, 0, 2)
    stored = Store(project).runs()
    assert all(run.state == "finished" for run in stored)
    assert len({run.key for run in stored}) == len(stored) == 6 * 2 + 2
    assert not (project.mlruns / "optuna.db").exists()

    printed.append(finished(started(project.root, *sweep)))
    assert "0 trials to go" in printed[-1]
    assert len(Store(project).runs()) == len(stored)
    shown = finished(started(project.root, "studies", "--storage", postgres))
    assert "mine/smoke" in shown
    assert "6 of 6" in shown
    elsewhere = postgres.removesuffix("/postgres") + "/absent"
    refused = started(project.root, "studies", "--storage", elsewhere)
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2
    assert 'database "absent" does not exist' in output
    assert len(output.strip().splitlines()) == 1
    for text in (*printed, shown, output, *(str(run.tags) for run in stored)):
        assert PASSWORD not in text


@pytest.fixture
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The address of a local MLflow server with a new store, which also serves the artifacts."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_database, folder / "mlflow.db")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        try:
            with urlopen(f"{address}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    try:
        wait_until(answers, 180, "answer of the MLflow server")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_sweep_that_logs_to_a_server(project: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    home = Project(project)
    runs = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)
    sweep = ("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1")
    first = finished(started(project, *sweep))
    assert "4 to train" in first
    stored = Store(home).runs()
    once_each(stored, 4)
    assert not home.database.exists()

    again = finished(started(project, *sweep))
    assert "4 in the store, 0 to train" in again
    assert [run.identity for run in Store(home).runs()] == [run.identity for run in stored]

    loaded = results.load(experiment="small", project=home)
    assert set(loaded.runs.index) == {run.key for run in runs}
    assert set(loaded.runs["status"]) == {"finished"}
    read = loaded.readings("gradient/global_before")
    assert set(read.groupby("key", observed=True)["step"].nunique()) == {20}
