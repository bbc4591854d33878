"""Readings of the machine's sensors reach every run that is being trained, through the one writer."""

import time
from pathlib import Path

import pytest

from rnnstudy.cells import Elman
from rnnstudy.run import Run
from rnnstudy.store import system_metrics
from rnnstudy.store.decimation import Point
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.sync import sync
from rnnstudy.store.system_metrics import Machine, points_of_sample, samples_in
from rnnstudy.store.writer import Writer
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record

RUNS = [Run(task=TemporalOrder(length=10), cell=Elman(width=3), seed=seed) for seed in range(2)]
CPU, MEMORY = "cpu_utilization_percentage", "system_memory_usage_megabytes"


def test_the_sensors_are_read_no_more_often_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = Machine(10)
    assert sensors.sample() == {}
    now = time.monotonic()
    monkeypatch.setattr(system_metrics.time, "monotonic", lambda: now + 11)
    sample = sensors.sample()
    assert {CPU, MEMORY, "system_memory_usage_percentage"} <= sample.keys()
    assert 0 <= sample[CPU] <= 100
    assert sample[MEMORY] > 10
    assert sensors.sample() == {}


def test_long_runs_keep_fewer_of_their_samples() -> None:
    stored_numbers = [number for number in range(3000) if list(points_of_sample({CPU: 1.0}, number, 0.0))]
    assert stored_numbers == [*range(100), *range(100, 1000, 10), *range(1000, 3000, 100)]
    assert list(points_of_sample({CPU: 7}, 120, 2.5)) == [Point(f"system/{CPU}", 120, 7.0, 2500)]


def test_numbers_go_on_where_a_run_was_interrupted() -> None:
    assert samples_in({}) == 0
    assert samples_in({"learning/loss": {50}}) == 0
    assert samples_in({"learning/loss": {50}, f"system/{CPU}": {0, 1, 2}}) == 3


def sampled(tracker: MlflowTracker | OfflineTracker, readings: list[float]) -> None:
    """Two runs, of which the second ends before the last reading, and both go on later."""
    writer = Writer(tracker, None)
    for run in RUNS:
        writer.begin(run, run.name, {})
    for reading in readings[:-1]:
        writer.sampled({CPU: reading})
    writer.write(Record(RUNS[1].key, 5, 1.0, {}, Outcome("finished", 5, solved=False)))
    writer.sampled({CPU: readings[-1]})
    writer.interrupt(RUNS[0].key)
    writer.close()
    assert writer.fault is None


def stored(store: Store) -> list[list[tuple[int, float]]]:
    """Step and value of the CPU's readings of each run, in the order of `RUNS`."""
    identity = {run.key: run.identity for run in store.runs()}
    histories = [store.client.get_metric_history(identity[run.key], f"system/{CPU}") for run in RUNS]
    return [sorted((point.step, point.value) for point in history) for history in histories]


def test_every_open_run_gets_the_readings_and_a_resumed_one_more(project_with_store: Path) -> None:
    project = Project(project_with_store)
    tracker = MlflowTracker(open_store(project), SweepInfo("mine"))
    sampled(tracker, [10.0, 20.0, 30.0])
    assert stored(tracker.store) == [[(0, 10.0), (1, 20.0), (2, 30.0)], [(0, 10.0), (1, 20.0)]]
    again = MlflowTracker(open_store(project), SweepInfo("mine"))
    again.begin(RUNS[0], RUNS[0].name)
    again.sampled({CPU: 40.0}, 5.0)
    again.write(Record(RUNS[0].key, 5, 1.0, {}, Outcome("finished", 5, solved=False)))
    assert stored(again.store)[0] == [(0, 10.0), (1, 20.0), (2, 30.0), (3, 40.0)]


def test_files_hold_them_too(project_with_store: Path, tmp_path: Path) -> None:
    project = Project(project_with_store)
    folder = tmp_path / "apart"
    sampled(OfflineTracker(OfflineFolder(folder), SweepInfo("mine")), [10.0, 20.0])
    sync([folder], Store(project))
    assert stored(Store(project)) == [[(0, 10.0), (1, 20.0)], [(0, 10.0)]]
