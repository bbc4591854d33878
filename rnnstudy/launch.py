"""Launching: skip what is finished, group the rest into populations, hand them to workers, write what comes back."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from rnnstudy import checkpoint as checkpoints
from rnnstudy import worker
from rnnstudy.estimate import Cost, cost
from rnnstudy.home import Home
from rnnstudy.learner import Check, Progress
from rnnstudy.population import Population, populations
from rnnstudy.records import Outcome, Record
from rnnstudy.run import Run, names
from rnnstudy.spec import SpecError
from rnnstudy.supply import Planned, Supply
from rnnstudy.tracker import Kept, Tracker
from rnnstudy.unroll.choice import Wanted

ATTEMPTS = 3
"""How often a population is tried whose worker dies."""

SECONDS_TO_STOP = 60.0
"""How long workers may take to save their checkpoints before they are ended."""


ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Read by glibc when a worker starts: keep freed memory. Otherwise each time step's tensors are mapped and unmapped
afresh, which was measured to double the time of an LSTM's training step (population of 10, batch 32, width 50)."""


class Shelf(Protocol):
    """Knows which runs are complete: a tracker, or a store that is only read."""

    def finished(self) -> Mapping[str, Kept]: ...


class Watcher(Protocol):
    """Is told how a sweep goes on; draws it, or does nothing."""

    def started(self, task: worker.Task) -> None: ...

    def progressed(self, task: worker.Task, progress: Progress) -> None: ...

    def ended(self, task: worker.Task, message: str) -> None: ...

    def said(self, line: str) -> None: ...


@dataclass
class Plan:
    """What a sweep will do.

    Attributes:
        runs: all runs asked for.
        names: their names, by key.
        served: keys that the store already holds.
        tasks: the populations to train, the most costly first.
        warnings: one line each.
    """

    runs: Sequence[Run]
    names: Mapping[str, str]
    served: set[str]
    tasks: list[worker.Task]
    warnings: list[str]

    def supply(self) -> Planned:
        """The tasks, to be handed out in their order."""
        return Planned(self.tasks, self.names, self.served)

    @property
    def cost(self) -> Cost:
        """Upper estimate for what is to be trained."""
        return sum((cost(Population(task.runs)) for task in self.tasks), Cost(0.0, 0.0))


def plan(runs: Sequence[Run], store: Shelf, folder: Path, workers: int, rerun: bool = False) -> Plan:
    """Decide what is to be trained. `folder` holds the checkpoints of earlier, interrupted sweeps."""
    finished = {} if rerun else store.finished()
    served = {run.key for run in runs if run.key in finished and finished[run.key].serves(run)}
    warnings = [line for run in runs if run.key in served and (line := finished[run.key].warning(run))]
    waiting = {run.key: run for run in runs if run.key not in served}
    tasks = []
    if not rerun:
        for path in sorted(folder.glob("*.pt")):
            held = [waiting[key] for key in checkpoints.keys_in(path) if key in waiting]
            # The probes are no part of a key: a checkpoint with other readings cannot be continued with these.
            if held and len({run.structure for run in held}) == 1 and checkpoints.continues(path, held[0]):
                tasks.append(_task(tuple(held), folder, path))
                for run in held:
                    del waiting[run.key]
    tasks += [_task(population.runs, folder, None) for population in _split(list(waiting.values()), workers)]
    tasks.sort(key=lambda task: -cost(Population(task.runs)).seconds)
    return Plan(runs, names(runs), served, tasks, warnings)


def _task(runs: tuple[Run, ...], folder: Path, resume: Path | None) -> worker.Task:
    return worker.Task(runs, folder / f"{Population(runs).key}.pt", resume)


def _split(runs: Sequence[Run], workers: int) -> list[Population]:
    """Populations small enough that no worker is left alone with a large one at the end."""
    groups = populations(runs)
    if not groups:
        return []
    costs = [cost(group).seconds for group in groups]
    share = sum(costs) / workers
    split: list[Population] = []
    for group, seconds in zip(groups, costs, strict=True):
        parts = min(len(group.runs), max(1, round(seconds / share + 0.25)))
        most = -(-len(group.runs) // parts)
        split += populations(group.runs, most)
    return split


@dataclass
class Summary:
    """How a sweep ended: keys by what became of them."""

    served: set[str] = field(default_factory=set)
    ended: dict[str, Outcome] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def failed(self) -> list[str]:
        return [key for key, outcome in self.ended.items() if outcome.status == "failed"]


class _Worker:
    """A worker process and what it is doing."""

    def __init__(
        self, context: Any, stop: Any, experiment: Path | None, device: str, engine: Wanted, log: Path
    ) -> None:
        self.log = log
        self.task: worker.Task | None = None
        self.connection, remote = context.Pipe()
        arguments = (remote, stop, experiment, device, engine, log)
        self.process = context.Process(target=worker.main, args=arguments, daemon=True)
        self.process.start()
        remote.close()

    def give(self, task: worker.Task) -> None:
        self.task = task
        self.connection.send(task)

    def prune(self, keys: frozenset[str]) -> None:
        """Ask for these runs to be stopped. A worker that has died cannot hear it; its end is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self.connection.send(worker.Prune(keys))

    def end(self) -> None:
        """Let an idle worker go; kill one that is still busy: its checkpoint is on disk."""
        if self.task is None and self.process.is_alive():
            with contextlib.suppress(OSError):
                self.connection.send(None)
            self.process.join(5)
        self.process.kill()
        self.process.join()
        self.connection.close()


class Launcher:
    """Trains what a supply hands out with worker processes. One process, this one, writes to the tracker."""

    def __init__(
        self,
        supply: Supply,
        tracker: Tracker,
        home: Home,
        *,
        experiment: Path | None,
        device: str,
        engine: Wanted = "auto",
        workers: int,
        watcher: Watcher,
    ) -> None:
        self._supply, self._tracker, self._home, self._watcher = supply, tracker, home, watcher
        self._experiment, self._device = experiment, device
        self._engine: Wanted = engine
        self._context = multiprocessing.get_context("spawn")
        # Without a lock: a worker killed while it holds one would stop all others.
        self._stop = self._context.RawValue("b", 0)
        self._attempts: dict[str, int] = {}
        self._workers: list[_Worker] = []
        self._count = workers
        self._started = 0
        self.summary = Summary()

    def run(self) -> Summary:
        """Train everything, or stop cleanly at SIGINT and SIGTERM: the same command then goes on."""
        with self._signals():
            try:
                for name, value in ALLOCATOR.items():
                    os.environ.setdefault(name, value)
                self._loop()
            finally:
                for one in self._workers:
                    one.end()
                self._tracker.close()
        self.summary.served = set(self._supply.served)
        return self.summary

    def _loop(self) -> None:
        deadline = None
        self._hand_out()
        while any(one.task for one in self._workers) or not (self._supply.done or self._stop.value):
            if self._stop.value and deadline is None:
                self.summary.interrupted = True
                self._watcher.said("stopping: saving checkpoints; the same command goes on from here")
                deadline = time.monotonic() + SECONDS_TO_STOP
            if deadline is not None and time.monotonic() > deadline:
                break
            by_connection = {one.connection: one for one in self._workers if one.task}
            if not by_connection:
                # Nobody trains, and the supply has nothing at this moment.
                time.sleep(0.2)
            for ready in wait(list(by_connection), timeout=0.2):
                assert isinstance(ready, Connection)
                self._receive(by_connection[ready])
            self._hand_out()
        if not self._supply.done:
            self.summary.interrupted = True
        for one in self._workers:
            if one.task:
                self._interrupt(one.task)

    def _receive(self, one: _Worker) -> None:
        task = one.task
        assert task is not None
        try:
            message: worker.Message = one.connection.recv()
        except (EOFError, ConnectionResetError):
            self._died(one, task)
            return
        match message:
            case Record():
                self._tracker.write(message)
                if message.outcome is not None:
                    self._ended(message.key, message.outcome)
            case Progress():
                self._watcher.progressed(task, message)
            case Check():
                if keys := frozenset(self._supply.checked(message)):
                    one.prune(keys)
            case worker.Finished():
                self._remove_checkpoints(task)
                self._watcher.ended(task, "")
                one.task = None
            case worker.Stopped() if self._stop.value:
                self._interrupt(task)
                one.task = None
            case worker.Stopped():
                self._replace(one, task, "worker was terminated")
            case worker.Failed():
                self._fail(task, message.reason)
                self._watcher.said(f"failed: {self._described(task)}: {message.reason}; details in {one.log}")
                one.task = None

    def _died(self, one: _Worker, task: worker.Task) -> None:
        """A worker that ended without a word (killed, out of memory) is replaced; its population goes on."""
        one.process.join(5)
        self._replace(one, task, f"worker ended with exit code {one.process.exitcode}")

    def _replace(self, one: _Worker, task: worker.Task, how: str) -> None:
        one.end()
        key = Population(task.runs).key
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if self._stop.value:
            self._interrupt(task)
            one.task = None
            return
        if self._attempts[key] >= ATTEMPTS:
            self._fail(task, f"{how}, {ATTEMPTS} times")
            self._watcher.said(f"given up after {ATTEMPTS} attempts: {self._described(task)}: {how}; see {one.log}")
        else:
            for run in task.runs:
                self._tracker.interrupt(run.key)
            again = worker.Task(task.runs, task.checkpoint, task.resume if not task.checkpoint.exists() else None)
            self._supply.give_back(again)
            self._watcher.said(f"{how}; {self._described(task)} goes on in a new one")
        self._workers.remove(one)

    def _hand_out(self) -> None:
        """Give every idle worker something to do; a new worker is started where there is work for it."""
        while not self._stop.value:
            one = next((one for one in self._workers if one.task is None), None)
            if one is None and len(self._workers) >= self._count:
                return
            task = self._supply.take()
            if task is None:
                return
            if one is None:
                one = self._new_worker()
                self._workers.append(one)
            one.give(task)
            self._watcher.started(task)
            for run in task.runs:
                self._tracker.begin(run, self._supply.name(run), self._supply.tags(run))

    def _new_worker(self) -> _Worker:
        self._started += 1
        log = self._home.logs / f"worker-{self._started}.log"
        return _Worker(self._context, self._stop, self._experiment, self._device, self._engine, log)

    def _interrupt(self, task: worker.Task) -> None:
        self.summary.interrupted = True
        for run in task.runs:
            if run.key not in self.summary.ended:
                self._tracker.interrupt(run.key)
        self._watcher.ended(task, "interrupted")

    def _fail(self, task: worker.Task, reason: str) -> None:
        for run in task.runs:
            if run.key not in self.summary.ended:
                outcome = Outcome("failed", 0, reason=reason)
                self._tracker.write(Record(run.key, 0, time.time(), {}, outcome))
                self._ended(run.key, outcome)
        self._watcher.ended(task, "failed")

    def _ended(self, key: str, outcome: Outcome) -> None:
        self.summary.ended[key] = outcome
        self._supply.ended(key, outcome)

    def _remove_checkpoints(self, task: worker.Task) -> None:
        """A population is in the store: its checkpoint, and an older one it went on from, are no longer needed."""
        for path in {task.checkpoint, task.resume or task.checkpoint}:
            if set(checkpoints.keys_in(path)) <= self.summary.ended.keys() | set(self._supply.served):
                path.unlink(missing_ok=True)

    def _described(self, task: worker.Task) -> str:
        return ", ".join(self._supply.name(run) for run in task.runs)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask the workers to stop; a second one ends at once."""

        def ask(signum: int, frame: object) -> None:
            if self._stop.value:
                raise KeyboardInterrupt
            self._stop.value = 1

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def default_workers(device: str) -> int:
    """One where a GPU trains, otherwise one for each core that this process may use."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def require_workers(workers: int) -> None:
    """Raises `SpecError` for less than one worker."""
    if workers < 1:
        raise SpecError(f"--workers is {workers}; it must be at least 1")
