"""A whole sweep, and a whole search, as one function."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rnnstudy import results
from rnnstudy.results.source import MissingRuns
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep import Resources, Scale, launch, load_experiment
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.summary import Silent
from rnnstudy.training.loop import train

ONE = Resources(workers=1, engine="reference")


class Told(Silent):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.planned_runs = -1

    def planned(self, assignments: Sequence[Assignment], most_runs: int | None = None) -> None:
        self.planned_runs = sum(len(assignment.runs) for assignment in assignments) if most_runs is None else most_runs

    def message(self, line: str) -> None:
        self.lines.append(line)


def test_launch_trains_what_the_store_lacks_and_returns_a_table(project_with_store: Path) -> None:
    told = Told()
    first = launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE, listener=told)
    assert (len(first.runs), len(first.ended), first.complete, first.interrupted) == (4, 4, set(), False)
    assert told.planned_runs == 4
    assert any(line.startswith("4 runs: 0 in the store, 4 to train") for line in told.lines)
    table = first.table
    assert list(table["cell"]) == ["Elman", "LSTM"]
    assert list(table["runs"]) == [2, 2]
    assert (table["solved"] + table["diverged"] <= table["runs"]).all()
    stored = Store(Project(project_with_store)).finished()
    assert {run.key for run in first.runs} == stored.keys()
    [tags] = {run.tags["rnnstudy.command"] for run in stored.values()}
    assert tags == "rnnstudy sweep experiments/small.py --scale smoke"

    again = launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE)
    assert (again.ended, len(again.complete)) == ({}, 4)
    assert again.table.equals(table)


def test_launch_takes_part_of_a_sweep_and_trains_again_on_request(project_with_store: Path) -> None:
    runs = launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE).runs
    key = runs[0].key
    one = launch("experiments/small.py", scale=Scale.SMOKE, only=[key[:8]], rerun=True, resources=ONE)
    assert list(one.ended) == [key]
    halves = [
        launch("experiments/small.py", scale=Scale.SMOKE, shard=f"{part}/2", resources=ONE).runs for part in (1, 2)
    ]
    assert {run.key for half in halves for run in half} == {run.key for run in runs}


def test_runs_that_another_experiment_has_trained_belong_to_both(project_with_store: Path) -> None:
    """`load` returned half of them without a word, and said to sweep first where the sweep had nothing to do."""
    file = project_with_store / "experiments" / "small.py"
    trained = load_experiment(file).runs(Scale.SMOKE)
    tracker = MlflowTracker(open_store(Project(project_with_store)), SweepInfo("small", str(file)))
    for run in trained:
        tracker.begin(run, run.name)
        for record in train(run, device="cpu", engine="reference"):
            tracker.write(record)
    more = file.with_name("more.py")
    more.write_text(file.read_text().replace("seeds=range(2)", "seeds=range(1)"))
    renamed = file.rename(file.with_name("renamed.py"))
    with pytest.raises(MissingRuns, match="no complete run of renamed"):
        results.load(experiment=str(renamed))
    for path, count in ((more, 2), (renamed, 4), (renamed, 4)):
        told = Told()
        summary = launch(path, scale=Scale.SMOKE, resources=ONE, listener=told)
        assert (summary.ended, len(summary.complete)) == ({}, count)
        loaded = results.load(experiment=str(path)).runs
        assert sorted(loaded.index) == sorted(run.key for run in summary.runs)
    assert not any("belong to both" in line for line in told.lines), "that is said once"
    assert len(results.load(experiment="small").runs) == len(trained) == 4


def test_launch_writes_to_files_instead_of_the_store(project_with_store: Path, tmp_path: Path) -> None:
    settings = ["training.steps=10"]
    summary = launch(
        "experiments/small.py", scale=Scale.SMOKE, settings=settings, offline=tmp_path / "files", resources=ONE
    )
    assert summary.offline == tmp_path / "files"
    assert len(list((tmp_path / "files").glob("*/ending.json"))) == 4
    assert not Store(Project(project_with_store)).finished()
    assert all(run.training.steps == 10 for run in summary.runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["zzz"]}, "no run of experiments/small.py at scale smoke has a key that begins with 'zzz'"),
        ({"shard": "3/2"}, "--shard is '3/2'"),
        ({"settings": ["training.stepz=3"]}, "did you mean 'steps'"),
    ],
)
def test_launch_refuses_before_anything_is_written(project: Path, arguments: dict, message: str) -> None:
    with pytest.raises(RnnstudyError, match=message):
        launch("experiments/small.py", scale=Scale.SMOKE, resources=ONE, **arguments)
    assert not (project / "mlruns" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "--workers is 0; it must be at least 1"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"engine": "graph", "device": "meta"}, "device 'meta'"),
        ({"gpus_per_worker": 0.5}, "--gpus-per-worker belongs to --ray"),
    ],
)
def test_resources_that_are_not_there_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Resources(**arguments)
