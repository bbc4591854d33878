"""What breaks while a sweep runs: it goes on where it can, says so in one line, and the same command mends it."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from rnnstudy.run import Run
from rnnstudy.spec import RequestError
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.owner import Owner
from rnnstudy.store.project import Project
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.plan import make_plan
from rnnstudy.sweep.shards import Shard
from rnnstudy.training import atomic, loop
from rnnstudy.training.devices import default_workers, worker_devices

SWEEP = ("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1")

FAULT = """

import os
from pathlib import Path
from rnnstudy.training import atomic, loop

HERE = Path(__file__).parent
train = loop.train


def faulty(runs, **options):
    return meddle(runs, train(runs, **options), options)


loop.train = faulty
"""


@pytest.fixture(autouse=True)
def the_faults_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs_of` imports the experiment's file, and with it the fault, into this process too."""
    monkeypatch.setattr(loop, "train", loop.train)
    monkeypatch.setattr(atomic.os, "fsync", atomic.os.fsync)


def add(project: Path, code: str) -> None:
    """Let something break in the workers: they import the experiment's file."""
    file = project / "experiments" / "small.py"
    file.write_text(file.read_text().replace("def runs(scale)", f"{FAULT}\n{code}\n\ndef runs(scale)"))


def runs_of(project: Path) -> list[Run]:
    return load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)


def statuses(project: Path) -> list[str]:
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        rows = database.execute("select status from runs where lifecycle_stage = 'active'").fetchall()
    return sorted(status for (status,) in rows)


OUT_OF_MEMORY = """
def meddle(runs, records, options):
    import torch
    if len(runs.runs) > 1 and runs.runs[0].cell.label() == "lstm":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
    if len(runs.runs) > 1:
        os.kill(os.getpid(), 9)
    if runs.runs[0].cell.label() == "elman" and runs.runs[0].seed == 1:
        raise MemoryError("cannot allocate 5 GiB")
    return records
"""


def test_a_population_that_does_not_fit_is_halved_and_a_run_that_does_not_fit_is_named(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    add(project, OUT_OF_MEMORY)
    done = rnnstudy(*SWEEP)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"out of memory \(OutOfMemoryError: CUDA out of memory.*\); .* continues as two halves", said)
    assert "2 times at the same step (out of memory?)" in said
    assert "Elman T=10 lr 0.001 s1 does not fit into memory, even alone (MemoryError: cannot allocate 5 GiB)" in said
    assert statuses(project) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    again = rnnstudy(*SWEEP)
    assert again.returncode == 1
    assert "3 in the store, 0 to train" in again.stdout
    assert "given up after 3 failed attempts: Elman T=10 lr 0.001 s1" in again.stdout


DISK_FULL = """
def meddle(runs, records, options):
    return records


save = atomic.os.fsync


def no_room(descriptor):
    if (HERE / "full").exists():
        raise OSError(28, "No space left on device")
    save(descriptor)


atomic.os.fsync = no_room
"""


def test_a_full_disk_ends_the_sweep_with_one_line_and_the_same_command_goes_on(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    add(project, DISK_FULL)
    (project / "experiments" / "full").touch()
    done = rnnstudy(*SWEEP)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "the disk is full" in done.stderr
    assert "RUNNING" not in statuses(project)
    assert not list((project / "mlruns" / "checkpoints").glob("*"))
    (project / "experiments" / "full").unlink()
    assert rnnstudy(*SWEEP).returncode == 0
    assert statuses(project) == ["FINISHED"] * 4


FAILS = """
def meddle(runs, records, options):
    if runs.runs[0].cell.label() == "lstm" and not (HERE / "mended").exists():
        raise RuntimeError("no data today")
    return records
"""


def test_a_run_that_fails_three_times_is_set_aside_until_it_is_forgotten(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    add(project, FAILS)
    lstm = [run.key for run in runs_of(project) if run.cell.label() == "lstm"]
    store = Store(Project(project))
    failed = rnnstudy(*SWEEP)
    assert failed.returncode == 1
    assert "2 runs failed: LSTM T=10 lr 0.001 s0, LSTM T=10 lr 0.001 s1" in failed.stdout
    assert {key: one.attempts for key, one in store.failures().items()} == dict.fromkeys(lstm, 1)
    for run in store.runs(lstm[0]):
        store.client.set_tag(run.identity, "rnnstudy.attempts", "2")
    assert rnnstudy(*SWEEP).returncode == 1
    assert {key: one.attempts for key, one in store.failures().items()} == {lstm[0]: 3, lstm[1]: 2}
    (project / "experiments" / "mended").touch()
    aside = rnnstudy(*SWEEP)
    assert aside.returncode == 1
    assert "2 in the store, 1 to train" in aside.stdout
    assert "given up after 3 failed attempts: LSTM T=10 lr 0.001 s0 (RuntimeError: no data today)" in aside.stdout
    assert f"rnnstudy forget {lstm[0]}, or --rerun, tries it again" in aside.stdout
    assert rnnstudy("forget", lstm[0]).returncode == 0
    assert store.failures() == {}
    assert [
        run.key for task in make_plan(runs_of(project), store, project, 1).assignments for run in task.runs
    ] == lstm[:1]


def test_a_run_deleted_in_the_pages_and_one_that_is_new_are_all_that_runs(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    assert rnnstudy(*SWEEP).returncode == 0
    store = Store(Project(project))
    key = runs_of(project)[0].key
    MlflowClient(store.uri).delete_run(store.finished()[key].identity)
    file = project / "experiments" / "small.py"
    file.write_text(file.read_text().replace("seeds=range(2)", "seeds=range(3)"))
    damaged = project / "mlruns" / "checkpoints"
    damaged.mkdir(exist_ok=True)
    planned = make_plan(runs_of(project), store, damaged, workers=1)
    for task in planned.assignments:
        task.checkpoint.write_bytes(b"cut in the middle")
    again = rnnstudy(*SWEEP)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 runs: 3 in the store, 3 to train" in again.stdout
    assert "a checkpoint was damaged, its runs begin anew" in again.stdout
    assert statuses(project) == ["FINISHED"] * 6


def test_two_launchers_started_at_once_over_no_store_share_the_sweep(project: Path) -> None:
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", *SWEEP]
    both = [
        subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], "\n".join(said)
    assert statuses(project) == ["FINISHED"] * 4
    assert not list((project / "mlruns" / "claims").glob("*.json"))
    for told in said:
        assert re.search("^LSTM +10 +. of 2", told, re.MULTILINE), "each shows the whole sweep at its end"


def test_shards_offline_hold_every_run_once(project_with_store: Path, rnnstudy: Callable[..., Any]) -> None:
    project = project_with_store
    for part in (1, 2, 3):
        done = rnnstudy(*SWEEP, "--shard", f"{part}/3", "--offline", f"part-{part}")
        assert done.returncode == 0, done.stdout + done.stderr
    folders = [str(path.name) for path in sorted(project.glob("part-*"))]
    assert "4 runs added" in rnnstudy("sync", *folders).stdout
    assert "0 runs added, 0 brought further, 4 unchanged" in rnnstudy("sync", *folders).stdout
    assert statuses(project) == ["FINISHED"] * 4


def test_the_division_into_shards_depends_on_the_sweep_alone() -> None:
    runs = load_experiment(Path(__file__).parent.parent / "experiments" / "quickstart.py").runs(Scale.DESK)
    for parts in (1, 3, 16):
        shards = [Shard(part, parts).of(runs) for part in range(1, parts + 1)]
        assert sorted(run.key for shard in shards for run in shard) == sorted(run.key for run in runs)
        assert all(shards)
        assert {run.key for run in Shard(1, parts).of(runs[::-1])} == {run.key for run in shards[0]}


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/2", "1/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="it takes PART/PARTS"):
        Shard.parse(text)


def test_a_database_that_is_locked_or_read_only_is_refused_before_any_training(
    project_with_store: Path, rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_store
    monkeypatch.setattr("rnnstudy.store.mlflow_database.BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        locked = rnnstudy(*SWEEP)
        assert locked.returncode == 2
        assert locked.stderr.count("\n") == 1
        assert "has been locked by another process" in locked.stderr
        other.execute("ROLLBACK")
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        # What a read-only mount gives; root may write any file whatever its mode.
        uri = f"{(project / 'mlruns' / 'mlflow.db').as_uri()}?mode=ro"
        patch.setattr(
            "rnnstudy.store.mlflow_database.sqlite3.connect",
            lambda *_, **options: connect(uri, **{**options, "uri": True}),
        )
        read_only = rnnstudy(*SWEEP)
    assert read_only.returncode == 2
    assert read_only.stderr.count("\n") == 1
    assert "cannot be written" in read_only.stderr
    assert not (project / "mlruns" / "logs").exists()


def test_what_another_process_trains_is_not_forgotten(project_with_store: Path, rnnstudy: Callable[..., Any]) -> None:
    project = project_with_store
    Claims(Project(project).claims, Owner("another.host", 4711, 1.0)).take([runs_of(project)[0].key])
    refused = rnnstudy(*SWEEP, "--rerun")
    assert refused.returncode == 2
    assert "is being trained by process 4711 on another.host" in refused.stderr


def test_a_worker_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert worker_devices("auto") == worker_devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert worker_devices("cuda:1") == ["cuda:1"]
    assert [default_workers(device) for device in ("auto", "cuda", "cuda:1")] == [3, 3, 1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert worker_devices("auto") == ["auto"]
    assert default_workers("cpu") >= 1
