"""The launcher, and workers that end, freeze or do not start, claims that are lost, stores that are away.

Most workers are scripted: nothing is trained.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import psutil
import pytest

from rnnstudy.cells import Elman
from rnnstudy.run import Run
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store.errors import StoreError, StoreUnavailable
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.writer import Writer
from rnnstudy.sweep import launcher as launchers
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.launcher import Launcher
from rnnstudy.sweep.messages import Assignment, Began, Finished, Ready
from rnnstudy.sweep.plan import Plan
from rnnstudy.sweep.queue import FixedQueue
from rnnstudy.sweep.session import Session
from rnnstudy.sweep.sharing import Sharing
from rnnstudy.sweep.summary import Silent, SweepSummary
from rnnstudy.sweep.workers import ProcessPool, Worker, WorkerPool
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record

RUNS = [Run(task=TemporalOrder(length=10), cell=Elman(width=3), probes=(), seed=seed) for seed in range(4)]

Script = Callable[["Scripted", Assignment], None]
"""What a worker does with a population."""


@final
class Scripted(Worker):
    """A worker that follows a script."""

    def __init__(self, pool: "ScriptedPool", number: int) -> None:
        super().__init__(pool.logs / f"{number}.log", "cpu")
        self.pool, self.number, self.dead, self.closed = pool, number, False, False

    def assign(self, assignment: Assignment) -> None:
        if self.dead:
            raise BrokenPipeError
        self.assignment = assignment
        self.pool.script(self, assignment)

    def send(self, *messages) -> None:
        for message in messages:
            self.pool.inbox.put((self, message))

    def complete(self, assignment: Assignment) -> None:
        """Train it in no time."""
        self.send(Began(0.5))
        for run in assignment.runs:
            self.send(Record(run.key, 3, 1.0, {}, Outcome("finished", 3)))
        self.send(Finished())

    def die(self) -> None:
        self.dead = True
        self.send(None)

    def prune(self, keys: frozenset[str]) -> None:
        raise AssertionError("nothing is pruned here")

    def exit_reason(self) -> str:
        return "worker ended with exit code -9"

    def close(self) -> None:
        self.closed = True


@final
class ScriptedPool(WorkerPool):
    def __init__(self, logs: Path, script: Script) -> None:
        super().__init__(1, "cpu", None, "auto", logs)
        self.script, self.started, self._stopping = script, 0, False

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        self._stopping = True

    def start(self) -> Worker:
        self.started += 1
        return Scripted(self, self.started)


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


class Sweep:
    """A sweep of two populations of two runs, written to files."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.project = Project(folder)
        self.listener, self.claims = Listener(), Claims(self.project.claims)
        self.pool = ScriptedPool(self.project.logs, script)
        self.store = OfflineFolder(folder / "offline")
        names = {run.key: f"seed {run.seed}" for run in RUNS}
        assignments = [self.assignment(RUNS[:2]), self.assignment(RUNS[2:])]
        writer = Writer(OfflineTracker(self.store, SweepInfo("mine")), None, may_write=self.claims.confirm)
        self.launcher = Launcher(
            FixedQueue(assignments, names, set()),
            self.pool,
            writer,
            Sharing(self.claims, self.store, self.replan),
            self.project,
            self.listener,
        )

    def assignment(self, runs: Sequence[Run]) -> Assignment:
        return Assignment(tuple(runs), self.project.checkpoints / f"{runs[0].key}.pt", None)

    def replan(self, runs: Sequence[Run]) -> Plan:
        complete = {key for key in self.store.finished() if key in {run.key for run in runs}}
        left = [run for run in runs if run.key not in complete]
        return Plan(runs, {}, complete, [self.assignment(left)] if left else [], [])

    def run(self) -> SweepSummary:
        return self.launcher.run()

    @property
    def states(self) -> dict[str, str]:
        return {run.key: run.state for run in self.store.runs()}


ALL_FINISHED = {run.key: "finished" for run in RUNS}


def test_a_worker_that_ends_while_it_is_idle_is_replaced(tmp_path: Path):
    """It was handed the next population, and the sweep ended with exit code 1 and no word."""

    def script(worker: Scripted, assignment: Assignment) -> None:
        worker.send(Ready())
        worker.complete(assignment)
        worker.dead = True

    sweep = Sweep(tmp_path, script)
    summary = sweep.run()
    assert sweep.states == ALL_FINISHED
    assert (summary.interrupted, summary.failed) == (False, [])
    assert sweep.pool.started == 2


def test_the_end_of_an_idle_worker_is_noticed(tmp_path: Path):
    def script(worker: Scripted, assignment: Assignment) -> None:
        worker.complete(assignment)
        worker.die()

    sweep = Sweep(tmp_path, script)
    sweep.run()
    assert sweep.states == ALL_FINISHED
    assert sweep.listener.lines == []


def test_workers_that_do_not_start_end_the_sweep_and_are_no_failures_of_its_runs(tmp_path: Path):
    """An unwritable log folder counted as three failures of every run that waited."""
    sweep = Sweep(tmp_path, lambda worker, _: worker.die())
    with pytest.raises(RequestError, match=r"no worker starts \(worker ended with exit code -9, 5 times in a row"):
        sweep.run()
    assert sweep.store.failures() == {}
    assert not list(sweep.project.claims.glob("*.json"))


def test_a_few_workers_that_do_not_start_are_replaced(tmp_path: Path):
    def script(worker: Scripted, assignment: Assignment) -> None:
        worker.complete(assignment) if worker.number % 4 == 0 else worker.die()

    sweep = Sweep(tmp_path, script)
    sweep.run()
    assert sweep.states == ALL_FINISHED


@pytest.mark.parametrize("error", [StoreError("the store refuses"), OSError(30, "Read-only file system")])
def test_an_error_in_the_launcher_leaves_nothing_running(error: Exception, tmp_path: Path, monkeypatch):
    sweep = Sweep(tmp_path, lambda worker, _: worker.send(Ready(), Began(0.5)))
    monkeypatch.setattr(Launcher, "_take_over_released_runs", lambda self: (_ for _ in ()).throw(error))
    with pytest.raises(RnnstudyError, match=r"the store refuses|mlruns cannot be written \(Read-only file system\)"):
        sweep.run()
    assert set(sweep.states.values()) == {"interrupted"}
    assert not list(sweep.project.claims.glob("*"))[3:], "the log, the lock and the counter remain"
    assert all(worker.closed for worker in sweep.pool.workers)


def taken_over(folder: Path, key: str) -> None:
    """Another launcher has taken this one for dead."""
    path = folder / f"{key}.json"
    path.write_text(path.read_text().replace('"token": ', '"token": 1'))


def test_runs_that_another_launcher_has_taken_over_are_left_to_it(tmp_path: Path, monkeypatch):
    """It trained on, wrote the same runs, and deleted the claims of the new owner."""
    monkeypatch.setattr("rnnstudy.sweep.claims.SECONDS_BETWEEN_HEARTBEATS", 0.0)
    monkeypatch.setattr("rnnstudy.sweep.sharing.SECONDS_BETWEEN_CHECKS", 0.05)
    lost, kept = RUNS[0].key, RUNS[1].key
    handed_out: list[tuple[str, ...]] = []

    def script(worker: Scripted, assignment: Assignment) -> None:
        worker.send(Ready())
        handed_out.append(tuple(run.key for run in assignment.runs))
        if worker.number > 1:
            worker.complete(assignment)
        else:
            worker.send(Began(0.5))
            taken_over(sweep.project.claims, lost)

    sweep = Sweep(tmp_path, script)
    monkeypatch.setattr(sweep.claims, "others", lambda keys: {} if len(handed_out) > 2 else {lost: sweep.claims.owner})
    sweep.run()
    # The rest of the population goes on; the lost run comes last, when its new owner has released it.
    assert handed_out[:3] == [(lost, kept), (kept,), (RUNS[2].key, RUNS[3].key)]
    [line] = [line for line in sweep.listener.lines if "another launcher" in line]
    assert line.startswith("seed 0: the claims are gone, because another launcher has taken over")


def test_a_lost_claim_on_a_study_ends_the_search(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("rnnstudy.sweep.claims.SECONDS_BETWEEN_HEARTBEATS", 0.0)
    sweep = Sweep(tmp_path, lambda worker, _: worker.send(Ready(), Began(0.5)))
    sweep.claims.take(["study-1"])
    taken_over(sweep.project.claims, "study-1")
    with pytest.raises(StoreError, match="another launcher has taken over study-1"):
        sweep.run()
    assert set(sweep.states.values()) == {"interrupted"}
    assert (sweep.project.claims / "study-1.json").exists()


class ScriptedResources:
    """What `Session` takes workers from."""

    engine, system_metrics = "auto", False

    def pool(self, experiment: Path, project: Project) -> WorkerPool:
        return ScriptedPool(project.logs, Scripted.complete)


@pytest.mark.parametrize("back", [True, False])
def test_runs_that_went_to_files_are_copied_if_the_store_is_back_at_the_end(
    back: bool, project_with_store: Path, monkeypatch
):
    """A store locked for a minute was left with runs as RUNNING, and the sweep exited with 0."""
    monkeypatch.setattr("rnnstudy.store.writer.SECONDS_OF_PATIENCE_AT_THE_END", 0.05)
    away = StoreUnavailable("the database is locked")
    monkeypatch.setattr(MlflowTracker, "write", lambda self, record: (_ for _ in ()).throw(away))
    listener = Listener()
    experiment = load_experiment(project_with_store / "experiments" / "small.py")
    session = Session(experiment, Scale.SMOKE, [], ScriptedResources(), listener)
    store, names = session.open_store(), {run.key: f"seed {run.seed}" for run in RUNS}
    assignment = Assignment(tuple(RUNS), session.project.checkpoints / "a.pt", None)
    if not back:
        monkeypatch.setattr(Store, "require_writable", lambda self: (_ for _ in ()).throw(away))
    summary = session.train(FixedQueue([assignment], names, set()), store, Claims(session.project.claims))
    assert set(summary.ended) == {run.key for run in RUNS}
    assert summary.fell_back_to_files is not back
    if back:
        assert {run.key: run.state for run in store.runs()} == ALL_FINISHED
        assert {run.info.status for run in store.runs_of(store.experiments()[0].experiment_id)} == {"FINISHED"}
        assert "the store is back: 4 runs copied into it" in listener.lines[-1]
    else:
        message = "the database is locked; 4 runs in files: when the store is back, run: rnnstudy sync"
        assert message in listener.lines[-1]


FREEZES = """
import os, signal, struct
from multiprocessing.connection import Connection


def half(self, message):
    os.write(self.fileno(), struct.pack("!i", 1000) + b"the beginning")
    os.kill(os.getpid(), signal.SIGSTOP)


Connection.send = half


def runs(scale):
    return []
"""


def test_a_worker_that_is_stopped_in_the_middle_of_a_message_does_not_block_the_launcher(tmp_path: Path):
    file = tmp_path / "freezes.py"
    file.write_text(FREEZES)
    pool = ProcessPool(1, ["cpu"], file, "auto", tmp_path / "logs")
    worker = pool.idle_worker()
    process = psutil.Process(worker.process.pid)
    deadline = time.monotonic() + 120
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        assert process.is_running()
        time.sleep(0.05)
    began = time.monotonic()
    assert list(pool.received(0.1)) == []
    worker.assignment = Assignment((RUNS[0],), tmp_path / "a.pt", None)
    pool.close()
    assert time.monotonic() - began < 5
    assert not process.is_running()


def test_a_log_folder_that_cannot_be_written_is_named_before_a_worker_starts(tmp_path: Path):
    (tmp_path / "logs").write_text("a file")
    pool = ProcessPool(1, ["cpu"], None, "auto", tmp_path / "logs")
    with pytest.raises(StoreError, match=r"logs cannot be written \(File exists\); make it writable"):
        pool.idle_worker()
    assert pool.workers == []


def test_after_a_stop_signal_a_worker_that_does_not_answer_is_waited_for_and_then_killed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(launchers, "SECONDS_TO_STOP", 0.2)

    def script(worker: Scripted, assignment: Assignment) -> None:
        worker.send(Ready(), Began(0.5))
        os.kill(os.getpid(), signal.SIGINT)

    sweep = Sweep(tmp_path, script)
    assert sweep.run().interrupted
    assert sweep.pool.workers[0].closed
    assert set(sweep.states.values()) == {"interrupted"}
    assert not list(sweep.project.claims.glob("*.json"))
