"""Passwords in addresses: used, and never shown."""

import shutil
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.report.mlflow_pages import server
from rnnstudy.search import session as search_session
from rnnstudy.search.studies import StorageError, connect_storage, damaged_study
from rnnstudy.store.errors import StoreError
from rnnstudy.store.mlflow_server import check_server
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep.session import Session
from rnnstudy.sweep.summary import SweepSummary

PASSWORD = "open-sesame"


class Guarded(BaseHTTPRequestHandler):
    """Answers those who know the password."""

    users: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        self.users.append(b64decode(encoded).decode() if scheme == "Basic" else "")
        self.send_response(200 if self.users[-1] == f"me:{PASSWORD}" else 503)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Guarded) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def test_a_server_with_basic_authentication_is_reached_as_mlflow_does(guarded: int) -> None:
    check_server(f"http://me:{PASSWORD}@127.0.0.1:{guarded}")
    assert Guarded.users[-1] == f"me:{PASSWORD}"
    with pytest.raises(StoreError, match=r"http://me:…@127\.0\.0\.1:\d+ cannot be reached \(status 503\)"):
        check_server(f"http://me:wrong@127.0.0.1:{guarded}")


@pytest.mark.parametrize(
    "address", ["http://me:{}@127.0.0.1:1", "http://me:{}@nowhere.invalid:x", "postgresql://me:{}@127.0.0.1:1/db"]
)
def test_a_password_of_the_store_is_in_no_message(
    project: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(PASSWORD))
    answer = rnnstudy("show", "abc")
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert PASSWORD not in answer.stdout + answer.stderr


SEARCH = """
from rnnstudy.search import Search
SEARCH = Search(trials=1)
def sample(trial, scale): ...
"""


@pytest.mark.parametrize("storage", ["postgresql://me:{}@127.0.0.1:1/db", "nothing://me:{}@h/db", "sqlite://me:{}@x:y"])
def test_a_password_of_the_storage_is_in_no_message(
    project: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    (project / "experiments" / "searching.py").write_text(SEARCH)
    monkeypatch.setenv("RNNSTUDY_STORAGE", storage.format(PASSWORD))
    for command in (("studies",), ("sweep", "experiments/searching.py", "--workers", "1")):
        answer = rnnstudy(*command)
        assert answer.returncode == 2
        assert len(answer.stderr.splitlines()) == 1
        assert PASSWORD not in answer.stdout + answer.stderr


def test_a_storage_in_the_environment_does_not_keep_other_experiments_from_running(
    project: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNSTUDY_STORAGE", "sqlite:///x.db")
    assert rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--dry-run").returncode == 0
    named = rnnstudy("sweep", "experiments/small.py", "--storage", "sqlite:///x.db")
    assert (named.returncode, "defines none" in named.stderr) == (2, True)


def test_the_ui_hands_its_address_over_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{PASSWORD}@127.0.0.1:1/db")
    started: dict[str, Any] = {}

    class Process:
        pid, returncode = 2**22 + 1, 0

        def __init__(self, command: list[str], env: dict[str, str], **rest: Any) -> None:
            started.update(command=command, environment=env)

        def __enter__(self) -> "Process":
            return self

        def __exit__(self, *_: object) -> None:
            """There is nothing to wait for."""

    monkeypatch.setattr(subprocess, "Popen", Process)
    with server._server(Store(Project(project)), 5000, tmp_path / "log"):
        pass
    assert PASSWORD not in " ".join(started["command"])
    assert PASSWORD in started["environment"]["MLFLOW_BACKEND_STORE_URI"]


def test_the_command_that_is_stored_with_candidates_has_no_password(
    project_with_store: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project_with_store / "experiments" / "searching.py"
    file.write_text(SEARCH)
    shutil.copy(empty_storage, project_with_store / "mlruns" / "optuna.db")
    commands: list[str] = []

    def connected(project: Project, url: str | None) -> Any:
        return connect_storage(project, None)

    def train(self: Session, work: Any, *_: Any) -> SweepSummary:
        commands.append(self.info.command)
        work._storage.engine.dispose()
        return SweepSummary()

    monkeypatch.setattr(search_session, "connect_storage", connected)
    monkeypatch.setattr(Session, "train", train)
    search_session.launch_search(
        file.relative_to(project_with_store), storage=f"postgresql://me:{PASSWORD}@127.0.0.1:1/db"
    )
    assert commands == [
        "rnnstudy sweep experiments/searching.py --scale desk --storage 'postgresql://me:…@127.0.0.1:1/db'"
    ]


def test_a_damaged_study_is_named_without_the_password_of_its_storage() -> None:
    with pytest.raises(StorageError) as refused, damaged_study("mine", f"postgresql://me:{PASSWORD}@127.0.0.1:1/db"):
        raise KeyError("type")
    assert "optuna delete-study --study-name mine --storage" in str(refused.value)
    assert PASSWORD not in str(refused.value)
