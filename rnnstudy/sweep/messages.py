from dataclasses import dataclass
from pathlib import Path

from rnnstudy.run import Run
from rnnstudy.training.population import Population
from rnnstudy.training.records import Check, Record, TrainingProgress


@dataclass(frozen=True)
class Assignment:
    """What a worker is given: runs that train together, and the files of their checkpoints."""

    runs: tuple[Run, ...]
    checkpoint: Path
    resume: Path | None


@dataclass(frozen=True)
class Prune:
    """What a worker may be told while it trains: stop these runs. It does so at its next check."""

    keys: frozenset[str]


@dataclass(frozen=True)
class Finished:
    """The population is complete: every run's last record has been sent."""


@dataclass(frozen=True)
class Stopped:
    """The worker was told to stop, or got SIGTERM; a checkpoint holds the population as it is."""


@dataclass(frozen=True)
class Failed:
    """An error ended the population: one line. The traceback is in the worker's log."""

    reason: str


@dataclass(frozen=True)
class OutOfMemory:
    """The population does not fit into the memory of the host or of the GPU: one line."""

    reason: str


@dataclass(frozen=True)
class OutOfDisk:
    """A checkpoint could not be written, for want of room on the disk: one line."""

    reason: str


@dataclass(frozen=True)
class Notice:
    """Something that the user should know: one line."""

    line: str


Message = Record | TrainingProgress | Check | Finished | Stopped | Failed | OutOfMemory | OutOfDisk | Notice


def resume_of(task: Assignment) -> Path | None:
    """The checkpoint that a population goes on from when it has none of its own yet."""
    return None if task.checkpoint.exists() else task.resume


def part_of(task: Assignment, runs: tuple[Run, ...]) -> Assignment:
    """Some of a population's runs as one of their own, going on from the checkpoint of the whole."""
    own = task.checkpoint.with_name(f"{Population(runs).key}.pt")
    return Assignment(runs, own, task.checkpoint if task.checkpoint.exists() else task.resume)


def halves(task: Assignment) -> list[Assignment]:
    """A population as two."""
    half = (len(task.runs) + 1) // 2
    return [part_of(task, task.runs[:half]), part_of(task, task.runs[half:])]
