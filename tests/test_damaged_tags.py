"""Tags in the store that somebody or something has damaged: one line names the run, and the others are as they were."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnstudy import results
from rnnstudy.results.source import MissingRuns
from rnnstudy.results.trained import load_network
from rnnstudy.run import Run
from rnnstudy.search.studies import StudyStatus
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.tag_names import spellings
from rnnstudy.sweep import Resources, Scale, launch
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

SMALL = "experiments/small.py"
DEEP = '{"class": "a:B", "fields": {"x": ' + "[" * 100_000

DAMAGES: dict[str, tuple[str, Any]] = {
    "the specification is no JSON": ("spec", "{"),
    "the specification is a number": ("spec", "3"),
    "the specification has a NUL": ("spec", '{"class": "\0", "fields": {}}'),
    "the specification is gone": ("spec", None),
    "the specification nests deeply": ("spec", DEEP),
    "a part of the specification is none": ("spec", '{"class": "a:B", "fields": {"task": {"class": 3}}}'),
    "the specification is no text": ("spec", b"\xff\xfe"),
    "the probes are a number": ("probes", "7"),
    "the probes are a list of numbers": ("probes", "[7]"),
    "the probes are gone": ("probes", None),
    "the code is a list": ("code", "[]"),
    "the code is half": ("code", '{"a'),
    "an outcome that there is not": ("outcome", "\x1b[2Jdone"),
    "the outcome is empty": ("outcome", ""),
    "the outcome is gone": ("outcome", None),
    "attempts that are no number": ("attempts", "many"),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[Path, list[Run]]:
    """The `mlruns` of a project with the four runs of `small.py`."""
    from tests.conftest import EXPERIMENT

    project = Project(tmp_path_factory.mktemp("filled"))
    project.mlruns.mkdir()
    shutil.copy(empty_database, project.database)
    file = project.root / "small.py"
    file.write_text(EXPERIMENT)
    runs = load_experiment(file).runs(Scale.SMOKE)
    tracker = MlflowTracker(open_store(project), SweepInfo("small", SMALL, f"rnnstudy sweep {SMALL}"))
    for run in runs:
        tracker.begin(run, run.name)
        for record in train(Population((run,)), device="cpu", engine="reference"):
            tracker.write(record)
    tracker.close()
    return project.mlruns, runs


@pytest.fixture
def runs(project: Path, filled: tuple[Path, list[Run]]) -> list[Run]:
    """The runs in the store of `project`."""
    shutil.copytree(filled[0], project / "mlruns", dirs_exist_ok=True)
    return filled[1]


def damage(project: Path, run: Run, tag: str, value: object) -> None:
    """Give a run's tag another value; None removes it."""
    named, *_ = spellings(f"rnnstudy.{tag}")
    with contextlib.closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database, database:
        (identity,) = database.execute(
            "SELECT run_uuid FROM tags WHERE key = 'rnnstudy.key' AND value = ?", (run.key,)
        ).fetchone()
        database.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (identity, named))
        if value is not None:
            database.execute("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", (named, value, identity))


@pytest.mark.parametrize(("tag", "value"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_named_in_one_line_and_the_others_are_as_they_were(
    project: Path, runs: list[Run], rnnstudy: Callable[..., Any], tag: str, value: object
) -> None:
    poisoned, *others = runs
    damage(project, poisoned, tag, value)
    for command in (["list", SMALL, "--scale", "smoke"], ["sweep", SMALL, "--scale", "smoke", "--dry-run"]):
        answer = rnnstudy(*command)
        assert answer.returncode == 0
        [line] = answer.stderr.splitlines()
        assert poisoned.key in line
        assert f"its tag rnnstudy.{tag} is " in line
        assert line.isprintable()
        assert len(line) < 700
        assert "4 runs, 3 already in the store, 1 to train" in answer.stdout
    answer = rnnstudy("show", poisoned.key)
    assert (answer.returncode, answer.stdout) == (2, "")
    [line] = answer.stderr.splitlines()
    assert f"its tag rnnstudy.{tag} is " in line
    assert rnnstudy("show", others[0].key).returncode == 0
    with pytest.warns(UserWarning, match=f"left out: .*{poisoned.key}"):
        assert sorted(results.load(experiment="small").runs.index) == sorted(run.key for run in others)
    assert poisoned.key not in results.complete_keys()
    with pytest.raises(MissingRuns, match=rf"{poisoned.key} \(.*, damaged\)"):
        results.load([run.key for run in runs])
    with pytest.raises(RnnstudyError, match=poisoned.key):
        load_network(poisoned.key)


@pytest.mark.parametrize(("tag", "value"), [("key", "\0" * 3), ("key", None), ("key", "../../x")])
def test_a_run_without_its_key_is_left_out(
    project: Path, runs: list[Run], rnnstudy: Callable[..., Any], tag: str, value: object
) -> None:
    poisoned, *others = runs
    damage(project, poisoned, tag, value)
    answer = rnnstudy("list", SMALL, "--scale", "smoke")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "4 runs, 3 already in the store, 1 to train" in answer.stdout
    assert rnnstudy("show", others[0].key).returncode == 0
    assert sorted(results.complete_keys()) == sorted(run.key for run in others)


def test_a_sweep_trains_damaged_runs_again_in_their_place(project: Path, runs: list[Run]) -> None:
    for run, tag, value in zip(runs, ("probes", "outcome", "attempts", "spec"), ("7", "x", "many", None), strict=True):
        damage(project, run, tag, value)
    before = {run.key: run.identity for run in Store(Project(project)).runs()}
    summary = launch(SMALL, scale=Scale.SMOKE, resources=Resources(workers=1, engine="reference"))
    assert summary.ended.keys() == before.keys()
    store = Store(Project(project))
    assert {run.key: (run.identity, run.state) for run in store.runs()} == {
        key: (identity, "finished") for key, identity in before.items()
    }
    assert store.damaged() == {}


def test_searches_name_the_fresh_runs_that_are_damaged(
    project: Path, runs: list[Run], rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(project, runs[0], "probes", "7")
    keys = tuple(run.key for run in runs)
    status = StudyStatus("small/Elman", 1, 0, 0, 0, 1, None, keys)
    monkeypatch.setattr("rnnstudy.search.studies.study_statuses", lambda project, storage: [status])
    answer = rnnstudy("studies")
    assert answer.returncode == 0
    [line] = answer.stderr.splitlines()
    assert runs[0].key in line
    assert "of 3" in answer.stdout


def test_a_report_is_drawn_from_the_others(
    project: Path, runs: list[Run], rnnstudy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnstudy.report.study import load_study, open_source

    damage(project, runs[0], "spec", "{")
    home = Project(project)
    study = load_study("small", home, open_source(home, None))
    assert sorted(study.results.runs.index) == sorted(run.key for run in runs[1:])
    monkeypatch.setattr("rnnstudy.report.build.build_reports", lambda *_: [project / "page.html"])
    answer = rnnstudy("report", "small")
    assert answer.returncode == 0
    [line] = answer.stderr.splitlines()
    assert runs[0].key in line


def test_names_that_look_like_markup_are_shown_as_they_are(
    project: Path, runs: list[Run], rnnstudy: Callable[..., Any]
) -> None:
    """A run can be renamed in MLflow's pages."""
    with contextlib.closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET name = '[/b] mine [red]'")
    damage(project, runs[0], "command", "rnnstudy [/x]")
    answer = rnnstudy("show", runs[0].key)
    assert answer.returncode == 0, answer.stderr
    assert "[/b] mine [red]" in answer.stdout
    assert "rnnstudy [/x]" in answer.stdout
