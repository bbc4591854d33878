"""A run that is being written: what each record adds to it, the same for every tracker."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from rnnstudy.store.arrays import READINGS, WEIGHTS, write_readings, write_weights
from rnnstudy.store.decimation import MOST_POINTS, Point, points_of, summary_of, summary_points
from rnnstudy.store.run_description import Description
from rnnstudy.store.stored_run import COMPLETE
from rnnstudy.store.system_metrics import Sample, points_of_sample, samples_in
from rnnstudy.training.records import Outcome, Record


@dataclasses.dataclass(frozen=True)
class Update:
    """What a record adds to a stored run.

    Attributes:
        points: new points of its metrics.
        files: name of an array file to what writes it, given its path; none before the run's last record.
        tags: the tags that the run ends with; none before its last record.
    """

    points: Sequence[Point]
    files: Mapping[str, Callable[[Path], None]] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def write_files(self, folder: Path) -> list[Path]:
        """Write the array files into `folder`."""
        for name, write in self.files.items():
            write(folder / name)
        return [folder / name for name in self.files]


@dataclasses.dataclass
class OpenRun:
    """A run that is being written.

    Attributes:
        description: what it is.
        identity: MLflow's run id, or the run's folder.
        sent: per metric, the steps of the points that are stored or buffered.
        buffer: points that are not stored yet.
        attempts: how often the run has failed before.
        samples: how many sensor readings it has; None before the first one of this process.
    """

    description: Description
    identity: str
    sent: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    buffer: list[Point] = dataclasses.field(default_factory=list)
    attempts: int = 0
    samples: int | None = None

    def take(self, record: Record) -> Update:
        """What `record` adds. Its points count as sent, so the same record adds them once."""
        outcome = record.outcome
        points = self.new_points(
            points_of(record.series, self.description.steps, record.time, complete=outcome is not None)
        )
        if outcome is None:
            return Update(points)
        if outcome.status in COMPLETE:
            points += self.new_points(summary_points(record.series, outcome, record.time))
        header = run_header(self.description, record)
        files: dict[str, Callable[[Path], None]] = {READINGS: partial(write_readings, run=header, series=record.series)}
        if record.weights is not None:
            files[WEIGHTS] = partial(write_weights, weights=record.weights)
        return Update(points, files, self._ending_tags(outcome))

    def take_sample(self, sample: Sample, seconds: float) -> list[Point]:
        """The new points of a reading of the machine's sensors, made at `seconds` since 1970."""
        number = samples_in(self.sent) if self.samples is None else self.samples
        self.samples = number + 1
        return self.new_points(points_of_sample(sample, number, seconds))

    def new_points(self, points: Iterable[Point]) -> list[Point]:
        """Those of `points` that were not sent yet, now counted as sent."""
        new = []
        for point in points:
            steps = self.sent.setdefault(point.metric, set())
            if point.step not in steps and len(steps) < MOST_POINTS:
                steps.add(point.step)
                new.append(point)
        return new

    def _ending_tags(self, outcome: Outcome) -> dict[str, str]:
        tags = {
            "rnnstudy.outcome": outcome.status,
            "rnnstudy.engine": outcome.engine,
            "rnnstudy.reason": outcome.reason[:1000],
            "rnnstudy.solved": "" if outcome.solved is None else str(outcome.solved).lower(),
            "rnnstudy.attempts": str(self.attempts + outcome.attempts) if outcome.status == "failed" else "",
        }
        return {name: value for name, value in tags.items() if value}


def run_header(description: Description, record: Record) -> dict[str, Any]:
    """The description of a run in the manifest of `readings.npz`; without an outcome, the run is still running."""
    outcome = record.outcome or Outcome(cast(Any, "running"), record.step)
    fields = dataclasses.asdict(outcome)
    return {
        **{field: getattr(description, field) for field in ("key", "name", "experiment", "parameters", "tags")},
        "outcome": {field: value for field, value in fields.items() if field not in ("summary", "attempts")},
        "summary": summary_of(record.series, outcome),
        "time": record.time,
    }
