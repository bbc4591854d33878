"""The writer into MLflow's store."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rnnstudy.run import Run
from rnnstudy.store.documents import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.run_description import SweepInfo, describe
from rnnstudy.store.system_metrics import Sample
from rnnstudy.training.records import Record

BUFFERED_POINTS = 1000
"""Points of a run that are held back and written in one batch: MLflow's own limit for a batch."""


class MlflowTracker:
    """The one buffered writer of a sweep into MLflow's store (see `tracker.Tracker`). Makes the sweep's experiment."""

    def __init__(self, store: Store, info: SweepInfo) -> None:
        self.store = store
        self.info = info
        self._tags = info.tags()
        self._experiment = store.experiment(info.experiment, experiment_tags(info.experiment_file, info.hypothesis))
        self._open: dict[str, OpenRun] = {}

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        described = describe(run, name, self.info.experiment, {**self._tags, **tags}, self.info.hypothesis)
        self._open[run.key] = self.store.start(described, self._experiment)

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        update = opened.take(record)
        opened.buffer += update.points
        if update.tags:
            with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
                self.store.end(opened, update.tags, update.write_files(Path(folder)), record.time)
            del self._open[record.key]
        elif len(opened.buffer) >= BUFFERED_POINTS:
            self.store.send(opened)

    def sampled(self, sample: Sample, seconds: float) -> None:
        for opened in self._open.values():
            opened.buffer += opened.take_sample(sample, seconds)

    def interrupt(self, key: str) -> None:
        opened = self._open.get(key)
        if opened is not None:
            self.store.end(opened, {"rnnstudy.outcome": "interrupted"})
            del self._open[key]

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
