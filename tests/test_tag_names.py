"""Tags that only this package reads are hidden in MLflow's pages; stores with other names of them are read the same.

`store_before_the_wings.tar.xz` (see `test_older_versions`) is such a store.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from rnnstudy.report.mlflow_pages import server
from rnnstudy.results.trained import specification
from rnnstudy.spec import build
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.sync import sync
from rnnstudy.store.tag_names import HIDDEN_OWN, INTERNAL, spellings
from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

SMALL = "experiments/small.py"
INFO = SweepInfo("small", SMALL, f"rnnstudy sweep {SMALL}")


def stored(project: Path | Project, table: str = "tags") -> list[tuple[str, str]]:
    """The tags of all runs, or of all experiments, as they stand in the database."""
    path = Project(project).database if isinstance(project, Path) else project.database
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT key, value FROM {table}").fetchall()


def trained(project: Path, tracker: MlflowTracker | OfflineTracker) -> str:
    """The key of a run that `tracker` has written."""
    run, *_ = load_experiment(project / SMALL).runs(Scale.SMOKE)
    tracker.begin(run, "a run")
    for record in train(Population((run,)), device="cpu", engine="reference"):
        tracker.write(record)
    tracker.close()
    return run.key


def test_mlflow_hides_these_names() -> None:
    """What its pages hide is written nowhere: this is the test of it in their code."""
    pages = files("mlflow") / "server" / "js" / "build" / "static" / "js"
    texts = [page.read_text(encoding="utf-8") for page in pages.iterdir() if page.name.startswith("main.")]
    hides = re.compile(r'(\w)="mlflow\.",\w=(\w)=>!\2\.startsWith\(\1\)')
    assert any(hides.search(text) for text in texts)
    assert HIDDEN_OWN.startswith("mlflow.")


def test_a_person_sees_how_a_run_ended_and_none_of_the_internals(project_with_store: Path) -> None:
    trained(project_with_store, MlflowTracker(open_store(Project(project_with_store)), INFO))
    names = {name for name, _ in stored(project_with_store)}
    shown = {name for name in names if not name.startswith("mlflow.")}
    assert shown <= {f"rnnstudy.{name}" for name in ("key", "outcome", "solved", "engine", "sweep", "uncommitted")}
    assert {spellings(name)[0] for name in INTERNAL} - names <= {
        spellings(f"rnnstudy.{name}")[0] for name in ("experiment_file", "pictures", "source")
    }
    of_experiments = {name for name, _ in stored(project_with_store, "experiment_tags")}
    assert {name for name in of_experiments if not name.startswith("mlflow.")} == set()


def test_the_same_run_through_mlflow_and_through_files_has_the_same_tags(
    project_with_store: Path, tmp_path: Path
) -> None:
    project = Project(project_with_store)
    key = trained(project_with_store, MlflowTracker(open_store(project), INFO))
    [through_mlflow] = Store(project).runs(key)
    trained(project_with_store, OfflineTracker(OfflineFolder(tmp_path / "files"), INFO))
    [through_files] = OfflineFolder(tmp_path / "files").runs()
    assert through_mlflow.tags.keys() - through_files.tags.keys() <= {"mlflow.runName", "mlflow.note.content"}
    assert through_mlflow.tags["rnnstudy.spec"] == through_files.tags["rnnstudy.spec"]
    [in_pages] = Store(project).runs_of(*(one.experiment_id for one in Store(project).experiments()))
    assert in_pages.data.tags == dict(through_mlflow.tags)


def test_a_tag_of_another_that_is_named_like_ours_is_not_stored(project_with_store: Path, tmp_path: Path) -> None:
    key = trained(project_with_store, OfflineTracker(OfflineFolder(tmp_path / "files"), INFO))
    described = tmp_path / "files" / key / "run.json"
    content = json.loads(described.read_text())
    content["tags"] |= {"mlflow.rnnstudy.outcome": "failed", "mlflow.rnnstudy.spec": "{}"}
    described.write_text(json.dumps(content))
    store = open_store(Project(project_with_store))
    assert sync([tmp_path / "files"], store).added == (key,)
    [run] = store.runs()
    assert (run.state, json.loads(run.tags["rnnstudy.spec"])["class"]) == ("finished", "rnnstudy.run:Run")


def test_the_pages_and_commands_know_an_older_store(older: Project, rnnstudy: Callable[..., Any]) -> None:
    names = {name for name, _ in stored(older)}
    assert {"rnnstudy.spec", "rnnstudy.host"} <= names, "a store in which all tags have their own names"
    [link, *_] = server.experiment_links(Store(older), "http://x", "3.17.0")
    assert link.experiment == "small"
    key = Store(older).runs()[0].key
    answer = rnnstudy("show", key)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert key in answer.stdout


def test_a_run_that_an_older_version_left_is_resumed_under_the_hidden_names(older: Project) -> None:
    store = Store(older)
    before = {run.identity: run for run in store.runs() if run.state == "interrupted"}
    assert before
    run = next(iter(before.values()))
    probes = build(json.loads(run.tags["rnnstudy.probes"]))
    tracker = MlflowTracker(store, SweepInfo(run.experiment, SMALL, "rnnstudy sweep small.py"))
    tracker.begin(specification(run, older).replace(probes=probes), run.name)
    with contextlib.closing(sqlite3.connect(older.database)) as database:
        names = {name for (name,) in database.execute("SELECT key FROM tags WHERE run_uuid = ?", (run.identity,))}
    assert {"mlflow.rnnstudy.spec", "mlflow.rnnstudy.pid"} <= names
    assert names & INTERNAL <= {"rnnstudy.source"}
    [resumed] = store.runs(run.key)
    assert (resumed.identity, resumed.state) == (run.identity, "running")
