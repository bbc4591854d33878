"""Every report of the folder, executed at the smallest scale, from a store and from what was exported of it."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jupytext
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.report import notebook
from rnnstudy.report.build import build, export, header, known_reports
from rnnstudy.results.results import Results
from rnnstudy.run import names
from rnnstudy.search.queue import SearchQueue
from rnnstudy.search.studies import connect_storage
from rnnstudy.search.trials import search_trials
from rnnstudy.spec import SpecError
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.loop import train

PROJECT = Path(__file__).parents[1]

REPORTS = known_reports(Project(PROJECT))

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
    """The project's experiments and reports, without any result."""
    for folder in ("experiments", "reports"):
        (root / folder).mkdir()
        for path in (PROJECT / folder).iterdir():
            if path.suffix in (".py", ".md"):
                shutil.copy(path, root / folder / path.name)
    (root / "mlruns").mkdir()
    return Project(root)


def sweep_at_smoke_scale(home: Project, experiment: str) -> None:
    defined = load_experiment(home.root / "experiments" / f"{experiment}.py")
    tracker = MlflowTracker(open_store(home), SweepInfo(experiment, f"experiments/{experiment}.py", "rnnstudy sweep"))
    if defined.searches_here:
        search_at_smoke_scale(home, defined, tracker)
        return
    runs = defined.runs(Scale.SMOKE)
    named = names(runs)
    for run in runs:
        tracker.begin(run, named[run.key])
    # The compiled engine would spend longer compiling than these runs take.
    for record in train(runs, device="cpu", engine="reference"):
        tracker.write(record)
    tracker.close()


def search_at_smoke_scale(home: Project, experiment: Experiment, tracker: MlflowTracker) -> None:
    """What a launcher with one worker does, in this process."""
    storage = connect_storage(home, None)
    supply = SearchQueue(
        experiment.searches(Scale.SMOKE),
        storage,
        tracker.store,
        home,
        scale=Scale.SMOKE,
        path=experiment.path,
        workers=1,
    )
    while (task := supply.take()) is not None:
        for run in task.runs:
            tracker.begin(run, supply.name(run), supply.tags(run))
        for record in train(task.runs, device="cpu", engine="reference", prune=supply.checked):
            tracker.write(record)
            if record.outcome is not None:
                supply.ended(record.key, record.outcome)
    tracker.close()


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, empty_storage: Path) -> Project:
    """A project in which every experiment that a report needs was run, and every report was built and exported."""
    home = sources(tmp_path_factory.mktemp("study"))
    shutil.copy(empty_database, home.database)
    shutil.copy(empty_storage, home.mlruns / "optuna.db")
    needed = {experiment for name in REPORTS for experiment in header(name, home).experiments}
    for experiment in sorted(needed):
        sweep_at_smoke_scale(home, experiment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.delenv("RNNSTUDY_HOME", raising=False)
        export(REPORTS, home, home.reports / "data")
    return home


def tables(home: Project) -> dict[str, bytes]:
    """The numbers behind all figures."""
    return {str(path.relative_to(home.reports)): path.read_bytes() for path in home.reports.glob("figures/*/*.csv")}


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


def test_a_clone_redraws_every_number_from_the_exported_results(
    studied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    clone = sources(tmp_path)
    shutil.copytree(studied.reports / "data", clone.reports / "data")
    with pytest.raises(SpecError, match=r"rnnstudy sweep experiments/.*--from reports/data"):
        build(REPORTS, clone)
    build(REPORTS, clone, clone.reports / "data")
    assert not list(clone.mlruns.iterdir())
    assert tables(clone) == tables(studied)


def test_the_exported_results_say_what_they_are(studied: Project) -> None:
    manifest = json.loads((studied.reports / "data" / "manifest.json").read_text(encoding="utf-8"))
    for name, told in manifest["experiments"].items():
        defined = load_experiment(studied.root / "experiments" / f"{name}.py")
        if defined.searches_here:
            fresh = [seed for _, search, _ in defined.searches(Scale.SMOKE) for seed in search.fresh_seeds]
            there = search_trials(name, Scale.SMOKE, studied)
            assert len(there.fresh_keys) == len(fresh)
            assert told["keys"] == sorted(there.keys)
        else:
            assert told["keys"] == sorted(run.key for run in defined.runs(Scale.SMOKE))
        assert told["command"] == f"rnnstudy sweep experiments/{name}.py --scale smoke"


def test_the_index_page_shows_every_figure_that_has_a_story(studied: Project) -> None:
    page = (studied.reports / "index.html").read_text(encoding="utf-8")
    told = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in studied.reports.glob("figures/*/*.json")]
    stories = [(path, one) for path, one in told if "see" in one]
    assert stories
    for path, one in stories:
        assert f'src="figures/{path.parent.name}/{one["figure"]}.png"' in page
        assert len(one["see"]) > 100, path
    links = set(re.findall(r'(?:href|src)="([^"#]+)"', page))
    for link in links:
        assert (studied.reports / link).resolve().exists(), link
    places = [header(name, studied).order for name in re.findall(r'<section id="(\w+?)-', page)]
    assert places == sorted(places)


@pytest.mark.parametrize("part", LEFT_OUT)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_of_a_study_with_runs_missing_is_drawn_or_says_why(
    studied: Project, name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = notebook.load_study
    lacking = 0

    def partly(experiment: str, *_: object, **__: object) -> notebook.Study:
        nonlocal lacking
        found = whole(experiment, studied, studied.reports / "data")
        gone = LEFT_OUT[part](found.results.runs)
        kept = [source for source in found.results.sources if not gone[source.header["key"]]]
        lacking += int(gone.sum())
        return dataclasses.replace(found, results=Results(kept)) if kept else found

    def told(self: notebook.Notebook, picture: figures.Picture, name: str, *, title: str = "", see: str = "") -> None:
        assert picture.caption
        assert not re.search(r"\bnan\b|\binf\b", title + see), see

    monkeypatch.setattr(notebook, "load_study", partly)
    monkeypatch.setattr(notebook.Notebook, "show", told)
    script = jupytext.reads((studied.reports / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent")
    namespace: dict[str, object] = {}
    for cell in script.cells:
        if cell.cell_type != "code":
            continue
        try:
            exec(compile(cell.source, f"{name}.py", "exec"), namespace)
        except SpecError:
            # The report adds which runs are missing.
            assert lacking
            return


def test_a_report_that_stops_says_which_runs_are_missing(
    studied: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    home = sources(tmp_path)
    defined = load_experiment(home.root / "experiments" / "quickstart.py")
    planned = defined.runs(Scale.SMOKE)
    shutil.copytree(studied.reports / "data", home.reports / "data")
    table = pd.read_parquet(home.reports / "data" / "runs.parquet")
    manifest = json.loads((home.reports / "data" / "manifest.json").read_text(encoding="utf-8"))
    gone = [run.key for run in planned if type(run.cell).__name__ == "Elman"]
    manifest["experiments"]["quickstart"]["keys"] = sorted({run.key for run in planned} - set(gone))
    (home.reports / "data" / "manifest.json").write_text(json.dumps(manifest))
    table[~table["key"].isin(gone)].to_parquet(home.reports / "data" / "runs.parquet")
    (home.reports / "quickstart.py").write_text("# %%\n{}['Elman', 10]\n")
    with pytest.raises(SpecError, match="'quickstart' stopped in cell 1") as raised:
        build(["quickstart"], home, home.reports / "data")
    told = str(raised.value)
    assert f"{len(planned) - len(gone)} of the {len(planned)} runs of experiments/quickstart.py are there" in told
    assert re.search(r"without \d+ × Elman T = \d+", told)
    assert "`rnnstudy sweep experiments/quickstart.py --scale smoke` brings the rest" in told
