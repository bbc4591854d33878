"""`rnnstudy ui` as a person starts it: a server on loopback that shows the runs of the store."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from rnnstudy.home import Home
from rnnstudy.records import Outcome, Record
from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.stored import SweepInfo
from rnnstudy.tasks import TemporalOrder
from rnnstudy.tracking import open_store
from rnnstudy.ui import serve


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A store with one finished run."""
    from rnnstudy.cells import LSTM

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RNNSTUDY_HOME", str(tmp_path))
    run = Run(task=TemporalOrder(length=10), cell=LSTM(width=3))
    tracker = open_store(Home(tmp_path), SweepInfo("small", experiment_file="experiments/small.py"))
    tracker.begin(run, run.name)
    tracker.write(Record(run.key, 1, time.time(), {}, Outcome("finished", 1, solved=False), {}))
    tracker.close()
    return Home(tmp_path)


def test_a_taken_port_is_told_with_another_one(store: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpecError, match=rf"port {port} is taken; name another one, for example --port {port + 1}"):
            serve(store, port)


def test_a_server_named_as_the_store_shows_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(SpecError, match=r"shows its own UI: open http://127\.0\.0\.1:9"):
        serve(Home(tmp_path), 5000)


@pytest.mark.slow
def test_the_server_answers_and_shows_the_run(store: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not _answers(port):
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline
                time.sleep(0.5)
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search",
                data=json.dumps({"experiment_ids": ["1"]}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                [run] = json.load(answer)["runs"]
            assert run["info"]["run_name"] == "lstm-T0010-s0"
        finally:
            process.terminate()
            printed, _ = process.communicate(timeout=60)
    assert f"small: http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in printed


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
