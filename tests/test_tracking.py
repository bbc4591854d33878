"""The store: everything that was written is there, and once, whatever was killed in between."""

import contextlib
import dataclasses
import importlib
import importlib.util
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnstudy.cells import LSTM, Elman
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.probes.reading import MEDIAN
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.store import mlflow_database, source_hashes
from rnnstudy.store.arrays import READINGS, WEIGHTS, read_manifest, read_series, read_weights
from rnnstudy.store.decimation import points_of, scheduled, summary_points, thinned
from rnnstudy.store.errors import DamagedFile, DiskFull, StoreError, StoreUnavailable
from rnnstudy.store.mlflow_database import schema_revisions
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo, parameter_text
from rnnstudy.store.source_hashes import code_hashes, text_hash
from rnnstudy.store.stored_run import RunIndex, StoredRun
from rnnstudy.store.sync import sync
from rnnstudy.store.tracker import Tracker
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series

STEPS = 400
INFO = SweepInfo("toy", "experiments/toy.py", "rnnstudy sweep experiments/toy.py", "reference", "sweep-1")


def a_run(seed: int = 0, **changes: object) -> Run:
    base = Run(task=TemporalOrder(length=20), cell=Elman(width=4), training=Training(steps=STEPS), seed=seed)
    return base.replace(**changes)


def history(until: int = STEPS, after: int = -1) -> dict[str, Series]:
    """Every kind of series, at the steps after+1..until; the values depend on the step alone."""
    every, tenth = np.arange(max(after + 1, 0), until + 1), np.arange(0, until + 1, 10)
    tenth = tenth[tenth > after]
    time = np.arange(1, 7)
    through = -(tenth[:, None, None] / 100 + time[None, None, :] + np.arange(5)[None, :, None] / 10)
    through[:, :, 0] = np.nan
    through[tenth == 50] = np.nan
    loss = 1 / (1 + every)
    loss[every == 0] = np.inf
    series = {
        "learning/loss": Series(every, loss, (), "nats", 1),
        "through_time/h": Series(tenth, through, ("quantile", "time"), "log10", 10),
        "through_time/h_zeros": Series(tenth, np.zeros((len(tenth), 6)), ("time",), "share", 10),
    }
    if after < 0:
        lags = -np.arange(500.0)[None, None, :] * np.ones((1, 5, 1))
        series["profile/h_initial"] = Series(np.array([0]), lags, ("quantile", "lag"), "log10")
        series["summary/rate_initial"] = Series(np.array([0]), np.array([-1.0]), (), "log10 per step")
    if until == STEPS:
        lengths = {"length": (20.0, 40.0)}
        error = np.array([[0.0, 0.25]])
        series["generalisation/error"] = Series(np.array([until]), error, ("length",), "share", coordinates=lengths)
    return {name: reading for name, reading in series.items() if len(reading.steps)}


OUTCOME = Outcome("finished", STEPS, True, 300, 1.5, "reference", summary={"error": 0.125, "absent": float("nan")})
WEIGHTS_OF_RUN = {"W_hh": np.arange(16.0).reshape(4, 4), "b_h": np.zeros(4, np.float32)}


def pieces(key: str, *ends: int) -> list[Record]:
    """Records that end at these steps; each has its own time."""
    return [Record(key, end, 1000.0 + end / 7, history(end, before)) for before, end in itertools.pairwise((-1, *ends))]


def last(key: str, outcome: Outcome = OUTCOME) -> Record:
    return Record(key, STEPS, 2000.25, history(), outcome, WEIGHTS_OF_RUN)


def rows(project: Project, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(project.database)) as connection:
        return connection.execute(query).fetchall()


def metric_rows(project: Project) -> set[tuple]:
    metrics = rows(project, "SELECT run_uuid, key, step, timestamp, value, is_nan FROM metrics")
    assert len(metrics) == len(set(metrics))
    return set(metrics)


def snapshot(project: Project) -> dict[str, list[tuple]]:
    return {
        table: sorted(rows(project, f"SELECT * FROM {table}"), key=repr)
        for table in ("runs", "metrics", "params", "tags", "latest_metrics", "experiments", "experiment_tags")
    }


def as_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database; copied by the tests, since making one takes seconds."""
    project = Project(tmp_path_factory.mktemp("first"))
    assert Store(project).client.search_experiments()[0].name == "Default"
    return project.database


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = Project(tmp_path / "a project")
    project.mlruns.mkdir(parents=True)
    shutil.copy(empty_database, project.database)
    return project


def finish(tracker: Tracker, run: Run, name: str = "elman-T0020-s0") -> None:
    tracker.begin(run, name, began=900.5)
    for record in [*pieces(run.key, 130, 260), last(run.key)]:
        tracker.write(record)


# What is sent


def test_schedule_sends_at_most_100_points_and_knows_only_the_step():
    for most, spacing in [(10, 1), (99, 1), (100, 1), (1000, 1), (12345, 7), (5000, 100), (1500, 10), (3, 5)]:
        steps = np.arange(0, most + 1, spacing)
        shown = scheduled(steps, spacing, most)
        naive = [s < spacing or 100 * s // (most + 1) != 100 * (s - spacing) // (most + 1) for s in steps.tolist()]
        assert shown.tolist() == naive
        assert shown[0]
        assert shown.sum() <= 100
        assert shown.sum() == len(steps) if len(steps) <= 100 and most < 100 else shown.sum() > 10
        apart = np.concatenate([scheduled(part, spacing, most) for part in np.array_split(steps, 3)])
        assert (apart == shown).all()


def test_axes_become_metrics():
    points = list(points_of(history(), STEPS, 12.3456, complete=True))
    by_metric: dict[str, dict[int, float]] = {}
    for point in points:
        assert point.time == 12346
        assert np.isfinite(point.value)
        assert point.step not in by_metric.setdefault(point.metric, {})
        by_metric[point.metric][point.step] = point.value
    assert set(by_metric) == {
        "learning/loss", "through_time/h_first", "through_time/h_last", "profile/h_initial", "generalisation/error"
    }  # fmt: skip
    assert by_metric["generalisation/error"] == {20: 0.0, 40: 0.25}
    # Median: 0.2 below the lowest quantile; time step 1 was never measured, nor was anything at step 50.
    expected = [step for step in range(0, STEPS + 1, 10) if step != 50]
    assert by_metric["through_time/h_first"] == {step: pytest.approx(-(step / 100 + 2 + 0.2)) for step in expected}
    assert by_metric["through_time/h_last"] == {step: pytest.approx(-(step / 100 + 6 + 0.2)) for step in expected}
    # The infinite loss at step 0 is absent.
    assert 0 not in by_metric["learning/loss"]
    assert 90 < len(by_metric["learning/loss"]) <= 100
    profile = by_metric["profile/h_initial"]
    assert len(profile) == 100
    assert {0, 499} <= set(profile)
    assert all(value == -lag for lag, value in profile.items())


def test_profiles_wait_for_the_whole_history():
    assert "profile/h_initial" not in {point.metric for point in points_of(history(130), STEPS, 1.0, complete=False)}


@pytest.mark.parametrize("axis", ["lag", "age"])
def test_the_last_moment_of_a_profile_is_sent(axis: str):
    values = np.stack([np.full((5, 3), 1.0), np.arange(15.0).reshape(5, 3)])
    series = {
        "profile/c": Series(np.array([0, 100]), values, ("quantile", axis), "log10", 100),
        "profile/c_zeros": Series(np.array([0, 100]), values[:, 0], (axis,), "share", 100),
    }
    points = list(points_of(series, STEPS, 1.0, complete=True))
    assert [(p.step, p.value) for p in points] == [(position, values[1, MEDIAN, position]) for position in range(3)]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 5000])
def test_thinning_keeps_both_ends(count: int):
    positions = thinned(count)
    assert len(positions) == min(count, 100)
    assert positions[0] == 0
    assert positions[-1] == count - 1
    assert np.ptp(np.diff(positions)) <= 1 if count > 1 else True


def test_summary_has_scalars_once():
    points = {p.metric: (p.step, p.value) for p in summary_points(history(), OUTCOME, 1.0)}
    assert points == {
        "summary/rate_initial": (STEPS, -1.0),
        "summary/error": (STEPS, 0.125),
        "summary/solved": (STEPS, 1.0),
        "summary/steps_to_solve": (STEPS, 300.0),
    }


# Into MLflow


def test_what_was_written_is_in_the_store(project: Project):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    finish(tracker, run)
    (stored,) = tracker.store.runs()
    assert (stored.key, stored.name, stored.experiment, stored.state) == (run.key, "elman-T0020-s0", "toy", "finished")
    tags = {name.removeprefix("rnnstudy."): value for name, value in stored.tags.items()}
    assert (tags["sweep"], tags["outcome"], tags["solved"]) == ("sweep-1", "finished", "true")
    assert tags["engine"] == "reference"
    assert tags["command"] == INFO.command
    assert tags["host"] == socket.gethostname()
    assert tags["pid"] == str(os.getpid())
    in_mlflow = tracker.store.client.get_run(stored.identity)
    assert in_mlflow.info.status == "FINISHED"
    assert (in_mlflow.info.start_time, in_mlflow.info.end_time) == (900500, 2000250)
    assert "mlflow.parentRunId" not in in_mlflow.data.tags
    parameters = in_mlflow.data.params
    assert (parameters["cell"], parameters["length"], parameters["training.batch"]) == ("Elman", "20", "20")
    assert not any(name.startswith("probes") for name in parameters)
    points = [*points_of(history(), STEPS, 0, True), *summary_points(history(), OUTCOME, 0)]
    expected = {(point.metric, point.step, point.value) for point in points}
    assert {(key, step, value) for _, key, step, _, value, _ in metric_rows(project)} == expected
    experiment = tracker.store.client.get_experiment_by_name("toy")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.artifact_location == project.artifacts.as_uri()


def test_points_carry_the_time_of_their_record(project: Project):
    run = a_run()
    finish(MlflowTracker(open_store(project), INFO), run)
    stamps = {step: stamp for _, key, step, stamp, _, _ in metric_rows(project) if key == "learning/loss"}
    ends = {130: 1000.0 + 130 / 7, 260: 1000.0 + 260 / 7, 400: 2000.25}
    for step, stamp in stamps.items():
        assert stamp == round(1000 * next(time for end, time in ends.items() if step <= end))


def test_arrays_hold_everything_at_full_resolution(project: Project):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    finish(tracker, run)
    (stored,) = tracker.store.runs()
    path = tracker.store.artifact(stored, READINGS)
    assert path.is_relative_to(project.artifacts)
    manifest = read_manifest(path)
    assert set(manifest["series"]) == set(history())
    for name, series in history().items():
        read = read_series(path, name, manifest)
        assert read.values.dtype == np.float32
        np.testing.assert_array_equal(read.values, series.values.astype(np.float32))
        np.testing.assert_array_equal(read.steps, series.steps)
        same = ("axes", "unit", "spacing", "coordinates")
        assert [getattr(read, field) for field in same] == [getattr(series, field) for field in same]
    assert manifest["run"]["outcome"]["steps_to_solve"] == 300
    weights = read_weights(tracker.store.artifact(stored, WEIGHTS))
    assert {name: value.dtype for name, value in weights.items()} == {"W_hh": np.float64, "b_h": np.float32}
    np.testing.assert_array_equal(weights["W_hh"], WEIGHTS_OF_RUN["W_hh"])


@pytest.mark.parametrize("status", ["diverged", "pruned", "failed"])
def test_other_outcomes(project: Project, status: str):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, "a")
    tracker.write(last(run.key, Outcome(status, 77, reason="loss is not finite", engine="fast")))
    (stored,) = tracker.store.runs()
    assert stored.state == status
    assert stored.tags["rnnstudy.reason"] == "loss is not finite"
    assert stored.tags["rnnstudy.engine"] == "fast"
    assert "rnnstudy.solved" not in stored.tags
    mlflow_status = tracker.store.client.get_run(stored.identity).info.status
    assert mlflow_status == {"diverged": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[status]
    assert (run.key in tracker.store.finished()) == (status == "diverged")


def test_a_failed_run_is_taken_up_again(project: Project):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, "a")
    tracker.write(last(run.key, Outcome("failed", 77, reason="out of memory")))
    finish(tracker, run)
    (stored,) = tracker.store.runs()
    assert stored.state == "finished"
    assert stored.tags["rnnstudy.solved"] == "true"
    assert "rnnstudy.reason" not in stored.tags


def test_a_run_is_not_finished_before_its_arrays_are_there(project: Project, monkeypatch: pytest.MonkeyPatch):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, "a")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tracker.store.client, "log_artifact", full)
    with pytest.raises(StoreUnavailable, match="no space left"):
        tracker.write(last(run.key))
    assert tracker.store.states([run.key]) == {run.key: "running"}
    assert tracker.store.finished() == {}


def test_killed_and_resumed_gives_identical_rows(tmp_path: Path, empty_database: Path):
    run = a_run()
    tables = []
    for name in ("whole", "interrupted", "killed"):
        project = Project(tmp_path / name)
        project.mlruns.mkdir(parents=True)
        shutil.copy(empty_database, project.database)
        tracker = MlflowTracker(open_store(project), INFO)
        if name == "whole":
            finish(tracker, run)
        else:
            tracker.begin(run, "a")
            first, second = pieces(run.key, 130, 260)
            tracker.write(first)
            if name == "interrupted":
                tracker.interrupt(run.key)
                assert tracker.store.states([run.key, "other"]) == {run.key: "interrupted", "other": "absent"}
                assert tracker.store.client.get_run(tracker.store.runs()[0].identity).info.status == "KILLED"
            else:
                tracker.close()
                tracker.write(second)  # Buffered, and lost with its process.
            again = MlflowTracker(open_store(project), INFO)
            again.begin(run, "a")
            # A checkpoint newer than the first record does not bring it again; the last record holds everything.
            for record in [second, last(run.key)] if name == "interrupted" else [first, second, last(run.key)]:
                again.write(record)
        tables.append({row[1:] for row in metric_rows(project)})
        assert len(rows(project, "SELECT run_uuid FROM runs")) == 1
    assert tables[0] == tables[1] == tables[2]


def test_many_points_are_written_before_the_end(project: Project):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, "a")
    steps = np.arange(0, STEPS + 1, 2)
    tracker.write(Record(run.key, STEPS, 1.0, {f"gradient/{i}": Series(steps, steps / 2, (), "", 2) for i in range(3)}))
    assert not metric_rows(project)
    tracker.write(
        Record(run.key, STEPS, 1.0, {f"gradient/{i}": Series(steps, steps / 2, (), "", 2) for i in range(12)})
    )
    assert len(metric_rows(project)) == 12 * 100


def test_reuse_depends_on_probes_and_source(project: Project):
    run = a_run(probes=(ParameterGradients(every=5),))
    tracker = MlflowTracker(open_store(project), INFO)
    assert tracker.store.finished() == {}
    finish(tracker, run)
    stored = tracker.store.finished()[run.key]
    assert stored.serves(run)
    assert stored.serves(run.replace(probes=()))
    assert stored.warning(run) == ""
    wider = run.replace(probes=(ParameterGradients(every=5), GradientThroughTime()))
    assert wider.key == run.key
    assert not stored.serves(wider)
    assert not stored.serves(run.replace(probes=(ParameterGradients(every=4),)))
    assert "rnnstudy.source" not in stored.tags, "the tag of runs stored before hashes left out docstrings"
    source = {**stored.sources, "rnnstudy.cells.elman:Elman": "0" * 12}
    changed = dataclasses.replace(stored, tags={**stored.tags, "rnnstudy.code": json.dumps(source)})
    assert "rnnstudy.cells.elman:Elman" in changed.warning(run)
    assert "TemporalOrder" not in changed.warning(run)
    # Resuming with other probes is possible although MLflow's parameters are for ever.
    other = a_run(1)
    tracker.begin(other, "b")
    tracker.interrupt(other.key)
    tracker.begin(other.replace(probes=()), "b")


CELL = """
from rnnstudy.cells import Elman


class Mine(Elman):
    'Doubles.'

    factor: int = 2
    'How much more.'

    def more(self, value):
        'Returns more.'
        return 2 * value  # doubled
"""


@pytest.mark.parametrize(
    ("old", "new", "warns"),
    [
        ("'Doubles.'", "'Returns the double of a value.'", False),
        ("'Returns more.'", "", False),
        ("'How much more.'", "'Per cent.'", False),
        ("# doubled", "# the comment has changed", False),
        ("2 * value", "3 * value", True),
        ("factor: int = 2", "factor: int = 3", True),
    ],
)
def test_changed_code_is_warned_of_and_a_changed_docstring_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, warns: bool
):
    def run_with(folder: str, text: str) -> Run:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / folder)
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        return a_run(cell=importlib.import_module("mine").Mine(width=4))

    def stored(**tags: str) -> StoredRun:
        return StoredRun(before.key, "mine", "toy", "finished", {f"rnnstudy.{k}": v for k, v in tags.items()}, "1")

    assert old in CELL
    before = run_with("before", CELL)
    code, text = code_hashes(before), {"mine:Mine": text_hash(type(before.cell))}
    assert stored(source=json.dumps(text)).warning(before) == "", "the hash that older runs have"
    after = run_with("after", CELL.replace(old, new))
    warning = stored(code=json.dumps(code), source=json.dumps(text)).warning(after)
    assert ("other code of mine:Mine;" in warning) == warns
    assert bool(warning) == warns
    # A run stored before hashes left out docstrings: the table says which code its hash stands for.
    assert stored(source=json.dumps(text)).warning(after)
    monkeypatch.setattr(source_hashes, "EQUIVALENT", {text["mine:Mine"]: code["mine:Mine"]})
    assert bool(stored(source=json.dumps(text)).warning(after)) == warns


def test_classes_without_a_source_file_are_not_compared():
    names: dict[str, Any] = {"__name__": "typed"}
    exec("from rnnstudy.cells import Elman\nclass Typed(Elman): pass", names)
    run = a_run(cell=names["Typed"](width=3), probes=())
    assert set(code_hashes(run)) == {"rnnstudy.tasks.temporal_order:TemporalOrder"}
    tags = {"rnnstudy.code": json.dumps({"typed:Typed": "0" * 12})}
    assert StoredRun(run.key, "typed", "toy", "finished", tags, "1").warning(run) == ""


def test_forgotten_and_deleted_runs_are_absent(project: Project):
    first, second, third = (a_run(seed) for seed in range(3))
    tracker = MlflowTracker(open_store(project), INFO)
    for run in (first, second, third):
        finish(tracker, run)
    assert tracker.store.forget([first.key, "unknown"]) == 1
    tracker.store.client.delete_run(tracker.store.finished()[second.key].identity)
    assert set(tracker.store.finished()) == {third.key}
    assert tracker.store.states([first.key, third.key]) == {first.key: "absent", third.key: "finished"}
    tracker.store.client.delete_experiment(tracker.store.client.get_experiment_by_name("toy").experiment_id)
    again = MlflowTracker(open_store(project), INFO)
    assert again.store.finished() == {}
    finish(again, first)
    assert set(again.store.finished()) == {first.key}


def test_only_runs_of_dead_processes_are_marked_interrupted(project: Project):
    tracker = MlflowTracker(open_store(project), INFO)
    dead, alive, elsewhere, reused = (a_run(seed) for seed in range(4))
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    for run in (dead, alive, elsewhere, reused):
        tracker.begin(run, run.name)
    identity = {run.key: run.identity for run in tracker.store.runs()}
    tracker.store.client.set_tag(identity[dead.key], "mlflow.rnnstudy.pid", str(process.pid))
    tracker.store.client.set_tag(identity[elsewhere.key], "mlflow.rnnstudy.pid", str(process.pid))
    # A container with this host name.
    tracker.store.client.set_tag(identity[elsewhere.key], "mlflow.rnnstudy.pid_space", "another-boot pid:[1] -")
    tracker.store.client.set_tag(identity[reused.key], "mlflow.rnnstudy.pid_started", "12.5")
    assert tracker.store.mark_interrupted() == 2
    assert tracker.store.states([dead.key, alive.key, elsewhere.key, reused.key]) == {
        dead.key: "interrupted", alive.key: "running", elsewhere.key: "running", reused.key: "interrupted"
    }  # fmt: skip
    assert tracker.store.client.get_run(identity[dead.key]).info.status == "KILLED"
    assert tracker.store.mark_interrupted() == 0


def test_a_run_killed_after_its_tags_is_finished(project: Project):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    finish(tracker, run)
    identity = tracker.store.finished()[run.key].identity
    tracker.store.client.update_run(identity, status="RUNNING")
    tracker.store.client.set_tag(identity, "mlflow.rnnstudy.pid_started", "12.5")
    assert tracker.store.mark_interrupted() == 1
    assert tracker.store.client.get_run(identity).info.status == "FINISHED"
    assert tracker.store.states([run.key]) == {run.key: "finished"}


def test_a_moved_project_takes_its_store_along(project: Project, tmp_path: Path):
    run, other = a_run(), a_run(1)
    finish(MlflowTracker(open_store(project), INFO), run)
    moved = Project(project.root.rename(tmp_path / "moved"))
    store = Store(moved)
    assert store.artifact(store.finished()[run.key], READINGS).is_relative_to(moved.root)
    tracker = MlflowTracker(open_store(moved), INFO)
    finish(tracker, other)
    for stored in tracker.store.finished().values():
        assert stored.artifacts.startswith(moved.artifacts.as_uri())
        assert tracker.store.artifact(stored, WEIGHTS).is_relative_to(moved.root)
    assert not project.root.exists()


def test_a_copied_project_reads_and_writes_its_own_artifacts(project: Project, tmp_path: Path):
    """It read the original's, and `ui` in the copy wrote pictures into the original."""
    run = a_run()
    finish(MlflowTracker(open_store(project), INFO), run)
    copy = Project(Path(shutil.copytree(project.root, tmp_path / "copy")))
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    # As in a process of its own: MLflow remembers the folder of each run.
    _artifact_repos_cache.clear()
    before, store = as_files(project.root), Store(copy)
    stored = store.finished()[run.key]
    assert store.artifact(stored, READINGS).is_relative_to(copy.root)
    store.relocate()
    [stored] = store.runs(run.key)
    assert stored.artifacts == f"{copy.artifacts.as_uri()}/{stored.identity}/artifacts"
    (tmp_path / "picture.png").write_bytes(b"picture")
    store.add_artifacts(stored, "pictures", [tmp_path / "picture.png"], {})
    assert (copy.artifacts / stored.identity / "artifacts" / "pictures" / "picture.png").exists()
    finish(MlflowTracker(open_store(copy), INFO), a_run(1))
    assert as_files(project.root) == before
    shutil.rmtree(copy.artifacts)
    with pytest.raises(DamagedFile, match=f"{copy.artifacts}.* is gone"):
        store.artifact(stored, READINGS)
    once = snapshot(copy)
    Store(copy).relocate()
    assert snapshot(copy) == once


def times(project: Project) -> tuple[int, int | None]:
    [(began, ended)] = rows(project, "SELECT start_time, end_time FROM runs")
    return began, ended


def test_a_run_takes_from_its_first_update_to_its_last_record(project: Project):
    """Not from when it was handed to a worker, perhaps long before."""
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, run.name, began=990.25)
    tracker.interrupt(run.key)
    assert times(project)[1] is not None
    again = MlflowTracker(open_store(project), INFO)
    again.begin(run, run.name, began=990.25)
    again.write(last(run.key))
    assert times(project) == (990250, 2000250)


def test_no_run_ends_before_it_began_whatever_the_clock_was_set_to(project: Project, monkeypatch: pytest.MonkeyPatch):
    run = a_run()
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(run, run.name, began=3000.0)
    tracker.write(last(run.key))
    assert times(project) == (3_000_000, 3_000_000)


def test_a_run_of_a_dead_process_ended_when_it_was_last_heard_of(project: Project):
    """Not when that was noticed: a night without power was shown as training."""
    tracker, run = MlflowTracker(open_store(project), INFO), a_run()
    tracker.begin(run, run.name, began=900.0)
    for record in pieces(run.key, 130, 260):
        tracker.write(record)
    tracker.close()
    [stored] = tracker.store.runs()
    tracker.store.client.set_tag(stored.identity, "mlflow.rnnstudy.pid_started", "12.5")
    assert tracker.store.mark_interrupted() == 1
    assert times(project) == (900_000, round((1000.0 + 260 / 7) * 1000))


def test_what_is_asked_for_does_not_cost_what_the_store_holds(project: Project):
    """With 10,000 runs in the store, `list` took 18 s."""
    # Here, since it needs pandas, and another test imports this file without.
    from benchmarks.store_size import multiply

    finish(MlflowTracker(open_store(project), INFO), a_run())
    [stored] = Store(project).runs()
    multiply(project.database, 3001)
    other = f"{stored.key[:6]}000007"
    steps: list[int] = []

    def counting(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.set_progress_handler(lambda: steps.append(1), 1000)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_database, "connect", counting)
        store = Store(project)
        assert set(store.finished([stored.key, other])) == {stored.key, other}
        assert store.mark_interrupted() == 0
        asked = len(steps)
        assert len(store.finished()) == 3001
    assert asked < (len(steps) - asked) / 5


def test_a_database_that_was_removed_is_said_to_be_gone(project: Project):
    """MLflow's connection went on writing into the file without a name."""
    run, tracker = a_run(), MlflowTracker(open_store(project), INFO)
    tracker.begin(run, run.name)
    project.database.unlink()
    with pytest.raises(StoreUnavailable, match=r"mlflow\.db is gone"):
        tracker.write(last(run.key))


def test_a_database_that_goes_while_it_is_written_is_said_to_be_gone(project: Project, monkeypatch: pytest.MonkeyPatch):
    """It was said to be read-only."""
    from mlflow.exceptions import MlflowException

    run, store = a_run(), open_store(project)
    tracker = MlflowTracker(store, INFO)
    tracker.begin(run, run.name)

    def moved(*_: object, **__: object) -> None:
        project.database.unlink()
        raise MlflowException("(sqlite3.OperationalError) attempt to write a readonly database")

    monkeypatch.setattr(store.client, "log_batch", moved)
    monkeypatch.setattr(store.client, "set_terminated", moved)
    with pytest.raises(StoreUnavailable, match=r"mlflow\.db is gone"):
        tracker.write(last(run.key))


def test_a_full_disk_at_first_contact_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ended in a traceback of the database's library."""
    from sqlalchemy.exc import OperationalError

    def full(path: Path) -> None:
        raise OperationalError("CREATE TABLE", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(mlflow_database, "create_database", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        open_store(Project(tmp_path))
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()


def first_contact(root: str, seed: int) -> None:
    run = a_run(seed)
    tracker = MlflowTracker(open_store(Project(Path(root))), INFO)
    tracker.begin(run, run.name)
    tracker.write(last(run.key))


def test_four_processes_make_first_contact_at_once_and_in_silence(tmp_path: Path):
    script = "import sys; sys.path.insert(0, {!r}); from test_tracking import first_contact; first_contact({!r}, {})"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script.format(str(Path(__file__).parent), str(tmp_path), seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            text=True,
        )
        for seed in range(4)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0], outputs
    assert outputs == ["", "", "", ""]
    assert set(Store(Project(tmp_path)).finished()) == {a_run(seed).key for seed in range(4)}
    assert len(rows(Project(tmp_path), "SELECT name FROM experiments WHERE name = 'toy'")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    assert {path.name for path in (tmp_path / "mlruns").iterdir()} == {"mlflow.db", "mlflow.lock", "artifacts"}


def test_importing_is_cheap_and_offline_needs_neither_mlflow_nor_pandas(tmp_path: Path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.run_description import SweepInfo, parameter_text
blocked = [name for name in ("mlflow", "pandas", "sqlalchemy", "alembic") if name in sys.modules]
assert not blocked, blocked
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mlflow", "pandas"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from test_tracking import a_run, finish, INFO
tracker = OfflineTracker(OfflineFolder(Path({str(tmp_path)!r}) / "offline"), INFO)
finish(tracker, a_run())
assert set(tracker.folder.finished()) == {{a_run().key}}
"""
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr


# Offline


def test_offline_and_synced_is_as_tracked(project: Project, tmp_path: Path, empty_database: Path):
    run, part = a_run(), a_run(1)
    online = Project(tmp_path / "online")
    online.mlruns.mkdir(parents=True)
    shutil.copy(empty_database, online.database)
    offline = OfflineTracker(OfflineFolder(tmp_path / "offline"), INFO)
    for tracker in (offline, MlflowTracker(open_store(online), INFO)):
        finish(tracker, run)
        tracker.begin(part, "part")
        for record in pieces(part.key, 130, 260):
            tracker.write(record)
        tracker.interrupt(part.key)
    assert offline.folder.states([run.key, part.key, "x"]) == {
        run.key: "finished",
        part.key: "interrupted",
        "x": "absent",
    }
    assert set(offline.folder.finished()) == {run.key}
    assert offline.folder.finished()[run.key].serves(run)
    report = sync([tmp_path / "offline"], Store(project))
    assert (set(report.added), report.updated, report.unchanged) == ({run.key, part.key}, (), ())
    contents = {}
    whole = run.key
    for where in (project, online):
        store = Store(where)
        stored = {run.key: run for run in store.runs()}
        names = {run.identity: run.key for run in stored.values()}
        files = {name: store.artifact(stored[whole], name).read_bytes() for name in (READINGS, WEIGHTS)}
        statuses = {key: store.client.get_run(run.identity).info.status for key, run in stored.items()}
        metrics = {(names[row[0]], *row[1:]) for row in metric_rows(where)}
        contents[where] = (metrics, files, statuses, {key: (dict(run.tags), run.name) for key, run in stored.items()})
    assert contents[project] == contents[online]
    for synced in Store(project).runs():
        info = Store(project).client.get_run(synced.identity).info
        assert info.start_time <= info.end_time, "a run that was trained before the sync began before it ended"
    before, files = snapshot(project), as_files(project.artifacts)
    report = sync([tmp_path / "offline"], Store(project))
    assert (report.added, report.updated, set(report.unchanged)) == ((), (), {run.key, part.key})
    assert snapshot(project) == before
    assert as_files(project.artifacts) == files


def test_offline_goes_on_after_a_kill_and_syncs_further(project: Project, tmp_path: Path):
    run = a_run()
    folder = tmp_path / "offline"
    first, second = pieces(run.key, 130, 260)
    tracker = OfflineTracker(OfflineFolder(folder), INFO)
    tracker.begin(run, "a")
    tracker.write(first)
    assert sync([folder], Store(project)).added == (run.key,)
    assert Store(project).states([run.key]) == {run.key: "interrupted"}
    with (folder / run.key / "points.jsonl").open("a") as file:
        file.write('[["learning/loss", 13')  # What a kill in the middle of a line leaves.
    again = OfflineTracker(OfflineFolder(folder), INFO)
    again.begin(run, "a")
    for record in (first, second, last(run.key)):
        again.write(record)
    assert sync([folder], Store(project)).updated == (run.key,)
    (stored,) = Store(project).runs()
    assert stored.state == "finished"
    sent = {row[1:] for row in metric_rows(project)}
    finish(MlflowTracker(open_store(project), dataclasses.replace(INFO, experiment="directly")), run)
    directly = {row[1:] for row in metric_rows(project) if row[0] != stored.identity}
    assert sent == directly
    assert again.folder.forget([run.key]) == 1
    assert again.folder.finished() == {}


def test_a_run_that_the_store_lost_on_the_way_comes_back_by_sync(project: Project, tmp_path: Path):
    """Begun in the store, which then went away; ended in files, as the fallback writes them."""
    run, first, second = a_run(), *pieces(a_run().key, 130, 260)
    online = MlflowTracker(open_store(project), INFO)
    online.begin(run, "a")
    online.write(first)
    folder = tmp_path / "fallback"
    files = OfflineTracker(OfflineFolder(folder), INFO)
    files.begin(run, "a")
    files.write(second)
    files.write(last(run.key))
    assert Store(project).states([run.key]) == {run.key: "running"}
    report = sync([folder], Store(project))
    assert (report.updated, report.refused) == ((run.key,), {})
    (stored,) = Store(project).runs()
    assert stored.state == "finished"
    assert Store(project).client.get_run(stored.identity).info.status == "FINISHED"
    assert Store(project).finished()[run.key].serves(run), "the same command trains nothing again"
    # All points, though those that waited in memory when the store went away have the time of the last record.
    sent = {(metric, step, value) for _, metric, step, _, value, _ in metric_rows(project)}
    finish(MlflowTracker(open_store(project), dataclasses.replace(INFO, experiment="directly")), run)
    directly = [row for row in metric_rows(project) if row[0] != stored.identity]
    assert sent == {(metric, step, value) for _, metric, step, _, value, _ in directly}
    assert sync([folder], Store(project)).unchanged == (run.key,)


@pytest.mark.parametrize("begun", [True, False], ids=["begun in the store", "new to the store"])
def test_a_run_that_the_store_refuses_does_not_keep_others_from_coming(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rnnstudy: Callable[..., Any], begun: bool
):
    runs, folder = [a_run(seed) for seed in range(3)], tmp_path / "offline"
    if begun:
        tracker = MlflowTracker(open_store(project), INFO)
        tracker.begin(runs[1], "b")
        tracker.interrupt(runs[1].key)
    for run in runs:
        finish(OfflineTracker(OfflineFolder(folder), INFO), run)
    path = folder / runs[1].key / "run.json"
    fields = json.loads(path.read_text())
    fields["parameters"]["training.batch" if begun else "x" * 300] = 77
    path.write_text(json.dumps(fields))
    monkeypatch.setenv("RNNSTUDY_HOME", str(project.root))
    answer = rnnstudy("sync", str(folder))
    assert answer.returncode == 1
    assert "2 runs added, 0 brought further, 0 unchanged" in answer.stdout
    assert f"{runs[1].key} was not copied: the MLflow store" in answer.stderr
    states = Store(project).states([run.key for run in runs])
    assert list(states.values()) == ["finished", "interrupted" if begun else "absent", "finished"]
    statuses = {Store(project).client.get_run(run.identity).info.status for run in Store(project).runs()}
    assert statuses == ({"FINISHED", "KILLED"} if begun else {"FINISHED"})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.tuples(inner, inner)
    )
)
def test_a_parameter_has_the_same_text_after_a_way_through_json(value: Any):
    assert parameter_text(json.loads(json.dumps(value))) == parameter_text(value) == str(value)


def test_an_offline_run_of_an_older_version_is_still_read(project: Project, tmp_path: Path):
    run, folder = a_run(), tmp_path / "offline"
    finish(OfflineTracker(OfflineFolder(folder), INFO), run)
    path = folder / run.key / "run.json"
    fields = json.loads(path.read_text())
    fields["papers"] = fields.pop("documents")
    path.write_text(json.dumps(fields))
    assert sync([folder], Store(project)).added == (run.key,)
    (stored,) = Store(project).runs()
    assert json.loads(Store(project).artifact(stored, "spec.json").read_text())["key"] == run.key
    path.write_text("{}")
    with pytest.raises(DamagedFile, match=r"run\.json does not describe an offline run"):
        OfflineFolder(folder).finished()


def test_sync_of_a_folder_without_runs(project: Project, tmp_path: Path):
    before = snapshot(project)
    with pytest.raises(RequestError, match="holds no runs"):
        sync([tmp_path], Store(project))
    assert snapshot(project) == before


# Faults: one line, and nothing half-written


def refused(project: Project, *words: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(project)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is no database, just a text" * 100, ("mlflow.db", "not a sound sqlite database", "mv ")),
        (b"SQLite format 3\x00" + b"\xff" * 5000, ("mlflow.db", "mv ")),
    ],
)
def test_corrupt_database(tmp_path: Path, content: bytes, words: tuple[str, ...]):
    project = Project(tmp_path)
    project.mlruns.mkdir()
    project.database.write_bytes(content)
    refused(project, *words)
    assert project.database.read_bytes() == content
    assert not project.artifacts.exists()


def test_foreign_database(tmp_path: Path):
    project = Project(tmp_path)
    project.mlruns.mkdir()
    with contextlib.closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    before = project.database.read_bytes()
    refused(project, "mlflow.db", "not MLflow's", "mv ")
    assert project.database.read_bytes() == before


COLUMNS = {
    "experiments": {
        "experiment_id": "INTEGER",
        "name": "VARCHAR(256)",
        "artifact_location": "VARCHAR(256)",
        "lifecycle_stage": "VARCHAR(32)",
    },
    "experiment_tags": {"key": "VARCHAR(250)", "experiment_id": "INTEGER"},
    "runs": {
        "run_uuid": "VARCHAR(32)",
        "name": "VARCHAR(250)",
        "experiment_id": "INTEGER",
        "artifact_uri": "VARCHAR(200)",
        "status": "VARCHAR(9)",
        "lifecycle_stage": "VARCHAR(20)",
        "start_time": "BIGINT",
    },
    "tags": {"run_uuid": "VARCHAR(32)", "key": "VARCHAR(250)", "value": "VARCHAR(8000)"},
    "alembic_version": {"version_num": "VARCHAR(32)"},
}
"""The tables and columns of MLflow's private schema that `rnnstudy.store.mlflow_database` uses."""


def test_the_schema_of_the_installed_mlflow_is_the_one_that_is_read(project: Project):
    for table, columns in COLUMNS.items():
        present = {name: kind for _, name, kind, *_ in rows(project, f"PRAGMA table_info({table})")}
        assert {name: present.get(name) for name in columns} == columns, table
    tracker = MlflowTracker(open_store(project), INFO)
    tracker.begin(a_run(), "a")
    [(identity, status, stage)] = rows(project, "SELECT run_uuid, status, lifecycle_stage FROM runs")
    assert (status, stage) == ("RUNNING", "active")
    tracker.store.client.delete_run(identity)
    assert rows(project, "SELECT lifecycle_stage FROM runs") == [("deleted",)]
    assert {row[0] for row in rows(project, "SELECT lifecycle_stage FROM experiments")} == {"active"}


def test_schemas_are_those_that_alembic_knows():
    from alembic.script import ScriptDirectory

    folder = Path(importlib.util.find_spec("mlflow").origin).parent / "store" / "db_migrations"
    scripts = ScriptDirectory(str(folder))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    assert schema_revisions() == (scripts.get_current_head(), known)


def test_runs_read_from_the_tables_are_those_that_mlflow_lists(project: Project, monkeypatch: pytest.MonkeyPatch):
    tracker = MlflowTracker(open_store(project), SweepInfo("planted", "experiments/planted.py"))
    runs = [Run(task=TemporalOrder(length=10), cell=Elman(width=3), seed=seed) for seed in range(4)]
    for number, run in enumerate(runs):
        tracker.begin(run, f"run {number}")
        tracker.write(Record(run.key, 0, 1000.0 + number, {}, Outcome("finished" if number else "failed", 0)))
    tracker.close()
    store = Store(project)
    # Deleted in MLflow's pages: one run; and a run of somebody else's.
    store.client.delete_run(store.runs()[0].identity)
    store.client.create_run(store.client.create_experiment("theirs"), run_name="not ours")
    read, of_one = store.runs(), store.runs(runs[1].key)
    monkeypatch.setattr(store, "database", None)
    assert read == store.runs()
    assert of_one == store.runs(runs[1].key)
    assert (len(read), len(of_one)) == (3, 1)


def test_other_schemas(project: Project):
    schema_revisions.cache_clear()
    for revision, words in (("ffffffffffff", ("newer MLflow", "mv ")), ("451aebb31d03", ("older", "db upgrade"))):
        with contextlib.closing(sqlite3.connect(project.database)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        before = project.database.read_bytes()
        refused(project, "mlflow.db", *words)
        assert project.database.read_bytes() == before


def test_a_file_in_place_of_mlruns(tmp_path: Path):
    (tmp_path / "mlruns").write_text("not a folder")
    refused(Project(tmp_path), str(tmp_path / "mlruns"), "RNNSTUDY_HOME")
    assert as_files(tmp_path) == {"mlruns": b"not a folder"}
    with pytest.raises(StoreError, match="cannot hold"):
        OfflineFolder(tmp_path / "mlruns")


def test_unwritable(project: Project, monkeypatch: pytest.MonkeyPatch):
    before = as_files(project.root)
    for forbidden in (project.mlruns, project.database):
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode, forbidden=forbidden: Path(path) != forbidden)
            refused(project, str(forbidden), "writ")
    assert as_files(project.root) == before


def test_stores_named_by_the_environment(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch):
    project, elsewhere = Project(tmp_path / "project"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(empty_database, elsewhere / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere / 'other.db'}")
    tracker = MlflowTracker(open_store(project), INFO)
    finish(tracker, a_run())
    assert tracker.store.artifact(tracker.store.finished()[a_run().key], READINGS).is_relative_to(
        elsewhere / "artifacts"
    )
    for uri in (f"file:{tmp_path}/runs", str(tmp_path / "runs")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        refused(project, "MLFLOW_TRACKING_URI", "plain folders", "sqlite:")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    refused(project, "names no file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://runs")
    refused(project, "gopher://runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    refused(project, uri, "cannot be reached", "start it")
    assert not project.root.exists()


def test_reading_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(Project(tmp_path))
    assert store.finished() == {}
    assert store.states(["a"]) == {"a": "absent"}
    assert store.mark_interrupted() == 0
    assert store.forget(["a"]) == 0
    assert not list(tmp_path.iterdir())


def test_trackers_write_and_indexes_know_what_is_complete():
    """Each class has every method of its contract, and those who write know nothing of what is complete."""
    writes = {name for name in vars(Tracker) if not name.startswith("_")}
    knows = {name for of in (RunIndex, *RunIndex.__mro__) for name in vars(of) if not name.startswith("_")}
    assert writes == {"begin", "write", "sampled", "interrupt", "drop", "close"}
    assert knows == {"runs", "runs_with", "finished", "failures", "damaged", "states", "forget", "mark_interrupted"}
    for tracker in (MlflowTracker, OfflineTracker):
        assert writes <= set(vars(tracker))
        assert not knows & set(vars(tracker))
    for index in (Store, OfflineFolder):
        assert knows <= set(dir(index))


def test_cells_differ_in_key():
    assert a_run().key != a_run(cell=LSTM(width=4)).key
