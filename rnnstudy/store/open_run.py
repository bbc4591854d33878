import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from rnnstudy.store.arrays import READINGS, WEIGHTS, write_readings, write_weights
from rnnstudy.store.decimation import MOST_POINTS, Point, points_of, summary_of, summary_points
from rnnstudy.store.run_description import Description
from rnnstudy.store.stored_run import COMPLETE
from rnnstudy.store.system_metrics import Sample, points_of_sample, samples_in
from rnnstudy.training.records import Outcome, Record


@dataclasses.dataclass
class OpenRun:
    """A run being written: `sent` holds the steps of each metric that the store has or is about to get; `attempts` says
    how often it has failed before, `samples` how many of the machine it has had, once there was one."""

    description: Description
    identity: str
    sent: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    buffer: list[Point] = dataclasses.field(default_factory=list)
    attempts: int = 0
    samples: int | None = None

    def fresh(self, points: Iterable[Point]) -> list[Point]:
        """The points that are new, now counted as sent."""
        new = []
        for point in points:
            steps = self.sent.setdefault(point.metric, set())
            if point.step not in steps and len(steps) < MOST_POINTS:
                steps.add(point.step)
                new.append(point)
        return new

    def sampled(self, sample: Sample, seconds: float) -> list[Point]:
        """The new points of what the machine's sensors said at `seconds` since 1970."""
        number = samples_in(self.sent) if self.samples is None else self.samples
        self.samples = number + 1
        return self.fresh(points_of_sample(sample, number, seconds))

    def points(self, record: Record) -> list[Point]:
        """The new points of a record."""
        points = points_of(record.series, self.description.steps, record.time, complete=record.outcome is not None)
        new = self.fresh(points)
        if record.outcome is not None and record.outcome.status in COMPLETE:
            new += self.fresh(summary_points(record.series, record.outcome, record.time))
        return new


def ending_tags(outcome: Outcome, failed_before: int = 0) -> dict[str, str]:
    """The tags that a run ends with."""
    reason = outcome.reason[:1000]
    tags = {"rnnstudy.outcome": outcome.status, "rnnstudy.engine": outcome.engine, "rnnstudy.reason": reason}
    if outcome.solved is not None:
        tags["rnnstudy.solved"] = str(outcome.solved).lower()
    if outcome.status == "failed":
        tags["rnnstudy.attempts"] = str(failed_before + outcome.attempts)
    return {name: value for name, value in tags.items() if value}


def run_header(description: Description, record: Record) -> dict[str, Any]:
    """What the manifest of `readings.npz` says about the run; a record without outcome describes a run under way."""
    outcome = record.outcome or Outcome(cast(Any, "running"), record.step)
    told = dataclasses.asdict(outcome)
    return {
        **{field: getattr(description, field) for field in ("key", "name", "experiment", "parameters", "tags")},
        "outcome": {field: value for field, value in told.items() if field not in ("summary", "attempts")},
        "summary": summary_of(record.series, outcome),
        "time": record.time,
    }


def write_arrays(folder: Path, description: Description, record: Record) -> list[Path]:
    """The array files of a run's last record, in `folder`."""
    written = [folder / READINGS]
    write_readings(written[0], run_header(description, record), record.series)
    if record.weights is not None:
        written.append(folder / WEIGHTS)
        write_weights(written[1], record.weights)
    return written
