"""A run that is being written: what each record adds to it, the same for every tracker."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from rnnstudy.store import arrays, decimation, system_metrics
from rnnstudy.store.decimation import Point
from rnnstudy.store.run_description import Description
from rnnstudy.store.stored_run import COMPLETE
from rnnstudy.training.records import Outcome, Record


@dataclasses.dataclass
class OpenRun:
    """A run that is being written.

    Attributes:
        description: what it is.
        identity: MLflow's run id, or the run's folder.
        sent: per metric, the steps of the points that are stored or buffered.
        buffer: points that are not stored yet.
        attempts: how often the run has failed before.
        started: when it began, in ms since 1970: it does not end earlier, whatever the clock was set to meanwhile.
        samples: how many sensor readings it has; None before the first one of this process.
    """

    description: Description
    identity: str
    sent: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    buffer: list[Point] = dataclasses.field(default_factory=list)
    attempts: int = 0
    started: int = 0
    samples: int | None = None

    def take(self, record: Record) -> list[Point]:
        """The points that `record` adds. They count as sent, so the same record adds them once."""
        series, outcome = record.series, record.outcome
        points = self.new_points(decimation.points_of(series, self.description.steps, record.time, outcome is not None))
        if outcome is not None and outcome.status in COMPLETE:
            points += self.new_points(decimation.summary_points(series, outcome, record.time))
        return points

    def write_files(self, last: Record, folder: Path) -> list[Path]:
        """Write the array files of a run, from its last record, into `folder`."""
        arrays.write_readings(folder / arrays.READINGS, run_header(self.description, last), last.series)
        if last.weights is None:
            return [folder / arrays.READINGS]
        arrays.write_weights(folder / arrays.WEIGHTS, last.weights)
        return [folder / arrays.READINGS, folder / arrays.WEIGHTS]

    def take_sample(self, sample: system_metrics.Sample, seconds: float) -> list[Point]:
        """The new points of a reading of the machine's sensors, made at `seconds` since 1970."""
        number = system_metrics.samples_in(self.sent) if self.samples is None else self.samples
        self.samples = number + 1
        return self.new_points(system_metrics.points_of_sample(sample, number, seconds))

    def new_points(self, points: Iterable[Point]) -> list[Point]:
        """Those of `points` that were not sent yet, now counted as sent."""
        new = []
        for point in points:
            steps = self.sent.setdefault(point.metric, set())
            if point.step not in steps and len(steps) < decimation.LARGEST_METRIC:
                steps.add(point.step)
                new.append(point)
        return new

    def ending_tags(self, outcome: Outcome) -> dict[str, str]:
        """The tags that a run ends with."""
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
        "summary": decimation.summary_of(record.series, outcome),
        "time": record.time,
    }
