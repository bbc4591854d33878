"""The writer into MLflow's store."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rnnstudy.run import Run
from rnnstudy.store.documents import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.records import Record

BUFFERED_POINTS = 1000
"""Points of a run that are held back and written in one batch: MLflow's own limit for a batch."""


class MlflowTracker:
    """The one buffered writer of a sweep into MLflow's store (see `tracker.Tracker`). Makes the sweep's experiment."""

    def __init__(self, store: Store, info: SweepInfo) -> None:
        self.store = store
        self.info = info
        self._experiment = store.experiment(info.experiment, experiment_tags(info.experiment_file, info.hypothesis))
        self._open: dict[str, OpenRun] = {}

    def begin(
        self, run: Run, name: str, tags: Mapping[str, str] = MappingProxyType({}), began: float | None = None
    ) -> None:
        self._open[run.key] = self.store.start(self.info.describe(run, name, tags), self._experiment, began)

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        opened.buffer += opened.take(record)
        if record.outcome is not None:
            with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
                files = opened.write_files(record, Path(folder))
                self.store.end(opened, opened.ending_tags(record.outcome), files, record.time)
            del self._open[record.key]
        elif len(opened.buffer) >= BUFFERED_POINTS:
            self.store.send(opened)

    def sampled(self, sample: Sample, seconds: float) -> None:
        for opened in self._open.values():
            opened.buffer += opened.take_sample(sample, seconds)

    def interrupt(self, key: str) -> None:
        if key in self._open:
            self.store.end(self._open[key], {"rnnstudy.outcome": "interrupted"})
            del self._open[key]

    def drop(self, key: str) -> None:
        self._open.pop(key, None)

    def close(self) -> None:
        for opened in self._open.values():
            self.store.send(opened)


def experiment_tags(experiment_file: str, hypothesis: str) -> dict[str, str]:
    """The first makes MLflow's page treat the runs as trainings of models."""
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        "rnnstudy.experiment_file": experiment_file,
        NOTE: hypothesis,
    }
    return {name: value for name, value in tags.items() if value}
