import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rnnstudy.run import Run
from rnnstudy.store.description import NOTE
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.open_run import OpenRun, ending_tags, write_arrays
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo, describe
from rnnstudy.store.stored_run import StoredRun
from rnnstudy.store.system_metrics import Sample
from rnnstudy.store.tracker import Failures
from rnnstudy.training.records import Record, RunState

if TYPE_CHECKING:
    pass


class MlflowTracker:
    """The one buffered writer of a sweep into MLflow's store (see `tracker.Tracker`). Its experiment exists afterwards."""

    def __init__(self, store: Store, info: SweepInfo) -> None:
        self.store = store
        self.info = info
        self._tags = info.tags()
        self._experiment = store.experiment(info.experiment, experiment_tags(info))
        self._open: dict[str, OpenRun] = {}

    def begin(self, run: Run, name: str, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        described = describe(run, name, self.info.experiment, {**self._tags, **tags}, self.info.hypothesis)
        self._open[run.key] = self.store.start(described, self._experiment)

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        opened.buffer += opened.points(record)
        if record.outcome is not None:
            with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
                files = write_arrays(Path(folder), opened.description, record)
                tags = ending_tags(record.outcome, opened.attempts)
                self.store.end(opened, tags, files, record.time)
            del self._open[record.key]
        elif len(opened.buffer) >= BUFFERED_POINTS:
            self.store.send(opened)

    def sampled(self, sample: Sample, seconds: float) -> None:
        for opened in self._open.values():
            opened.buffer += opened.sampled(sample, seconds)

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can go on later. One that is not being written is left as it is."""
        opened = self._open.get(key)
        if opened is not None:
            self.store.end(opened, {"rnnstudy.outcome": "interrupted"})
            del self._open[key]

    def close(self) -> None:
        for opened in self._open.values():
            self.store.send(opened)


def experiment_tags(info: SweepInfo) -> dict[str, str]:
    """The first makes MLflow's page treat the runs as trainings of models."""
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        "rnnstudy.experiment_file": info.experiment_file,
        NOTE: info.hypothesis,
    }
    return {name: value for name, value in tags.items() if value}


BUFFERED_POINTS = 1000
"""Points of a run kept back before they are written in one batch: MLflow's own limit for a batch."""
