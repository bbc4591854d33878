"""The tables hold what was recorded: every value, at its place, once."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnstudy import results
from rnnstudy.cells import LSTM, Elman
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.results import Results, artifact_file, find_key, from_records, load, runs_table, stored_run
from rnnstudy.results.source import MissingRuns
from rnnstudy.run import Run, Training, unique_names
from rnnstudy.spec import RequestError, flatten
from rnnstudy.store.arrays import READINGS, WEIGHTS, read_weights, write_readings
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.open_run import run_header
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo, describe
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series

LENGTHS = {"length": (20.0, 40.0, 80.0)}


def series_of(run: Run) -> dict[str, Series]:
    """Random readings, so that no two places hold the same value; the LSTM has one more."""
    generator = np.random.default_rng(run.seed)
    steps = np.arange(0, 101, 50)
    through = generator.normal(size=(3, 5, run.task.length)).astype(np.float32)
    through[1, :, 2] = np.nan
    series = {
        "learning/loss": Series(np.arange(101), generator.normal(size=101), (), "nats", 1),
        "through_time/h": Series(steps, through, ("quantile", "time"), "log10", 50),
        "profile/h_initial": Series(
            np.array([0]), generator.normal(size=(1, 5, run.task.length)), ("quantile", "lag"), "log10"
        ),
        "generalisation/error": Series(
            np.array([100]), generator.normal(size=(1, 3)), ("length",), "share", coordinates=LENGTHS
        ),
        "summary/rate_initial": Series(np.array([0]), np.array([-0.5]), (), "log10 per step"),
    }
    if run.cell.states == ("h",):
        return series
    return {**series, "through_time/c": series["through_time/h"]}


def outcome_of(run: Run) -> Outcome:
    if run.seed == 1:
        return Outcome("diverged", 70, reason="the loss is not finite", engine="reference", seconds=2.0)
    solved = run.seed == 0
    return Outcome("finished", 100, solved, 60 if solved else None, 3.5, "reference", summary={"error": run.seed / 8})


def sweep() -> list[Run]:
    return [
        Run(
            task=TemporalOrder(length=length),
            cell=cell,
            seed=seed,
            training=Training(steps=100, other_lengths=(40, 80)),
        )
        for length in (20, 30)
        for cell in (Elman(width=4), LSTM(width=4))
        for seed in range(3)
    ]


def record_of(run: Run) -> Record:
    weights = {"W_hh": np.full((4, 4), float(run.seed))}
    return Record(run.key, outcome_of(run).step, 1000.0 + run.seed, series_of(run), outcome_of(run), weights)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    tracker = MlflowTracker(open_store(project), SweepInfo("toy", "experiments/toy.py"))
    for run, name in zip(sweep(), unique_names(sweep()).values(), strict=True):
        tracker.begin(run, name)
        tracker.write(record_of(run))
    unfinished = sweep()[0].replace(seed=77)
    tracker.begin(unfinished, "under way")
    tracker.interrupt(unfinished.key)
    other = MlflowTracker(open_store(project), SweepInfo("other"))
    alone = sweep()[0].replace(seed=5)
    other.begin(alone, alone.name)
    other.write(record_of(alone))
    return project


@pytest.fixture(scope="module", params=["store", "records"])
def loaded(request: pytest.FixtureRequest, project: Project) -> Results:
    if request.param == "store":
        return load([run.key for run in sweep()], project=project)
    return from_records(map(record_of, sweep()), sweep())


def test_runs_table(loaded: Results):
    table = loaded.runs
    assert list(table.index) == [run.key for run in sweep()]
    assert table.index.name == "key"
    assert list(table.columns[:15]) == [
        "name", "experiment", "task", "cell", "length", "width", "layers", "seed", "learning_rate",
        "status", "solved", "step", "steps_to_solve", "seconds", "engine",
    ]  # fmt: skip
    assert str(table["solved"].dtype) == "boolean"
    assert str(table["steps_to_solve"].dtype) == "Int64"
    for run in sweep():
        row, outcome = table.loc[run.key], outcome_of(run)
        assert row["name"] == unique_names(sweep())[run.key]
        assert {name: row[name] for name in run.short_parameters} == run.short_parameters
        assert (row["status"], row["step"], row["seconds"], row["engine"]) == (
            outcome.status, outcome.step, outcome.seconds, "reference"
        )  # fmt: skip
        assert row["solved"] is pd.NA if outcome.solved is None else row["solved"] == outcome.solved
        assert row["steps_to_solve"] is pd.NA if outcome.steps_to_solve is None else row["steps_to_solve"] == 60
        assert row["rate_initial"] == -0.5
        assert row["error"] == run.seed / 8 if outcome.status == "finished" else np.isnan(row["error"])
        flat = flatten(run)
        for path in ("task.length", "training.learning_rate", "training.optimiser", "initialisation", "training.clip"):
            assert row[path] == flat[path]
        assert row["training.other_lengths"] == "40, 80"
    assert table.groupby(["cell", "length"]).size().tolist() == [3, 3, 3, 3]


def test_every_value_is_at_its_place(loaded: Results):
    assert loaded.names == [
        "generalisation/error", "learning/loss", "profile/h_initial", "summary/rate_initial", "through_time/c",
        "through_time/h",
    ]  # fmt: skip
    assert loaded.units["through_time/h"] == "log10"
    assert loaded.units["learning/loss"] == "nats"
    coordinates = {"quantile": QUANTILES, "time": range(1, 31), "lag": range(30), "length": LENGTHS["length"]}
    for name in loaded.names:
        frame = loaded.readings(name)
        expected = {}
        for run in sweep():
            if name in (series := series_of(run)):
                one = series[name]
                for index, value in np.ndenumerate(one.values.astype(np.float32)):
                    axes = tuple(coordinates[axis][at] for axis, at in zip(one.axes, index[1:], strict=True))
                    expected[(run.key, one.steps[index[0]], *axes)] = value
        axes = one.axes
        assert list(frame.columns) == ["key", "step", *axes, "value"]
        found = dict(zip(frame[["key", "step", *axes]].itertuples(index=False, name=None), frame["value"], strict=True))
        assert len(found) == len(frame)
        assert found.keys() == expected.keys()
        np.testing.assert_array_equal([found[row] for row in expected], list(expected.values()))


def test_one_quantile(loaded: Results):
    whole = loaded.readings("through_time/h")
    median = loaded.readings("through_time/h", quantile=0.5)
    expected = whole[whole["quantile"] == 0.5].drop(columns="quantile").reset_index(drop=True)
    pd.testing.assert_frame_equal(median, expected)
    pd.testing.assert_frame_equal(loaded.readings("learning/loss", quantile=0.5), loaded.readings("learning/loss"))
    with pytest.raises(RequestError, match=r"0\.3 was not stored; there are 0\.1, 0\.25"):
        loaded.readings("through_time/h", quantile=0.3)


def test_joining_runs(loaded: Results):
    frame = loaded.readings("learning/loss")
    frame = frame[frame["step"] % 7 == 3]
    joined = loaded.with_runs(frame, "cell", "task.length", "solved")
    pd.testing.assert_frame_equal(joined[frame.columns], frame)
    expected = frame.join(loaded.runs[["cell", "task.length", "solved"]], on="key")
    assert joined["cell"].tolist() == expected["cell"].tolist()
    assert joined["task.length"].tolist() == expected["task.length"].tolist()
    assert joined["solved"].dtype == "boolean"
    pd.testing.assert_series_equal(joined["solved"], expected["solved"])
    with pytest.raises(RequestError, match="no column 'cel'; did you mean 'cell'"):
        loaded.with_runs(frame, "cel")
    with pytest.raises(RequestError, match=r"join a dotted one such as task\.length"):
        loaded.with_runs(loaded.readings("generalisation/error"), "length")


def test_unknown_reading(loaded: Results):
    with pytest.raises(RequestError, match="no reading is called 'learning/los'; did you mean 'learning/loss'"):
        loaded.readings("learning/los")


def test_what_is_loaded(project: Project, monkeypatch: pytest.MonkeyPatch):
    toy = [run.key for run in sweep()]
    assert load(experiment="experiments/toy.py", project=project).runs.index.tolist() == toy
    assert len(load(project=project).runs) == len(toy) + 1
    chosen = [toy[4], toy[1], toy[4]]
    assert load(chosen, project=project).runs.index.tolist() == chosen[:2]
    monkeypatch.setenv("RNNSTUDY_HOME", str(project.root))
    assert len(load(experiment="other").runs) == 1


def test_what_is_missing_is_named(project: Project, tmp_path: Path):
    unfinished = sweep()[0].replace(seed=77).key
    with pytest.raises(MissingRuns) as caught:
        load([sweep()[0].key, unfinished, "0123456789ab"], project=project)
    message = str(caught.value)
    assert "2 of 3 runs" in message
    assert f"{unfinished} (under way, interrupted)" in message
    assert "0123456789ab" in message
    assert "rnnstudy sweep experiments/toy.py" in message
    assert "\n" not in message
    with pytest.raises(
        MissingRuns, match=r"no complete run of quick; run `rnnstudy sweep experiments/quick\.py` first"
    ):
        load(experiment="quick", project=project)
    with pytest.raises(MissingRuns, match="no complete run; run the sweep"):
        load(project=Project(tmp_path))
    assert not list(tmp_path.iterdir())


def test_damaged_and_lost_files_are_named(project: Project):
    key = sweep()[2].key
    path = artifact_file(key, READINGS, project=project)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-50])
        with pytest.raises(DamagedFile, match=r"readings\.npz is not an array file"):
            load([key], project=project)
        path.unlink()
        with pytest.raises(DamagedFile, match=f"is gone; `rnnstudy forget {key}`"):
            load([key], project=project)
    finally:
        path.write_bytes(whole)


def test_artifact_find_and_stored(project: Project):
    run = sweep()[1]
    weights = read_weights(artifact_file(run.key, WEIGHTS, project=project))
    np.testing.assert_array_equal(weights["W_hh"], np.full((4, 4), 1.0))
    with pytest.raises(MissingRuns, match="interrupted"):
        artifact_file(sweep()[0].replace(seed=77).key, WEIGHTS, project=project)
    assert find_key(run.key[:8], project=project) == run.key
    assert stored_run(run.key[:8], project=project).state == "diverged"
    with pytest.raises(RequestError, match="beginning of 14 keys"):
        find_key("", project=project)
    with pytest.raises(RequestError, match=f"did you mean '{run.key}'"):
        find_key(run.key[:-1] + "x", project=project)


def test_table_of_all_runs(project: Project):
    table = runs_table("toy", project=project)
    assert list(table.columns) == ["key", "name", "experiment", "state"]
    assert table["key"].tolist() == [run.key for run in sweep()] + [sweep()[0].replace(seed=77).key]
    assert table["state"].tolist() == [outcome_of(run).status for run in sweep()] + ["interrupted"]
    assert len(runs_table(project=project)) == 14


def test_unfinished_records_are_joined():
    run = sweep()[0]
    whole = series_of(run)["learning/loss"]
    pieces = [
        Record(run.key, last, 1.0, {"learning/loss": Series(whole.steps[part], whole.values[part], (), "nats", 1)})
        for last, part in ((40, slice(0, 41)), (100, slice(41, 101)))
    ]
    loaded = from_records(pieces, [run])
    assert loaded.runs.loc[run.key, ["status", "step"]].tolist() == ["running", 100]
    frame = loaded.readings("learning/loss")
    assert frame["step"].tolist() == whole.steps.tolist()
    np.testing.assert_array_equal(frame["value"], whole.values.astype(np.float32))
    with pytest.raises(RequestError, match=r"no record of Elman T=20 lr 0\.001 s1; "):
        from_records(pieces, sweep()[:2])


def test_many_runs_load_fast(tmp_path: Path):
    """40 runs with 1 MB of readings each, and every one of their 10 million values in a row of its own."""
    run = sweep()[0]
    values = np.random.default_rng(0).normal(size=(250, 5, 200)).astype(np.float32)
    series = {"through_time/h": Series(np.arange(250) * 10, values, ("quantile", "time"), "log10", 10)}
    paths = []
    for one in (run.replace(seed=seed) for seed in range(40)):
        paths.append(tmp_path / f"{one.key}.npz")
        record = Record(one.key, 100, 1.0, series, outcome_of(run))
        write_readings(paths[-1], run_header(describe(one, one.name, "toy", {}), record), series)
    began = time.perf_counter()
    loaded = results.from_files(paths)
    frame = loaded.readings("through_time/h")
    spent = time.perf_counter() - began
    assert len(frame) == 40 * values.size
    assert len(loaded.runs) == 40
    assert spent < 10
