"""What workers and their launcher say to each other, and how a population is divided."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rnnstudy.run import Run
from rnnstudy.training.population import Population
from rnnstudy.training.records import Record, TrainingProgress, ValidationCheck


@dataclass(frozen=True)
class Assignment:
    """What a worker trains: the runs of a population, its checkpoint file, and an older one to resume from."""

    runs: tuple[Run, ...]
    checkpoint: Path
    resume: Path | None


@dataclass(frozen=True)
class Prune:
    """To a worker in training: stop these runs at the next validation check."""

    keys: frozenset[str]


@dataclass(frozen=True)
class Ready:
    """The worker has started: from now on, its end may have to do with what it trains."""


@dataclass(frozen=True)
class Began:
    """The first update of the population began at this time, in seconds since 1970."""

    time: float


@dataclass(frozen=True)
class Finished:
    """The population is complete: the last record of every run has been sent."""


@dataclass(frozen=True)
class Stopped:
    """The worker was asked to stop, or received SIGTERM; the checkpoint holds the population as it is."""


@dataclass(frozen=True)
class Failed:
    """An error ended the training. `reason` is one line; the traceback is in the worker's log.

    `lack` of `memory`: the population does not fit into that of the host or of the GPU; of `disk`: no room for a
    checkpoint.
    """

    reason: str
    lack: Literal["", "memory", "disk"] = ""


@dataclass(frozen=True)
class Notice:
    """One line that the user should read."""

    line: str


Message = Ready | Began | Record | TrainingProgress | ValidationCheck | Finished | Stopped | Failed | Notice


def part_of(assignment: Assignment, runs: tuple[Run, ...]) -> Assignment:
    """Some or all runs of a population as their own population, which resumes from the checkpoint of the whole."""
    own = assignment.checkpoint.with_name(f"{Population(runs).key}.pt")
    return Assignment(runs, own, assignment.checkpoint if assignment.checkpoint.exists() else assignment.resume)


def halves(assignment: Assignment) -> list[Assignment]:
    """A population in two halves."""
    half = (len(assignment.runs) + 1) // 2
    return [part_of(assignment, assignment.runs[:half]), part_of(assignment, assignment.runs[half:])]
