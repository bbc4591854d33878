"""Every report of the folder, executed at the smallest scale, from a store and from what was exported of it."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jupytext
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from rnnstudy import figures
from rnnstudy.report import ReportError, notebook
from rnnstudy.report.build import build_reports, export
from rnnstudy.report.outline import header, known_reports
from rnnstudy.report.study import Study, load_study, open_source
from rnnstudy.results.results import Results
from rnnstudy.results.source import MissingRuns
from rnnstudy.run import unique_names
from rnnstudy.search.definition import searches_of
from rnnstudy.search.queue import SearchQueue
from rnnstudy.search.studies import connect_storage
from rnnstudy.search.trials import search_trials
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.loop import train

PROJECT = Path(__file__).parents[1]

OF_NO_STUDY = "watch_your_own_model"
"""A report that trains models of its own, for a minute: see `test_watch_report.py`."""

REPORTS = [name for name in known_reports(Project(PROJECT)) if name != OF_NO_STUDY]

LEFT_OUT: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "RNNs": lambda runs: runs["cell"] == "Elman",
    "LSTMs": lambda runs: runs["cell"] == "LSTM",
    "all but RNNs": lambda runs: runs["cell"] != "Elman",
    "the longest": lambda runs: runs["length"] == runs["length"].max(),
    "one layer": lambda runs: runs["layers"] == 1,
    "one setting": lambda runs: runs[_first_setting(runs)] == runs[_first_setting(runs)].max(),
    "all seeds but one": lambda runs: runs["seed"] != runs["seed"].min(),
}
"""Parts of a study that was interrupted."""


def _first_setting(runs: pd.DataFrame) -> str:
    """A numeric column of the specification in which the runs differ."""
    settings = ("initialisation.gain", "initialisation.gate_bias.value", "training.truncation.window", "layers")
    return next((name for name in settings if name in runs and runs[name].nunique() > 1), "seed")


def sources(root: Path) -> Project:
    """The project's experiments and reports, and the texts that they read, without any result."""
    for folder in ("experiments", "reports"):
        (root / folder).mkdir()
        for path in (PROJECT / folder).iterdir():
            if path.suffix in (".py", ".md") and path.stem != OF_NO_STUDY:
                shutil.copy(path, root / folder / path.name)
    shutil.copytree(PROJECT / "reports" / "ledger", root / "reports" / "ledger")
    shutil.copytree(PROJECT / "data", root / "data")
    (root / "mlruns").mkdir()
    return Project(root)


def sweep_at_smoke_scale(project: Project, experiment: str) -> None:
    defined = load_experiment(project.root / "experiments" / f"{experiment}.py")
    tracker = MlflowTracker(
        open_store(project), SweepInfo(experiment, f"experiments/{experiment}.py", "rnnstudy sweep")
    )
    if defined.searches_here:
        search_at_smoke_scale(project, defined, tracker)
        return
    runs = defined.runs(Scale.SMOKE)
    named = unique_names(runs)
    for run in runs:
        tracker.begin(run, named[run.key])
    # The compiled engine would spend longer compiling than these runs take.
    for record in train(runs, device="cpu", engine="reference"):
        tracker.write(record)
    tracker.close()


def search_at_smoke_scale(project: Project, experiment: Experiment, tracker: MlflowTracker) -> None:
    """What a launcher with one worker does, in this process."""
    storage = connect_storage(project, None)
    queue = SearchQueue(searches_of(experiment, Scale.SMOKE), storage, tracker.store, project, workers=1)
    while (assignment := queue.next()) is not None:
        for run in assignment.runs:
            tracker.begin(run, queue.run_name(run), queue.run_tags(run))
        for record in train(assignment.runs, device="cpu", engine="reference", prune=queue.on_validation):
            tracker.write(record)
            if record.outcome is not None:
                queue.on_ended(record.key, record.outcome)
    tracker.close()


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, empty_storage: Path) -> Project:
    """A project in which every experiment that a report needs was run, and every report was built and exported.

    Making it takes minutes: the first process of a session makes it, the others wait for it, and none changes it.
    """
    of_process = tmp_path_factory.getbasetemp()
    shared = of_process.parent if "PYTEST_XDIST_WORKER" in os.environ else of_process
    root, made = shared / "study", shared / "study-is-made"
    with FileLock(shared / "study.lock"):
        if not made.exists():
            shutil.rmtree(root, ignore_errors=True)
            make_study(root, empty_database, empty_storage)
            made.touch()
    return Project(root)


def make_study(root: Path, empty_database: Path, empty_storage: Path) -> None:
    root.mkdir()
    project = sources(root)
    shutil.copy(empty_database, project.database)
    shutil.copy(empty_storage, project.mlruns / "optuna.db")
    needed = {experiment for name in REPORTS for experiment in header(name, project).experiments}
    for experiment in sorted(needed):
        sweep_at_smoke_scale(project, experiment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.delenv("RNNSTUDY_HOME", raising=False)
        export(REPORTS, project, project.reports / "data")


def tables(folder: Path) -> dict[str, bytes]:
    """The numbers behind all figures of the reports in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("figures/*/*.csv")}


def test_every_report_is_built_and_every_figure_has_its_four_files(studied: Project) -> None:
    for name in REPORTS:
        assert (studied.reports / f"{name}.ipynb").stat().st_size > 1000
        assert (studied.reports / f"{name}.html").stat().st_size > 1000
        cells = json.loads((studied.reports / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [output for output in outputs if output.get("name") == "stderr"], "no warning stands in a report"
        figures = {path.stem for path in (studied.reports / "figures" / name).iterdir()}
        for figure in figures:
            for ending in ("png", "svg", "csv", "json"):
                assert (studied.reports / "figures" / name / f"{figure}.{ending}").stat().st_size > 50


@pytest.mark.parametrize(
    "names",
    # Each page is a notebook that runs anew: all of them took a fifth of the time of all tests together.
    [pytest.param(REPORTS[::3], id="every third"), pytest.param(REPORTS, id="all", marks=pytest.mark.slow)],
)
def test_a_clone_redraws_every_number_from_the_exported_results(
    names: list[str], studied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    clone = sources(tmp_path)
    shutil.copytree(studied.reports / "data", clone.reports / "data")
    with pytest.raises(MissingRuns, match=r"rnnstudy sweep experiments/.*--from reports/data"):
        build_reports(names, clone)
    build_reports(names, clone, clone.reports / "data")
    assert not list(clone.mlruns.iterdir())
    redrawn, drawn = tables(clone.built_reports), tables(studied.reports)
    assert redrawn == {path: numbers for path, numbers in drawn.items() if Path(path).parts[1] in names}
    assert redrawn
    assert not list(clone.reports.glob("*.html")), "the committed reports are not touched"


def test_the_exported_results_say_what_they_are(studied: Project) -> None:
    manifest = json.loads((studied.reports / "data" / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["experiments"].items():
        defined = load_experiment(studied.root / "experiments" / f"{name}.py")
        if defined.searches_here:
            fresh = [seed for study in searches_of(defined, Scale.SMOKE) for seed in study.search.fresh_seeds]
            trials = search_trials(studied, name, Scale.SMOKE.value)
            assert len(trials.fresh_keys) == len(fresh)
            assert entry["keys"] == sorted(trials.keys)
        else:
            assert entry["keys"] == sorted(run.key for run in defined.runs(Scale.SMOKE))
        assert entry["command"] == f"rnnstudy sweep experiments/{name}.py --scale smoke"


def test_the_index_page_shows_every_figure_that_has_a_story(studied: Project) -> None:
    page = (studied.reports / "index.html").read_text(encoding="utf-8")
    files = studied.reports.glob("figures/*/*.json")
    described = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in files]
    stories = [(path, story) for path, story in described if "takeaway" in story]
    assert stories
    for path, story in stories:
        assert f'src="figures/{path.parent.name}/{story["figure"]}.png"' in page
        assert len(story["takeaway"]) > 100, path
    links = set(re.findall(r'(?:href|src)="([^"#]+)"', page))
    for link in links:
        assert (studied.reports / link).resolve().exists(), link
    orders = [header(name, studied).order for name in re.findall(r'<section class="figure" id="(\w+?)-', page)]
    assert orders == sorted(orders)


@pytest.mark.parametrize("part", LEFT_OUT)
@pytest.mark.parametrize("name", [name for name in REPORTS if header(name, Project(PROJECT)).experiments])
def test_a_report_of_a_study_with_runs_missing_is_drawn_or_says_why(
    studied: Project, name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = 0

    def load_part(experiment: str, *_: object, **__: object) -> Study:
        nonlocal missing
        study = load_study(experiment, studied, open_source(studied, studied.reports / "data"))
        gone = LEFT_OUT[part](study.results.runs)
        kept = [run for run in study.results.per_run if not gone[run.header["key"]]]
        missing += int(gone.sum())
        return dataclasses.replace(study, results=Results(kept)) if kept else study

    def show(_: object, picture: figures.Picture, name: str, *, title: str = "", takeaway: str = "") -> None:
        assert picture.caption
        assert not re.search(r"\bnan\b|\binf\b", title + takeaway), takeaway

    monkeypatch.setattr(notebook, "load_study", load_part)
    monkeypatch.setattr(notebook.Notebook, "show", show)
    script = jupytext.reads((studied.reports / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent")
    namespace: dict[str, object] = {}
    for cell in script.cells:
        if cell.cell_type != "code":
            continue
        try:
            exec(compile(cell.source, f"{name}.py", "exec"), namespace)
        except RnnstudyError:
            # The builder adds to the message which runs are missing.
            assert missing
            return


def test_a_report_that_stops_says_which_runs_are_missing(
    studied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    project = sources(tmp_path)
    defined = load_experiment(project.root / "experiments" / "quickstart.py")
    planned = defined.runs(Scale.SMOKE)
    shutil.copytree(studied.reports / "data", project.reports / "data")
    table = pq.read_table(project.reports / "data" / "runs.parquet")
    manifest = json.loads((project.reports / "data" / "manifest.json").read_text(encoding="utf-8"))
    gone = [run.key for run in planned if type(run.cell).__name__ == "Elman"]
    # Smaller experiments have runs in common with it.
    for experiment in manifest["experiments"].values():
        experiment["keys"] = sorted(set(experiment["keys"]) - set(gone))
    (project.reports / "data" / "manifest.json").write_text(json.dumps(manifest))
    left = [key not in gone for key in table["key"].to_pylist()]
    pq.write_table(table.filter(left), project.reports / "data" / "runs.parquet")
    (project.reports / "quickstart.py").write_text("# %%\n{}['Elman', 10]\n")
    with pytest.raises(ReportError, match="'quickstart' stopped in cell 1") as raised:
        build_reports(["quickstart"], project, project.reports / "data")
    message = str(raised.value)
    complete = f"{len(planned) - len(gone)} of the {len(planned)} runs of experiments/quickstart.py are complete"
    assert complete in message
    assert re.search(r"without \d+ × Elman T = \d+", message)
    assert "`rnnstudy sweep experiments/quickstart.py --scale smoke` trains the rest" in message
