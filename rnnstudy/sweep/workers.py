"""The workers of a launcher: how many, where, and how one is spoken to. These are processes of this machine."""

import contextlib
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from rnnstudy.engines.choice import Wanted
from rnnstudy.spec import SpecError
from rnnstudy.sweep.messages import Assignment, Prune
from rnnstudy.sweep.worker_process import run_worker

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Read by glibc when a worker starts: keep freed memory. Otherwise each time step's tensors are mapped and unmapped
afresh, which was measured to double the time of an LSTM's training step (population of 10, batch 32, width 50)."""


class Worker(ABC):
    """Trains one population at a time. What it has to say comes out of `connection`, which closes when it ends.

    Attributes:
        log: the file that holds the details of a failure.
        task: what it is training; None when it has nothing to do.
        connection: gives `worker.Message`s.
        device: where it trains.
    """

    log: Path
    device: str
    task: Assignment | None
    connection: Connection

    @abstractmethod
    def give(self, task: Assignment) -> None:
        """Train this population."""

    @abstractmethod
    def prune(self, keys: frozenset[str]) -> None:
        """Ask for these runs to be stopped. A worker that has died cannot hear it; its end is noticed elsewhere."""

    @abstractmethod
    def how_it_ended(self) -> str:
        """Why nothing more comes out of `connection`, in a few words."""

    @abstractmethod
    def end(self) -> None:
        """Let an idle worker go; end one that is still busy."""


class WorkerPool(ABC):
    """Workers, at most `count` at once."""

    def __init__(self, count: int) -> None:
        self.workers: list[Worker] = []
        self.count = count

    @property
    @abstractmethod
    def told_to_stop(self) -> bool: ...

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to save what they can and stop."""

    @abstractmethod
    def start(self) -> Worker:
        """One more worker."""

    @property
    def busy(self) -> list[Worker]:
        return [one for one in self.workers if one.task is not None]

    @property
    def has_room(self) -> bool:
        """Whether another population could be trained at once."""
        return len(self.busy) < self.count

    def idle(self) -> Worker:
        """A worker with nothing to do, started when there is none."""
        found = next((one for one in self.workers if one.task is None), None)
        if found is None:
            found = self.start()
            self.workers.append(found)
        return found

    def dismiss(self, one: Worker) -> None:
        """End a worker; another may take its place."""
        one.end()
        self.workers.remove(one)

    def end(self) -> None:
        for one in self.workers:
            one.end()


@final
class ProcessWorker(Worker):
    """A worker process."""

    def __init__(
        self, context: Any, stop: Any, experiment: Path | None, device: str, engine: Wanted, log: Path
    ) -> None:
        self.log, self.device = log, device
        self.task = None
        self.connection, remote = context.Pipe()
        arguments = (remote, stop, experiment, device, engine, log)
        self.process = context.Process(target=run_worker, args=arguments, daemon=True)
        self.process.start()
        remote.close()

    def give(self, task: Assignment) -> None:
        self.task = task
        self.connection.send(task)

    def prune(self, keys: frozenset[str]) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(Prune(keys))

    def how_it_ended(self) -> str:
        self.process.join(5)
        return f"worker ended with exit code {self.process.exitcode}"

    def end(self) -> None:
        """A busy worker is killed: its checkpoint is on disk."""
        if self.task is None and self.process.is_alive():
            with contextlib.suppress(OSError):
                self.connection.send(None)
            self.process.join(5)
        self.process.kill()
        self.process.join()
        self.connection.close()


@final
class ProcessPool(WorkerPool):
    """Worker processes, spread evenly over `devices`, each with a log file of its own."""

    def __init__(self, count: int, devices: Sequence[str], experiment: Path | None, engine: Wanted, logs: Path) -> None:
        super().__init__(count)
        self._devices, self._experiment, self._logs = devices, experiment, logs
        self._engine: Wanted = engine
        self._context = multiprocessing.get_context("spawn")
        # Without a lock: a worker killed while it holds one would stop all others.
        self._stop = self._context.RawValue("b", 0)
        self._started = 0

    @property
    def told_to_stop(self) -> bool:
        return bool(self._stop.value)

    def stop(self) -> None:
        self._stop.value = 1

    def start(self) -> Worker:
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)
        self._started += 1
        used = [one.device for one in self.workers]
        device = min(self._devices, key=used.count)
        log = self._logs / f"worker-{os.getpid()}-{self._started}.log"
        return ProcessWorker(self._context, self._stop, self._experiment, device, self._engine, log)


def require_workers(workers: int) -> None:
    """Raises `SpecError` for less than one worker."""
    if workers < 1:
        raise SpecError(f"--workers is {workers}; it must be at least 1")
