"""Workers on a Ray cluster: each population is a Ray task, and the launcher's process stays the only writer.

Nodes need Python, torch and what training imports, but neither a shared disk nor a database: the package and the
experiment's folder are sent to them, and messages come back through Ray. A task keeps no checkpoint, since the disk of
its node may vanish with it: a lost node loses the populations it was training, and the launcher requeues them. For the
same reason only the records that end runs are sent; they hold all readings.
"""

import contextlib
import logging
import os
import pickle
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rnnstudy.engines import EngineName
from rnnstudy.run import Run
from rnnstudy.spec import RequestError
from rnnstudy.sweep.messages import Assignment, Message
from rnnstudy.sweep.worker_process import prepare_process, train_messages
from rnnstudy.sweep.workers import ALLOCATOR, Worker, WorkerPool
from rnnstudy.training.records import Record, ValidationCheck

if TYPE_CHECKING:
    from rnnstudy.sweep.session import Resources

SECONDS_BETWEEN_CHECKS = 1.0
"""How often a task asks the board."""

SECONDS_TO_ANSWER = 10.0
"""How long a cluster may take to accept a connection. Ray itself would try for nine minutes."""


class Board:
    """A small actor that tasks ask whether to stop, and which runs to prune."""

    def __init__(self) -> None:
        self._stop = False
        self._pruned: set[str] = set()

    def stop(self) -> None:
        self._stop = True

    def prune(self, keys: frozenset[str]) -> None:
        self._pruned |= keys

    def state(self) -> tuple[bool, set[str]]:
        return self._stop, self._pruned


@final
class RayPool(WorkerPool):
    """Workers of a Ray cluster, as many at once as it has room for when the sweep begins.

    Args:
        address: `auto` (the cluster that this machine belongs to, or that `RAY_ADDRESS` names), `local` (a new
            one on this machine, for trying things out), or a cluster's address.
        resources: GPUs for each task, such as 1 or 0.25 (with 0, a task has one CPU core); the device, where `auto`
            takes the GPU that Ray gives; the engine; the most tasks at once.
        experiment: the file that tasks import.
        logs: where the details of failures go.

    Raises `RequestError` when Ray is not installed, no cluster answers, or it has no room for a worker.
    """

    def __init__(self, address: str, resources: "Resources", experiment: Path | None, logs: Path) -> None:
        gpus, count = resources.gpus_per_worker, resources.workers
        if gpus < 0 or (gpus > 1 and not float(gpus).is_integer()):
            raise RequestError(
                f"--gpus-per-worker is {gpus:g}; it takes a part of one GPU, such as 0.25, or a whole number"
            )
        try:
            import ray
        except ImportError:
            raise RequestError("--ray needs Ray, which is not installed: pip install 'rnnstudy[ray]'") from None
        self._ray, self._gpus, self._device = ray, gpus, resources.device
        self._stopping = False
        self._connect(address, experiment)
        room = self._room()
        super().__init__(min(count, room) if count else room, "cpu", experiment, resources.engine, logs)
        # On this very node: a board on another node would be lost with it, and the sweep too.
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()

    def _connect(self, address: str, experiment: Path | None) -> None:
        package = Path(__file__).parents[1]
        environment: dict[str, Any] = {"py_modules": [str(package)], "env_vars": dict(ALLOCATOR)}
        if experiment is not None:
            environment |= {"working_dir": str(experiment.parent), "excludes": ["__pycache__", "*.ipynb"]}
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS", address)
        try:
            _require_listener(address)
            self._ray.init(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise RequestError(
                f"no Ray cluster answers at '{address}' ({_one_line(error)}); `ray start --head` starts one here, "
                "--ray local makes one for this sweep alone"
            ) from None

    def _room(self) -> int:
        """How many tasks the cluster, as it is now, runs at once."""
        name, needed = ("GPU", self._gpus) if self._gpus else ("CPU", 1.0)
        there = self._ray.cluster_resources().get(name, 0.0)
        room = int(there / needed)
        if not room:
            self._ray.shutdown()
            raise RequestError(
                f"the Ray cluster has {there:g} {name}s, and a task needs {needed:g}; see --gpus-per-worker"
            )
        return room

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        """Tasks end at their next check; their populations start again the next time."""
        self._stopping = True
        self.tell("stop")

    def start(self) -> Worker:
        return RayWorker(self, self._device, self.logs / f"ray-{len(self.workers) + 1}.log")

    def close(self) -> None:
        """Leave the cluster; tasks of this sweep that still run end with it."""
        super().close()
        self._ray.shutdown()

    def tell(self, method: str, *arguments: object) -> None:
        """Call a method of the board. Ignored if the cluster is gone; the launcher detects that separately."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(getattr(self._board, method).remote(*arguments))

    def messages(self, assignment: Assignment) -> Iterator[Message]:
        """Train a population somewhere in the cluster; yields its messages as they come."""
        needs = {"num_gpus": self._gpus} if self._gpus else {"num_cpus": 1}
        # The launcher counts the attempts; a retry by Ray would repeat the first messages.
        remote = self._ray.remote(max_retries=0, **needs)(_train)
        experiment = self.experiment.name if self.experiment else None
        runs = pickle.dumps(assignment.runs)
        for reference in remote.remote(runs, experiment, self._device, self.engine, self._board):
            yield self._ray.get(reference)


@final
class RayWorker(Worker):
    """A worker in the cluster: each population assigned to it is a Ray task, whose messages a thread passes on."""

    def __init__(self, pool: RayPool, device: str, log: Path) -> None:
        super().__init__(log, device)
        self._pool = pool
        self._reason = ""
        self._closed = False
        # Ray says when no node can start a task.
        self.ready = True

    def assign(self, assignment: Assignment) -> None:
        self.assignment = assignment
        threading.Thread(target=self._follow, args=(assignment,), daemon=True).start()

    def prune(self, keys: frozenset[str]) -> None:
        self._pool.tell("prune", keys)

    def exit_reason(self) -> str:
        return self._reason

    def close(self) -> None:
        """Ray ends the task with the sweep; its messages are ignored."""
        self._closed = True

    def _follow(self, assignment: Assignment) -> None:
        try:
            for message in self._pool.messages(assignment):
                if self._closed:
                    return
                self._pool.inbox.put((self, message))
        except Exception as error:
            # Ray's errors are of many kinds, and each means that the task is lost: with its process, node or cluster.
            self._reason = f"Ray lost the task ({_one_line(error)})"
            with contextlib.suppress(OSError):
                self.log.parent.mkdir(parents=True, exist_ok=True)
                with self.log.open("a") as stream:
                    stream.write(f"{error}\n")
            self._pool.inbox.put((self, None))


def _train(runs: bytes, experiment: str | None, device: str, engine: EngineName, board: Any) -> Iterator[Message]:
    """Runs on a node. `runs` are pickled: their classes exist only after the experiment's file is imported."""
    import ray

    prepare_process(None if experiment is None else Path(experiment))
    population: tuple[Run, ...] = pickle.loads(runs)
    seen: tuple[float, tuple[bool, set[str]]] = (time.monotonic(), (False, set()))

    def board_state() -> tuple[bool, set[str]]:
        nonlocal seen
        if time.monotonic() - seen[0] > SECONDS_BETWEEN_CHECKS:
            seen = (time.monotonic(), ray.get(board.state.remote()))
        return seen[1]

    heard: list[Message] = []
    own = {run.key for run in population}

    def pruned(check: ValidationCheck) -> set[str]:
        heard.append(check)
        return own & board_state()[1]

    for message in train_messages(population, device, engine, lambda: board_state()[0], heard.append, pruned):
        # Not `yield from`: Ray sends into the generator, which a list's iterator does not take.
        for earlier in heard:  # noqa: UP028
            yield earlier
        heard.clear()
        if not isinstance(message, Record) or message.outcome is not None:
            yield message


def _require_listener(address: str) -> None:
    """Raise `OSError` or `ValueError` unless something listens at `HOST:PORT`; Ray checks other addresses."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError("an address is auto, local, or HOST:PORT, such as 10.0.0.1:6379")
    socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()


def _one_line(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:160] or type(error).__name__
