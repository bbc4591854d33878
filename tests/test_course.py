"""The course: every notebook runs, its solutions are right, and what is committed is what its source says."""

import itertools
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from rnnstudy.report.course import build_course, of_course
from rnnstudy.spec import RequestError
from rnnstudy.store.project import Project

ROOT = Path(__file__).parents[1]

SOURCES = sorted((ROOT / "reports" / "course").glob("*.py"))

NAMES = [source.stem for source in SOURCES]

TRAINING = {"2_four_shapes", "4_three_recurrences", "6_lstm"}
"""The notebooks that train networks; the tests let them do four updates."""


def cells_of(source: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def solutions(source: Path) -> list[str]:
    """The text of each hidden solution."""
    markdown = "\n".join(text for kind, text in cells_of(source) if kind == "markdown")
    return re.findall(r"<details><summary>Solution</summary>\n(.*?)\n</details>", markdown, re.DOTALL)


def run(source: Path, monkeypatch: pytest.MonkeyPatch, figures: Path) -> dict[str, Any]:
    """The names that a notebook leaves, run in this process with hardly any training, and then its solutions."""
    monkeypatch.setenv("RNNSTUDY_HOME", str(ROOT))
    monkeypatch.setenv("RNNSTUDY_FIGURES", str(figures))
    code = "\n".join(text for kind, text in cells_of(source) if kind == "code")
    code, shortened = re.subn(r"^UPDATES = \d+$", "UPDATES = 4", code, flags=re.MULTILINE)
    assert shortened == (source.stem in TRAINING)
    names: dict[str, Any] = {}
    exec(compile(code, str(source), "exec"), names)
    for solution in solutions(source):
        for block in re.findall(r"```python\n(.*?)```", solution, re.DOTALL):
            exec(compile(block, f"{source.stem}, a solution", "exec"), dict(names))
    return names


def numbers(names: dict[str, Any], *wanted: str) -> list[float]:
    return [float(names[name]) for name in wanted]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_runs_and_its_solutions_hold(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = run(source, monkeypatch, tmp_path)
    assert names["here"].name == f"course/{source.stem}"
    shown = {path.stem for path in tmp_path.glob("*.json")}
    assert len(shown) >= 4
    assert all((tmp_path / f"{name}.svg").is_file() for name in shown)
    match source.stem:
        case "3_one_step":
            # By hand and by nn.RNN: the same bits; in two layers, rounding apart.
            assert names["difference"] == 0
            assert abs(names["second"][-1] - float(names["top"][-1, 0])) < 1e-15
        case "5_through_time":
            # The gradient by the chain rule, by nudging, as a product of Jacobians, and as `watch` measures it.
            assert names["nudged"] == pytest.approx(names["gradient"][: len(names["x"])], rel=1e-4)
            assert names["largest"] < 1e-6
        case "6_lstm":
            assert numbers(names, "h", "c") == pytest.approx(numbers(names, "h_torch", "c_torch"), abs=1e-15)


def test_the_course_has_six_notebooks_in_order() -> None:
    assert [name[:2] for name in NAMES] == ["1_", "2_", "3_", "4_", "5_", "6_"]
    for source in SOURCES:
        assert 2 <= len(solutions(source)) <= 3
        assert any("```python" in solution for solution in solutions(source))
    for source, after in itertools.pairwise(SOURCES):
        title = re.search(r"^# # (\d\. .*?)[:\n]", after.read_text(encoding="utf-8"), re.MULTILINE)
        assert title
        assert f"Next: *{title[1]}" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_what_is_committed_was_made_from_its_source(source: Path) -> None:
    """Change a notebook, and `rnnstudy report course --export reports/data` has to be run again."""
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in committed.cells] == cells_of(source)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type in ("error", "stream") for cell in code for output in cell.outputs)
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    figures = source.parent / "figures" / source.stem
    assert len(pictures) == len(list(figures.glob("*.png"))) == len(list(figures.glob("*.svg")))
    assert source.with_suffix(".html").stat().st_size > 10_000


def test_the_reviews_are_those_of_the_licence() -> None:
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert "movie_reviews.csv" in readme
    assert "MIT" in (ROOT / "data" / "movie_reviews.LICENSE.txt").read_text(encoding="utf-8")


def test_the_course_is_built_beside_the_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(RequestError, match="there is no course in"):
        build_course(["course"], Project(tmp_path))
    source = tmp_path / "reports" / "course" / "1_small.py"
    source.parent.mkdir(parents=True)
    exercise = "# # 1. Small\n#\n# <details><summary>Solution</summary>\n#\n# About 10<sup>−3</sup>.\n#\n# </details>\n"
    source.write_text(f"# %% [markdown]\n{exercise}\n# %%\n6 * 7\n")
    assert of_course(["quickstart", "course", "course/1_small"]) == (["course", "course/1_small"], ["quickstart"])
    with pytest.raises(RequestError, match="no notebook '1_smal'; did you mean 'course/1_small'"):
        build_course(["course/1_smal"], Project(tmp_path))
    assert not (tmp_path / "build").exists()
    for names, committed, folder in (
        (["course"], False, tmp_path / "build" / "reports" / "course"),
        (["course/1_small"], True, source.parent),
    ):
        written = build_course(names, Project(tmp_path), committed=committed)
        assert written == [folder / name for name in ("1_small.ipynb", "1_small.html", "index.html")]
        page = (folder / "1_small.html").read_text(encoding="utf-8")
        # The solution is inside, so that it is hidden until somebody clicks.
        hidden = re.search(r"<details><summary>Solution</summary>(.*?)</details>", page, re.DOTALL)
        assert hidden
        assert "About 10<sup>−3</sup>." in hidden[1]
