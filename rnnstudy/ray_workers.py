"""Workers on a Ray cluster: the same populations as Ray tasks, while this process stays the only writer.

Nodes need Python, torch and what rnnstudy imports, and neither a shared disk nor a database: the package and the
experiment's folder travel with the job, messages come back through Ray. A task keeps no checkpoint, since its node's
disk may vanish with it; so a node lost in mid-run costs what it was doing, and the launcher gives the population to
Ray again. For the same reason only the records that end runs are sent: they hold all readings.
"""

import contextlib
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import rnnstudy
from rnnstudy import worker
from rnnstudy.launch import ALLOCATOR
from rnnstudy.records import Record
from rnnstudy.spec import SpecError
from rnnstudy.unroll.choice import Wanted

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a task asks whether it is to stop."""


class Board:
    """A small actor beside the driver: tells the tasks to stop."""

    def __init__(self) -> None:
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    def stopped(self) -> bool:
        return self._stop


class RayPool:
    """A connection to a Ray cluster.

    Args:
        address: `auto` (the cluster that runs on this machine, or that `RAY_ADDRESS` names), `local` (one of its own),
            or the address of a cluster.
        gpus: what part of a GPU each task needs; with 0, it trains on one CPU core.

    Raises `SpecError`, in one line, when Ray is not installed, there is no such cluster, or it has not enough GPUs.
    """

    def __init__(self, address: str, gpus: float, experiment: Path | None) -> None:
        try:
            import ray
        except ImportError:
            raise SpecError("--ray needs Ray, which is not installed; pip install 'rnnstudy[ray]' brings it") from None
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise SpecError(f"--gpus-per-worker is {gpus}; it takes a part of one GPU, such as 0.25, or a whole number")
        self._ray, self._gpus, self._experiment = ray, gpus, experiment
        package = Path(rnnstudy.__file__).parent
        environment: dict[str, Any] = {"py_modules": [str(package)], "env_vars": dict(ALLOCATOR)}
        if experiment is not None:
            environment["working_dir"] = str(experiment.parent)
            environment["excludes"] = ["*.ipynb", "__pycache__"]
        try:
            ray.init(
                address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False, include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SpecError(
                f"no Ray cluster answers at '{address}' ({reason[:120]}); start one with `ray start --head` and "
                "name its address, or say --ray local"
            ) from None
        self.board = ray.remote(num_cpus=0)(Board).remote()

    def places(self) -> int:
        """How many tasks the cluster, as it is now, can run at once."""
        resources = self._ray.cluster_resources()
        if not self._gpus:
            return max(1, int(resources.get("CPU", 0)))
        places = int(resources.get("GPU", 0) / self._gpus)
        if not places:
            raise SpecError(f"the Ray cluster has {resources.get('GPU', 0):g} GPUs, and a task needs {self._gpus:g}")
        return places

    def worker(self, device: str, engine: Wanted, log: Path) -> "RayWorker":
        """A place for one population at a time."""
        return RayWorker(self, device, engine, log)

    def messages(self, task: worker.Task, device: str, engine: Wanted) -> Iterator[worker.Message]:
        """Train a population somewhere in the cluster; what a worker process would say comes back as it is said."""
        options = {"num_gpus": self._gpus} if self._gpus else {"num_cpus": 1}
        # The launcher counts the attempts itself: Ray's own repetition would give the first messages twice.
        remote = self._ray.remote(max_retries=0, **options)(_train)
        experiment = self._experiment.name if self._experiment else None
        for reference in remote.remote(pickle.dumps(task.runs), experiment, device, engine, self.board):
            yield self._ray.get(reference)

    def stop(self) -> None:
        """Tell every task to end at its next update."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self.board.stop.remote())

    def close(self) -> None:
        """Leave the cluster; what still runs for this driver ends with it."""
        self._ray.shutdown()


class RayWorker:
    """Stands where a worker process stands: takes a task, and its messages come out of `connection`."""

    def __init__(self, pool: RayPool, device: str, engine: Wanted, log: Path) -> None:
        self.log = log
        self.task: worker.Task | None = None
        self.connection, self._far = Pipe(duplex=False)
        self._pool, self._device, self._engine = pool, device, engine
        self._reason = ""

    def give(self, task: worker.Task) -> None:
        self.task = task
        threading.Thread(target=self._follow, args=(task,), daemon=True).start()

    def how_it_ended(self) -> str:
        """Why nothing more comes out of `connection`, in one line."""
        return self._reason

    def end(self) -> None:
        self.connection.close()

    def _follow(self, task: worker.Task) -> None:
        try:
            for message in self._pool.messages(task, self._device, self._engine):
                self._far.send(message)
        except OSError:
            """The launcher has closed its end."""
        except Exception as error:
            # Ray raises many kinds of errors, and each means that the task is lost: a node, a worker, the cluster.
            self._reason = f"{type(error).__name__}: {_first_sentence(error)}"
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a") as stream:
                stream.write(f"{error}\n")
            self._far.close()


def _train(
    runs: bytes, experiment: str | None, device: str, engine: Wanted, board: Any
) -> Iterator[worker.Message]:
    """Runs on a node. `runs` are pickled: their classes exist only once the experiment's file has been imported."""
    import ray
    import torch

    from rnnstudy.sweep import load_experiment

    torch.set_num_threads(1)
    if experiment is not None:
        load_experiment(Path(experiment))
    looked, stopped = time.monotonic(), False

    def told_to_stop() -> bool:
        nonlocal looked, stopped
        if not stopped and time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
            stopped, looked = ray.get(board.stopped.remote()), time.monotonic()
        return stopped

    heard: list[worker.Message] = []
    task = worker.Task(pickle.loads(runs), None, None)
    for message in worker.messages(task, device, engine, told_to_stop, heard.append):
        yield from heard
        heard.clear()
        if not isinstance(message, Record) or message.outcome is not None:
            yield message


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0]
