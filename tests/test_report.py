"""Reports run by this Python, written whole or not at all, the same bytes every time."""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rnnstudy.engines.compiled import COMPILING
from rnnstudy.figures.picture import Picture, rendered
from rnnstudy.report import Notebook, ReportError, build
from rnnstudy.report.build import build_reports, export
from rnnstudy.report.outline import read_outline
from rnnstudy.report.pages import index_page, notebook_page
from rnnstudy.report.study import Study, load_study, open_source
from rnnstudy.results.results import Results
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.run import Run, unique_names
from rnnstudy.spec import RequestError
from rnnstudy.store.git import checked_out_commit
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import Experiment, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.training.loop import train

PROJECT = Path(__file__).parents[1]

EXPERIMENT = """
from rnnstudy.cells import LSTM
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


def runs(scale):
    training = Training(steps=scale.pick(smoke=1, desk=2, paper=3))
    return grid(Run(task=TemporalOrder(length=10), cell=LSTM(), training=training), {}, seeds=range(4))
"""

PLAIN = """# %% [markdown]
# # A plain report

# %%
import os
import sys
from pathlib import Path

print("in", Path.cwd().name, "of", os.environ["RNNSTUDY_HOME"])
(Path(os.environ["RNNSTUDY_FIGURES"]) / "curve.csv").write_text("a,b\\n1,2\\n")

# %%
assert sys.executable == {python!r}, sys.executable
6 * 7
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one report that needs no runs."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    (tmp_path / "reports").mkdir()
    (tmp_path / "mlruns").mkdir()
    write(tmp_path / "reports" / "plain.py", PLAIN.format(python=sys.executable))
    return Project(tmp_path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the quickstart's experiment, run at the smallest scale, and its report."""
    project = Project(tmp_path_factory.mktemp("project"))
    for name in ("experiments/quickstart.py", "reports/quickstart.py"):
        write(project.root / name, (PROJECT / name).read_text(encoding="utf-8"))
    project.mlruns.mkdir()
    runs = smoke_runs(project)
    tracker = MlflowTracker(open_store(project), SweepInfo("quickstart", "experiments/quickstart.py", "rnnstudy sweep"))
    named = unique_names(runs)
    for run in runs:
        tracker.begin(run, named[run.key])
    for record in train(runs, device="cpu"):
        tracker.write(record)
    tracker.close()
    return project


def smoke_runs(project: Project) -> list[Run]:
    return load_experiment(project.root / "experiments" / "quickstart.py").runs(Scale.SMOKE)


def test_quickstart_is_built_from_a_store(quickstart: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    written = build_reports(["quickstart"], quickstart)
    pages = quickstart.built_reports
    figures = pages / "figures" / "quickstart"
    pictures = [
        "gradient_by_lag_initial", "gradient_by_lag_final_normalised", "gradient_heat_map", "learning_curves",
        "success_by_length",
    ]  # fmt: skip
    expected = {figures / f"{name}.{ending}" for name in pictures for ending in ("png", "svg", "csv", "json")}
    expected |= {pages / name for name in ("quickstart.ipynb", "quickstart.html", "index.html")}
    assert set(written) == expected
    assert all(path.stat().st_size > 100 for path in written)
    page = (pages / "quickstart.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(pictures)
    assert not re.search(r'src="(?!data:)', page)
    assert set(re.findall(r'href="([^"#]+)', page)) == {"index.html", "quickstart.ipynb"}
    runs = smoke_runs(quickstart)
    assert f"{len(runs)} of the {len(runs)} runs of scale <code>smoke</code>: {len(runs)} finished" in page
    described = json.loads((figures / "success_by_length.json").read_text(encoding="utf-8"))
    assert set(described["runs"]) < {run.key for run in runs}
    assert described["experiments"] == ["experiments/quickstart.py"]
    sweep = "rnnstudy sweep experiments/quickstart.py --scale smoke"
    assert described["command"] == f"{sweep} && rnnstudy report quickstart"
    training = runs[0].training
    assert described["caption"].endswith(
        f"Width {runs[0].cell.width}, at most {training.steps} updates of {training.batch} sequences, "
        f"{len({run.seed for run in runs})} seeds, scale smoke."
    )
    notebook = json.loads((pages / "quickstart.ipynb").read_text(encoding="utf-8"))
    streams = [output for cell in notebook["cells"] for output in cell.get("outputs", ()) if "name" in output]
    assert streams == []


def test_the_notice_that_kernels_are_compiled_is_left_out_and_what_a_notebook_prints_stays(tmp_path: Path) -> None:
    """Only the first notebook on a machine has it: two committed ones did."""
    cell = nbformat.v4.new_code_cell("train()")
    texts = {"stderr": f"{COMPILING}GRU, once\n{COMPILING}LSTM, once\n", "stdout": f"{COMPILING}GRU, once\nsolved\n"}
    cell.outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in texts.items()]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Text"), cell])
    build._tidy(notebook, Project(tmp_path))
    assert [output.text for output in cell.outputs] == [texts["stdout"]]


def test_a_study_knows_the_runs_of_its_scale(quickstart: Project) -> None:
    study = load_study("quickstart", quickstart, open_source(quickstart, None))
    assert study.scale is Scale.SMOKE
    assert sorted(study.results.runs.index) == sorted(run.key for run in smoke_runs(quickstart))
    assert study.command == "rnnstudy sweep experiments/quickstart.py --scale smoke"


class PlannedSource(ResultsSource):
    """A source with the runs `keys`, without readings."""

    def __init__(self, experiment: str = "quickstart") -> None:
        self.keys: list[str] = []
        self.experiment = experiment

    def complete_keys(self) -> dict[str, str]:
        return dict.fromkeys(self.keys, self.experiment)

    def load(self, keys: Iterable[str] | None = None, **_: object) -> Results:
        return cast(Results, SimpleNamespace(runs=pd.DataFrame(index=self.keys if keys is None else list(keys))))

    def search_trials(self, experiment: str, scale: str) -> SearchTrials:
        raise AssertionError("the quickstart searches nothing")


def test_a_study_prefers_the_largest_complete_scale(project: Project) -> None:
    path = project.root / "experiments" / "quickstart.py"
    write(path, (PROJECT / "experiments" / "quickstart.py").read_text(encoding="utf-8"))
    experiment = load_experiment(path)
    keys = {scale: [run.key for run in experiment.runs(scale)] for scale in Scale}
    source = PlannedSource()
    for present, scale, count in (
        ([*keys[Scale.SMOKE], *keys[Scale.DESK]], Scale.DESK, len(keys[Scale.DESK])),
        ([*keys[Scale.SMOKE], *keys[Scale.DESK][1:]], Scale.SMOKE, len(keys[Scale.SMOKE])),
        ([*keys[Scale.SMOKE][3:], *keys[Scale.DESK][1:]], Scale.DESK, len(keys[Scale.DESK]) - 1),
        (["set by hand"], None, 1),
    ):
        source.keys = present
        study = load_study("quickstart", project, source)
        assert (study.scale, len(study.results.runs)) == (scale, count)


def test_a_report_has_the_same_bytes_each_time_and_drops_stale_figures(project: Project) -> None:
    stale = project.built_reports / "figures" / "plain" / "stale.csv"
    write(stale, "old")
    written = build_reports(["plain"], project)
    assert [str(path.relative_to(project.built_reports)) for path in written] == [
        "plain.ipynb", "plain.html", "figures/plain/curve.csv", "index.html",
    ]  # fmt: skip
    assert not stale.exists()
    first = contents(project.built_reports)
    notebook = json.loads(first["plain.ipynb"])
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert outputs[0]["text"] == ["in reports of .\n"]
    assert outputs[-1]["data"]["text/plain"] == ["42"]
    assert "A plain report</h1>" in first["plain.html"].decode()
    build_reports(["plain"], project)
    assert contents(project.built_reports) == first


def test_only_an_export_changes_the_committed_reports(project: Project) -> None:
    write(project.reports / "plain.html", "committed")
    before = contents(project.reports)
    build_reports(["plain"], project)
    assert contents(project.reports) == before
    export(["plain"], project, project.reports / "data")
    assert contents(project.built_reports).items() <= contents(project.reports).items()
    # Redrawn from the committed results, the reports are the same, and the results are not touched.
    before = contents(project.reports)
    (project.reports / "plain.html").unlink()
    written = export(["plain"], project, project.reports / "data", archive=project.reports / "data")
    assert project.reports / "plain.html" in written
    assert contents(project.reports) == before
    # Committed results can be exported to another folder, too.
    export(["plain"], project, project.root / "copy", archive=project.reports / "data")
    assert contents(project.root / "copy") == contents(project.reports / "data")


def test_a_notebook_runs_in_this_python_whatever_kernel_is_installed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = {"argv": ["/bin/false", "{connection_file}"], "display_name": "decoy", "language": "python"}
    write(tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(decoy))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert len(build_reports(["plain"], project)) == 4


def test_an_error_names_the_cell_and_leaves_what_was_built(project: Project) -> None:
    write(project.built_reports / "plain.ipynb", "built before")
    write(project.built_reports / "figures" / "plain" / "curve.csv", "drawn before")
    broken = PLAIN.format(python=sys.executable) + "\n# %%\nvalue = 0\n1 / value\n"
    write(project.reports / "plain.py", broken)
    before = contents(project.root)
    with pytest.raises(ReportError) as raised:
        build_reports(["plain"], project)
    assert str(raised.value) == (
        "report 'plain' stopped in cell 4 (value = 0): ZeroDivisionError: division by zero; "
        "the files built before are unchanged"
    )
    assert contents(project.root) == before


def test_a_dead_kernel_is_reported_in_one_line(project: Project) -> None:
    write(project.reports / "plain.py", "# %%\nimport os\nos._exit(3)\n")
    with pytest.raises(ReportError, match=r"^the Python process that ran report 'plain' died.*unchanged$"):
        build_reports(["plain"], project)


def test_an_unknown_report_gets_the_nearest_name(project: Project) -> None:
    with pytest.raises(RequestError, match=r"^there is no report 'plian'; did you mean 'plain'\? Reports here: plain;"):
        build_reports(["plian"], project)
    for typed, meant in (("expl", "explore"), ("cours", "course")):
        write(project.reports / "course" / "1_sequences.py", "# %%\n")
        with pytest.raises(RequestError, match=rf"'{typed}'; did you mean '{meant}'\?.* explore and course$"):
            build_reports([typed], project)
    shutil.rmtree(project.reports)
    with pytest.raises(RequestError, match=r"^there is no report 'plain'\. There are no reports in"):
        build_reports(["plain"], project)


def test_without_runs_the_sweep_to_launch_is_named(project: Project) -> None:
    for name in ("experiments/quickstart.py", "reports/quickstart.py"):
        write(project.root / name, (PROJECT / name).read_text(encoding="utf-8"))
    before = contents(project.root)
    with pytest.raises(MissingRuns, match=re.escape("`rnnstudy sweep experiments/quickstart.py`")):
        build_reports(["plain", "quickstart"], project)
    assert contents(project.root) == before


def test_a_folder_of_results_that_is_not_there_is_reported_in_one_line(project: Project) -> None:
    for name in ("experiments/quickstart.py", "reports/quickstart.py"):
        write(project.root / name, (PROJECT / name).read_text(encoding="utf-8"))
    before = contents(project.root)
    for reports in (["plain"], ["plain", "quickstart"]):
        with pytest.raises(
            RequestError, match=r"^--from: .*nowhere is no folder; `rnnstudy report --export DIR` writes one$"
        ):
            build_reports(reports, project, project.root / "nowhere")
        with pytest.raises(RequestError, match=r"mlruns holds no results of a study \(manifest.json is not there\)"):
            build_reports(reports, project, project.mlruns)
    assert contents(project.root) == before


def test_the_commit_is_absent_outside_a_repository(tmp_path: Path) -> None:
    assert checked_out_commit(tmp_path) is None


def test_the_commit_says_when_the_source_differs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "someone")
        monkeypatch.setenv(f"{name}_EMAIL", "someone@example.org")

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(tmp_path), *command], capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    for name in ("experiments/one.py", "reports/one.html", "reports/figures/one/a.csv", "reports/course/1_one.ipynb"):
        write(tmp_path / name, "as committed")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD").strip()
    assert checked_out_commit(tmp_path) == head
    # What a report writes is not what it was drawn with.
    course = ("reports/course/1_one.ipynb", "reports/course/figures/1_one/a.svg")
    for name in (
        *("reports/one.html", "reports/figures/one/a.csv", "reports/figures/one/new.csv", "mlruns/mlflow.db"),
        *course,
    ):
        write(tmp_path / name, "drawn anew")
    write(tmp_path / "notes.txt", "lies about")
    assert checked_out_commit(tmp_path) == head
    write(tmp_path / "experiments" / "two.py", "not committed")
    assert checked_out_commit(tmp_path) == head + "+changes"
    (tmp_path / "experiments" / "two.py").unlink()
    assert checked_out_commit(tmp_path) == head
    write(tmp_path / "experiments" / "one.py", "changed")
    assert checked_out_commit(tmp_path) == head + "+changes"


@pytest.mark.parametrize("takeaway", ["takeaway", "see"])
def test_the_index_page_links_what_is_there_and_says_how_to_see_runs(project: Project, takeaway: str) -> None:
    """Figure files that were written earlier have `see` in place of `takeaway`."""
    write(project.reports / "other.py", "# %%\n")
    story = {
        "figure": "curve", "title": "A curve", takeaway: "Look.", "place": 1, "caption": "Of runs.",
        "experiments": ["experiments/one.py"], "runs": ["3f2a", "9b1c"],
        "command": "rnnstudy sweep experiments/one.py --scale desk && rnnstudy report other",
    }  # fmt: skip
    for ending in ("png", "svg", "csv"):
        write(project.built_reports / "figures" / "other" / f"curve.{ending}", "drawn")
    write(project.built_reports / "figures" / "other" / "curve.json", json.dumps(story))
    write(project.root / "experiments" / "one.py", "")
    build_reports(["plain"], project)
    page = (project.built_reports / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'(?:href|src)="([^"#]+)"', page))
    assert "plain.html" in links
    assert "figures/other/curve.csv" in links
    assert "../../experiments/one.py" in links
    assert all((project.built_reports / link).resolve().exists() for link in links)
    assert "Look." in page
    assert "other: not built yet" in page
    assert "<title>Reports</title>" in page
    assert "<code>rnnstudy sweep experiments/one.py --scale desk</code>" in page
    assert "<code>rnnstudy show 3f2a</code>" in page


def words(text: str) -> list[str]:
    """What a person reads of Markdown or HTML: words and numbers, exponents marked, without the targets of links."""
    text = re.sub(r"(\[[^\]]+\])\([^()\s]+\)", r"\1", text)
    text = re.sub(r"<(style|summary|nav)\b.*?</\1>|<[^<>]*\bclass=\"highlight\".*?</pre>", " ", text, flags=re.DOTALL)
    text = re.sub(r"<sup>(.*?)</sup>", r"^(\1)", text)
    text = html.unescape(re.sub(r"</?[a-zA-Z!][^<>]*>", " ", text))
    return re.findall(r"\^\([^)]*\)|[−-]?\d+(?:\.\d+)?|\w+", re.sub(r"[*`_]", "", text))


@pytest.mark.parametrize("name", ["spectra", "gate_bias", "forgetting", "cliff"])
def test_a_page_says_what_its_notebook_says_exponents_too(name: str) -> None:
    notebook = nbformat.read(PROJECT / "reports" / f"{name}.ipynb", 4)
    page = words(notebook_page(notebook, name, read_outline(Project(PROJECT)), {name}).decode())
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    texts += [data["text/markdown"] for data in outputs if "text/markdown" in data]
    said = words("\n".join(texts))
    uses_exponents = any("power_of_ten(" in cell.source for cell in notebook.cells)
    assert any(word.startswith("^(") for word in said) == uses_exponents
    # The page has the text of tables and codes besides.
    missing = Counter(said) - Counter(page)
    assert not missing


@pytest.mark.parametrize("page", sorted((PROJECT / "reports").glob("*.html")), ids=lambda page: page.stem)
def test_the_committed_pages_have_their_exponents_and_a_way_back(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<sup></sup>" not in text
    links = set(re.findall(r'href="([^"#:]+)', text))
    assert page.stem == "index" or "index.html" in links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_page_links_the_index_and_its_neighbours_and_gives_its_pictures_their_size(project: Project) -> None:
    for name, order in (("first", 10), ("second", 20), ("third", 30), ("unbuilt", 25)):
        source = (
            f"# ---\n# jupyter:\n#   rnnstudy:\n#     order: {order}\n# ---\n\n# %% [markdown]\n# # The {name} one\n"
        )
        write(project.reports / f"{name}.py", source)
    chapters = '[[chapter]]\nfrom = 15\ntitle = "Later"\nquestion = "Why?"\n'
    write(project.reports / "chapters.toml", f'whole = "The course"\npart = "Notebook"\n{chapters}')
    outline = read_outline(project)
    chapters = [(chapter.title, chapter.question, chapter.reports) for chapter in outline.chapters]
    assert chapters == [("Later", "Why?", ("second", "unbuilt", "third")), ("More reports", "", ("first", "plain"))]
    picture = base64.b64encode(rendered(Figure((2, 1)), "png")).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": picture}, metadata={"image/png": {"alt": "drawn"}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    before = nbformat.writes(notebook)
    page = notebook_page(notebook, "third", outline, {"second", "third", "first"}).decode()
    assert nbformat.writes(notebook) == before
    links = dict(re.findall(r'rel="(prev|next)" href="([^"]+)"', page))
    assert links == {"prev": "second.html", "next": "first.html"}
    assert '<a href="index.html">The course</a>' in page
    (project.built_reports / "figures").mkdir(parents=True)
    write(project.built_reports / "second.html", "")
    index = index_page(project, project.built_reports, outline).decode()
    assert 'Notebook: <a href="second.html">The second one</a>' in index
    assert re.search(r'<img alt="drawn" height="160" src="data:[^"]*" width="320"', page)
    assert "<title>The third one</title>" in page


@pytest.mark.parametrize(
    "text",
    ["[[chapter]\n", '[[chapter]]\ntitle = "A"\n', '[[chapter]]\nfrom = "x"\ntitle = "A"\n', "chapter = 3\n",
     '[[chapter]]\nfrom = 1\ntitle = "A"\norder = 2\n', '[[chapter]]\nfrom = 1000\ntitle = "A"\n',
     '[[chapter]]\nfrom = 1\ntitle = "A"\n[[chapter]]\nfrom = 1\ntitle = "B"\n',
     'hole = "All"\n[[chapter]]\nfrom = 1\ntitle = "A"\n'],
)  # fmt: skip
def test_chapters_that_cannot_be_read_are_refused_in_one_line(project: Project, text: str) -> None:
    write(project.reports / "chapters.toml", text)
    before = contents(project.root)
    with pytest.raises(ReportError, match=r"chapters.toml: it holds \[\[chapter\]\] tables"):
        build_reports(["plain"], project)
    assert contents(project.root) == before


def test_a_published_study_is_not_replaced_by_a_smaller_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project.root / "experiments" / "small.py", EXPERIMENT)
    write(project.reports / "small.py", "# %%\n")
    manifest = {"format": 1, "written by": "x", "redrawn by": "x", "experiments": {}}
    write(project.reports / "data" / "manifest.json", json.dumps(manifest))
    write(project.reports / "small.html", "published")
    experiment = load_experiment(project.root / "experiments" / "small.py")
    smoke, desk = ([run.key for run in experiment.runs(scale)] for scale in (Scale.SMOKE, Scale.DESK))
    published, here = PlannedSource("small"), PlannedSource("small")
    sources = {None: here, (project.reports / "data").resolve(): published}
    monkeypatch.setattr(build, "open_source", lambda _, archive, published=None: sources[archive])
    built = []
    monkeypatch.setattr(build, "_build", lambda names, *_: built.append(names) or [])
    monkeypatch.setattr(build, "write_archive", lambda *_, **__: [])
    before = contents(project.root)
    for old, new, said in (
        (desk, smoke, f"has {len(desk)} runs of scale desk, and this one only {len(smoke)} runs of scale smoke"),
        (desk, desk[1:], f"has {len(desk)} runs of scale desk, and this one only {len(desk) - 1} runs of scale desk"),
        (smoke, ["set by hand"], "and this one only 1 run of no named scale"),
    ):
        published.keys, here.keys = old, new
        with pytest.raises(RequestError, match=said):
            export(["small"], project, project.reports / "data")
        with pytest.raises(RequestError, match="--replace publishes the smaller study"):
            export(["small"], project, project.root / "elsewhere")
        assert not built
        export(["small"], project, project.reports / "data", replace=True)
        assert built.pop() == ["small"]
    published.keys, here.keys = smoke, desk
    export(["small"], project, project.reports / "data")
    assert contents(project.root) == before


@pytest.mark.parametrize("scale", [Scale.SMOKE, Scale.DESK, None])
def test_figures_of_smoke_runs_are_stamped(
    project: Project, scale: Scale | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNSTUDY_HOME", str(project.root))
    here = Notebook("plain")
    columns = ("width", "training.steps", "training.batch", "seed")
    runs = pd.DataFrame({name: [3] for name in columns}, index=["3f2a"])
    here._studies["small"] = Study(
        Experiment(Path("small.py"), ModuleType("small")), scale, 1, cast(Results, SimpleNamespace(runs=runs))
    )
    for keys in (("3f2a",), ()):
        picture = Picture(Figure(), pd.DataFrame({"a": [1]}), keys, "A curve.")
        here.show(picture, "curve")
        stamped = any("smoke" in text.get_text() for text in picture.figure.texts)
        assert stamped == (scale is Scale.SMOKE and bool(keys))


DRAWN = """# ---
# jupyter:
#   rnnstudy:
#     order: 1
#     experiments: [small]
# ---

# %% [markdown]
# # A small study

# %%
from rnnstudy.report import Notebook

here = Notebook("small")
here.say(here.study().missing_message or "complete")
losses = here.study().results.readings("learning/loss")
print(sorted(set(losses["key"])))
"""


def test_a_study_of_two_machines_is_published_as_one(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, rnnstudy: Callable[..., Any]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    data, projects = tmp_path / "data", [Project(tmp_path / name) for name in ("here", "there")]
    for project in projects:
        write(project.root / "experiments" / "small.py", EXPERIMENT)
        write(project.root / "reports" / "small.py", DRAWN)
        project.mlruns.mkdir()
        shutil.copy(empty_database, project.database)
    runs = load_experiment(projects[0].root / "experiments" / "small.py").runs(Scale.SMOKE)
    keys = sorted(run.key for run in runs)
    tracker = MlflowTracker(open_store(projects[0]), SweepInfo("small", "experiments/small.py", "rnnstudy sweep"))
    for run in runs[:3]:
        tracker.begin(run, run.name)
    for record in train(runs[:3], device="cpu", engine="reference"):
        tracker.write(record)
    tracker.close()
    export(["small"], projects[0], data)
    assert "3 of the 4 runs" in (projects[0].reports / "small.ipynb").read_text(encoding="utf-8")
    monkeypatch.setenv("RNNSTUDY_HOME", str(projects[1].root))
    monkeypatch.chdir(projects[1].root)
    launched = "sweep", "experiments/small.py", "--scale", "smoke", "--engine", "reference", "--published", str(data)
    answer = rnnstudy(*launched)
    assert answer.returncode == 0
    assert f"3 of 4 runs are in {data}, and are not trained again" in answer.stdout + answer.stderr
    assert list(open_store(projects[1]).finished()) == [runs[3].key]
    with pytest.raises(RequestError, match="3 runs of scale smoke, and this one only 1 run"):
        export(["small"], projects[1], data)
    answer = rnnstudy("report", "small", "--published", str(data), "--export", str(data))
    assert answer.returncode == 0, answer.stderr
    text = (projects[1].reports / "small.ipynb").read_text(encoding="utf-8")
    assert "complete" in text
    assert all(key in text for key in keys)
    assert json.loads((data / "manifest.json").read_text())["experiments"]["small"]["keys"] == keys
    answer = rnnstudy(*launched)
    assert (answer.returncode, answer.stdout.count("4 of 4 runs are in")) == (0, 1)
    answer = rnnstudy("report", "small", "--published", str(data), "--from", str(data))
    assert answer.returncode == 2
    assert "--from reads committed results alone, --published beside the store; give one of them" in answer.stderr
