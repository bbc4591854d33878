"""A worker process: trains the populations it is given and hands their records up through a pipe."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rnnstudy.engines import EngineName
from rnnstudy.run import Run
from rnnstudy.store.errors import DiskFull, disk_is_full, memory_is_full
from rnnstudy.sweep.messages import Began, Failed, Finished, Message, Notice, Prune, Ready, Stopped
from rnnstudy.sweep.signals import STOP_SIGNALS
from rnnstudy.training.population import Population
from rnnstudy.training.records import ValidationCheck


def run_worker(
    connection: Connection, stop: Any, experiment: Path | None, device: str, engine: EngineName, log: Path
) -> None:
    """Loop of a worker process: receive an `Assignment`, send `Message`s, until the pipe brings None or closes.

    Each worker uses one torch thread, so that workers do not compete for cores and a population's bits do not depend on
    their number. A worker whose parent has died stops by itself.
    """
    # A terminal sends its signals to all of its processes; here the launcher decides what they mean.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    try:
        stream = log.open("a", buffering=1)
    except OSError as error:
        sys.exit(f"rnnstudy: a worker cannot write its log {log}: {error.strerror}")
    with stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        prepare_process(experiment)
        parent = parent_process()
        orphaned: list[bool] = []

        def stopping() -> bool:
            return bool(stop.value or terminated or orphaned) or (parent is not None and not parent.is_alive())

        def send(message: Message) -> None:
            """Send to the launcher. If it has died, the population is saved all the same."""
            try:
                connection.send(message)
            except (BrokenPipeError, ConnectionResetError):
                orphaned.append(True)

        def pruned(check: ValidationCheck) -> set[str]:
            """Send the errors, and return what the launcher has pruned so far; its answer comes by the next check."""
            send(check)
            keys: set[str] = set()
            try:
                while not orphaned and connection.poll():
                    keys |= connection.recv().keys
            except (EOFError, OSError):
                orphaned.append(True)
            return keys

        send(Ready())
        try:
            while (assignment := connection.recv()) is not None:
                if parent is not None and not parent.is_alive():
                    # It died while this process was starting: there is nothing to save.
                    return
                if isinstance(assignment, Prune):
                    # Too late: its runs have ended.
                    continue
                files = (assignment.checkpoint, assignment.resume)
                for message in train_messages(assignment.runs, device, engine, stopping, send, pruned, *files):
                    send(message)
                if terminated or orphaned:
                    return
        except (EOFError, ConnectionResetError):
            return


def prepare_process(experiment: Path | None) -> None:
    """Set one torch thread, and import the experiment's file: its tasks and cells cannot be unpickled before."""
    import torch

    from rnnstudy.sweep.experiment import load_experiment

    torch.set_num_threads(1)
    if experiment is not None:
        load_experiment(experiment)


def train_messages(
    runs: tuple[Run, ...],
    device: str,
    engine: EngineName,
    stopping: Callable[[], bool],
    send: Callable[[Message], None],
    prune: Callable[[ValidationCheck], Collection[str]],
    checkpoint: Path | None = None,
    resume: Path | None = None,
) -> Iterator[Message]:
    """Train a population and say what comes of it; `send` is told at once what does not wait for a checkpoint.

    `prune` is that of `train`. An error is told, not raised.
    """
    try:
        yield from _records_or_anew(
            Population(runs),
            device=device,
            engine=engine,
            checkpoint=checkpoint,
            resume=resume,
            stop=stopping,
            began=lambda time: send(Began(time)),
            progress=send,
            prune=prune,
        )
    except Exception as error:
        # The log may be on the disk that is full.
        with contextlib.suppress(OSError):
            traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if disk_is_full(error):
            yield Failed(str(DiskFull.caused_by(error)), "disk")
        else:
            yield Failed(reason, "memory" if memory_is_full(error) else "")


def _records_or_anew(population: Population, **options: Any) -> Iterator[Message]:
    """The records of `train`. A checkpoint that cannot be used is renamed, and the population begins without it."""
    from rnnstudy.training.checkpoint import CheckpointError
    from rnnstudy.training.loop import train

    ended = 0
    try:
        for record in train(population, **options):
            ended += record.outcome is not None
            yield record
    except CheckpointError as error:
        # Raised before the first record; a renamed file is not found again.
        if error.unusable is None:
            raise
        with contextlib.suppress(OSError):
            print(error)
        kept = error.unusable.rename(error.unusable.with_name(f"{error.unusable.name}.damaged"))
        yield Notice(f"a checkpoint was damaged, its runs begin anew; it is kept as {kept}")
        yield from _records_or_anew(population, **options)
    else:
        yield Finished() if ended == len(population.runs) else Stopped()
