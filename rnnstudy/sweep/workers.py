"""Pools of workers: the contract, and processes of this machine."""

import contextlib
import multiprocessing
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import final

from rnnstudy.engines import EngineName
from rnnstudy.spec import RequestError
from rnnstudy.store.errors import write_error
from rnnstudy.sweep.messages import Assignment, Message, Prune
from rnnstudy.sweep.worker_process import run_worker

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}
"""Read by glibc when a worker starts: keep freed memory. Otherwise each time step's tensors are mapped and unmapped
afresh, which was measured to double the time of an LSTM's training step (population of 10, batch 32, width 50)."""


class Worker(ABC):
    """Trains one population at a time. Its `messages.Message`s go to the pool's inbox, with None when it has ended.

    Attributes:
        log: the file that holds the details of a failure.
        device: where it trains.
        assignment: what it trains; None when it is idle.
        ready: whether it has started.
    """

    assignment: Assignment | None = None
    ready: bool = False

    def __init__(self, log: Path, device: str) -> None:
        self.log, self.device = log, device

    @abstractmethod
    def assign(self, assignment: Assignment) -> None:
        """Train this population. Raises `OSError` when the worker has ended."""

    @abstractmethod
    def prune(self, keys: frozenset[str]) -> None:
        """Stop these runs. Ignored if the worker has died; the launcher detects that separately."""

    @abstractmethod
    def exit_reason(self) -> str:
        """Why the worker ended, in a few words."""

    @abstractmethod
    def close(self) -> None:
        """End the worker; a busy one is killed."""

    @property
    def busy_with(self) -> Assignment:
        """What a busy worker trains."""
        assert self.assignment is not None
        return self.assignment


class WorkerPool(ABC):
    """At most `count` workers at once. `planning_device` decides how large a population may be.

    Workers import the `experiment` and train with the `engine`; the details of failures go to the folder `logs`.
    """

    def __init__(
        self, count: int, planning_device: str, experiment: Path | None, engine: EngineName, logs: Path
    ) -> None:
        self.workers: list[Worker] = []
        self.inbox: SimpleQueue[tuple[Worker, Message | None]] = SimpleQueue()
        self.count, self.planning_device = count, planning_device
        self.experiment, self.logs = experiment, logs
        self.engine: EngineName = engine

    @property
    @abstractmethod
    def stopping(self) -> bool:
        """Whether `stop` has been called."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to save a checkpoint and stop."""

    @abstractmethod
    def start(self) -> Worker:
        """Start one more worker."""

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.assignment is not None]

    @property
    def has_room(self) -> bool:
        """Whether another population could start now."""
        return len(self.busy) < self.count

    def idle_worker(self) -> Worker:
        """An idle worker; a new one is started when there is none."""
        worker = next((worker for worker in self.workers if worker.assignment is None), None)
        if worker is None:
            worker = self.start()
            self.workers.append(worker)
        return worker

    def received(self, seconds: float) -> Iterator[tuple[Worker, Message | None]]:
        """The messages of all workers that have arrived; waits for the first one, but not longer than this."""
        with contextlib.suppress(Empty):
            yield self.inbox.get(timeout=seconds)
            for _ in range(self.inbox.qsize()):
                yield self.inbox.get_nowait()

    def dismiss(self, worker: Worker) -> None:
        """End a worker; another one may replace it."""
        worker.close()
        self.workers.remove(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


@final
class ProcessWorker(Worker):
    """A worker process."""

    def __init__(self, pool: "ProcessPool", device: str, log: Path) -> None:
        super().__init__(log, device)
        self._connection, remote = pool.context.Pipe()
        arguments = (remote, pool.stop_flag, pool.experiment, device, pool.engine, log)
        self.process = pool.context.Process(target=run_worker, args=arguments, daemon=True)
        self.process.start()
        remote.close()
        # A thread reads: a worker that is stopped in the middle of a message would make the launcher wait for the rest.
        self._reader = threading.Thread(target=self._read, args=(pool.inbox,), daemon=True)
        self._reader.start()

    def _read(self, inbox: "SimpleQueue[tuple[Worker, Message | None]]") -> None:
        try:
            while True:
                inbox.put((self, self._connection.recv()))
        except (EOFError, OSError):
            """It has ended."""
        finally:
            inbox.put((self, None))

    def assign(self, assignment: Assignment) -> None:
        self._connection.send(assignment)
        self.assignment = assignment

    def prune(self, keys: frozenset[str]) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(Prune(keys))

    def exit_reason(self) -> str:
        self.process.join(5)
        return f"worker ended with exit code {self.process.exitcode}"

    def close(self) -> None:
        """A busy worker is killed: its checkpoint is on disk."""
        if self.assignment is None and self.process.is_alive():
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self.process.join(5)
        self.process.kill()
        self.process.join()
        self._reader.join()
        self._connection.close()


@final
class ProcessPool(WorkerPool):
    """Worker processes, spread evenly over `devices`, each with its own log file."""

    def __init__(
        self, count: int, devices: Sequence[str], experiment: Path | None, engine: EngineName, logs: Path
    ) -> None:
        super().__init__(count, devices[0], experiment, engine, logs)
        self._devices = devices
        self.context = multiprocessing.get_context("spawn")
        # Without a lock: a worker killed while it holds one would stop all others.
        self.stop_flag = self.context.RawValue("b", 0)
        self._started = 0

    @property
    def stopping(self) -> bool:
        return bool(self.stop_flag.value)

    def stop(self) -> None:
        self.stop_flag.value = 1

    def start(self) -> Worker:
        """Raises `RnnstudyError` when no process can be started, or its log cannot be written."""
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)
        self._started += 1
        used = [worker.device for worker in self.workers]
        device = min(self._devices, key=used.count)
        log = self.logs / f"worker-{os.getpid()}-{self._started}.log"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            log.touch()
        except OSError as error:
            raise write_error(error, self.logs) from None
        try:
            return ProcessWorker(self, device, log)
        except OSError as error:
            raise RequestError(f"no worker process can be started ({error.strerror or error})") from None
