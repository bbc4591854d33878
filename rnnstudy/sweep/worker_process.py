"""A worker process: trains the populations it is given and hands their records up through a pipe."""

import os
import signal
import traceback
from collections.abc import Callable, Collection, Iterator
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rnnstudy.engines.choice import Wanted
from rnnstudy.run import Run
from rnnstudy.store.errors import DiskFull, disk_is_full, memory_is_full
from rnnstudy.sweep.messages import Failed, Finished, Message, Notice, OutOfDisk, OutOfMemory, Prune, Stopped
from rnnstudy.sweep.signals import STOPPING
from rnnstudy.training.records import Check


def run_worker(
    connection: Connection, stop: Any, experiment: Path | None, device: str, engine: Wanted, log: Path
) -> None:
    """Loop of a worker process: take a `Task`, send `Message`s, until the pipe brings None or closes.

    One torch thread each, so that workers do not fight over cores and a population's bits do not depend on how many
    there are. A worker whose parent has died stops by itself.
    """
    # A terminal sends its signals to all of its processes; it is the launcher that says what becomes of them here.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        import torch

        from rnnstudy.sweep.experiment import load_experiment

        torch.set_num_threads(1)
        if experiment is not None:
            # Tasks and cells defined in the experiment's file must exist here before they can be unpickled.
            load_experiment(experiment)
        parent = parent_process()
        orphaned: list[bool] = []

        def told_to_stop() -> bool:
            return bool(stop.value or terminated or orphaned) or (parent is not None and not parent.is_alive())

        def send(message: Message) -> None:
            """Hand up; a parent that has died does not keep the population from being saved."""
            try:
                connection.send(message)
            except (BrokenPipeError, ConnectionResetError):
                orphaned.append(True)

        def prunes() -> set[str]:
            """What has been told meanwhile."""
            keys: set[str] = set()
            try:
                while not orphaned and connection.poll():
                    keys |= connection.recv().keys
            except (EOFError, OSError):
                orphaned.append(True)
            return keys

        try:
            while (task := connection.recv()) is not None:
                if parent is not None and not parent.is_alive():
                    # It died while this process was starting: nothing has been done that would have to be saved.
                    return
                if isinstance(task, Prune):
                    # Told too late: its runs have ended.
                    continue
                for message in train_messages(
                    task.runs, device, engine, told_to_stop, send, prunes, task.checkpoint, task.resume
                ):
                    send(message)
                if terminated or orphaned:
                    return
        except (EOFError, ConnectionResetError):
            return


def train_messages(
    runs: tuple[Run, ...],
    device: str,
    engine: Wanted,
    told_to_stop: Callable[[], bool],
    send: Callable[[Message], None],
    prunes: Callable[[], set[str]],
    checkpoint: Path | None = None,
    resume: Path | None = None,
) -> Iterator[Message]:
    """Train a population and say what comes of it; `send` is told at once what does not wait for a checkpoint.

    `prunes` gives the keys of the runs that are to be stopped, as far as that is known. An error is told, not raised.
    """
    from rnnstudy.training.checkpoint import set_damaged_aside
    from rnnstudy.training.loop import train
    from rnnstudy.training.population import Population

    def pruned(check: Check) -> Collection[str]:
        """Hand up the errors, and take what there is to be told. An answer is not waited for: it comes by the next
        check."""
        send(check)
        return prunes()

    try:
        for path in (checkpoint, resume):
            if damaged := set_damaged_aside(path):
                yield Notice(f"a checkpoint was damaged, its runs begin anew; it is kept as {damaged}")
        ended = 0
        for record in train(
            Population(runs),
            device=device,
            engine=engine,
            checkpoint=checkpoint,
            resume=resume,
            stop=told_to_stop,
            progress=send,
            prune=pruned,
        ):
            ended += record.outcome is not None
            yield record
        yield Finished() if ended == len(runs) else Stopped()
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if disk_is_full(error):
            yield OutOfDisk(str(DiskFull.told(error)))
        else:
            yield OutOfMemory(reason) if memory_is_full(error) else Failed(reason)
