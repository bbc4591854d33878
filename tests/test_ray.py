"""A sweep on a Ray cluster of two nodes on this machine, one of which is taken away in the middle."""

import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rnnstudy import results
from rnnstudy.cli.commands import app
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project

# Ray starts its processes by forking, of which JAX, loaded by another test of this process, warns.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")]
ray = pytest.importorskip("ray", reason="Ray is not installed; the extra rnnstudy[ray] brings it")

EXPERIMENT = '''
"""Enough work that a node can be lost in the middle of it."""
from rnnstudy.cells import LSTM, Elman
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


class Mine(TemporalOrder):
    """A task that only this file knows."""


def runs(scale):
    training = Training(steps=600, validation_sequences=100, test_sequences=100, check_every=20, stop_when_solved=False)
    base = Run(task=Mine(length=60), cell=Elman(width=20), training=training)
    return grid(base, {"cell": [Elman(width=20), LSTM(width=20)], "task.length": [60, 80]}, seeds=range(3))
'''


def keys_in(home: Project) -> list[str]:
    return [run.key for run in Store(home).runs()]


@pytest.fixture
def cluster():
    """Two nodes of one core each, and the one that can be taken away."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = made.add_node(num_cpus=1)
    yield made, node
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNNSTUDY_HOME", str(tmp_path))
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "lost_node.py").write_text(EXPERIMENT)
    return folder / "lost_node.py"


def test_a_node_is_lost_and_nothing_with_it(cluster, experiment: Path, tmp_path: Path) -> None:
    made, node = cluster
    home = Project(tmp_path)
    removed = threading.Event()

    def take_away() -> None:
        # When the first run has ended, both nodes are at work.
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if any(run.state == "finished" for run in Store(home).runs()):
                made.remove_node(node)
                removed.set()
                return
            time.sleep(0.5)

    thread = threading.Thread(target=take_away)
    thread.start()
    done = CliRunner().invoke(app, ["sweep", str(experiment), "--ray", made.address], catch_exceptions=False)
    thread.join()
    assert done.exit_code == 0, done.output
    assert removed.is_set()
    keys = keys_in(home)
    assert len(keys) == len(set(keys)) == 12
    stored = Store(home).runs()
    assert {run.state for run in stored} == {"finished"}
    assert set(results.load(experiment="lost_node", project=home).runs["status"]) == {"finished"}
    # Started again: nothing is left to do, and no cluster is asked for.
    again = CliRunner().invoke(app, ["sweep", str(experiment), "--ray", made.address], catch_exceptions=False)
    assert again.exit_code == 0
    assert keys_in(home) == keys


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        ("127.0.0.1:1", "", "no Ray cluster answers at '127.0.0.1:1'"),
        ("auto", "127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("10.0.0.1", "", "an address is auto, local, or HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_in_one_line(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, given: str, environment: str, said: str
) -> None:
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    begun = time.monotonic()
    done = CliRunner().invoke(app, ["sweep", str(experiment), "--ray", given])
    assert said in str(done.exception)
    # Ray alone takes nine minutes to give up an address.
    assert time.monotonic() - begun < 60
    assert not (experiment.parent.parent / "mlruns" / "mlflow.db").exists()
