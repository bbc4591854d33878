"""What the README and the pages in docs/ show is what happens."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from rnnstudy.cli.commands import app
from rnnstudy.search.definition import searches_of
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}


def blocks(words: str) -> list[Any]:
    """The Python blocks with these words, of all pages, each as a case of a test named after its page."""
    found = [
        (name, block) for name, text in PAGES.items() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ]
    return [pytest.param(block, id=name) for name, block in found if words in block]


def commands() -> list[Any]:
    """The commands that pages name, in blocks or in backticks, with what stands behind them up to a comment."""
    found = set()
    for name, text in PAGES.items():
        in_blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        lines = re.findall(r"^(rnnstudy [^#\n]*)", in_blocks, re.MULTILINE) + re.findall(r"`(rnnstudy [^`|\n]*)", text)
        found |= {(name, line.strip()) for line in lines}
    return [pytest.param(line, id=f"{name}: {line}") for name, line in sorted(found)]


@pytest.mark.parametrize("source", blocks("def runs(scale)"))
def test_the_experiments_they_show_give_runs(source: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.py"
    path.write_text(source)
    runs = load_experiment(path).runs(Scale.DESK)
    combinations = {"does a larger": 3 * 2, "does an ident": 2 * 2}[source[3:16].lower()]
    assert len({run.key for run in runs}) == combinations * 5


@pytest.mark.parametrize("source", blocks("def sample(trial, scale)"))
def test_the_searches_they_show_are_searches(source: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.py"
    path.write_text(source)
    [definition] = searches_of(load_experiment(path), Scale.DESK)
    assert definition.search.trials == 24
    run = definition.candidate(FixedTrial({"learning_rate": 0.02, "clip_threshold": 0.5}))
    assert run.training.learning_rate == 0.02


@pytest.mark.parametrize("source", blocks("rnnstudy.train("))
def test_the_lines_for_a_notebook_run(source: str, tmp_path: Path) -> None:
    assert "steps=300" in source
    short = source.replace("steps=300", "steps=2, validation_sequences=2, test_sequences=2")
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^[0-9a-f]{12} (True|False) \[", done.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("line", commands())
def test_the_commands_and_options_they_name_exist(line: str) -> None:
    name = line.split()[1]
    known = {option for parameter in app.commands[name].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_the_options_of_a_sweep_that_a_page_lists_exist() -> None:
    listed = re.findall(r"^\| `(--.*?) \|", PAGES["docs/sweeps.md"], re.MULTILINE)
    known = {option for parameter in app.commands["sweep"].params for option in parameter.opts}
    assert len(listed) > 5
    assert {option for line in listed for option in re.findall(r"--[a-z-]+", line)} <= known


@pytest.mark.parametrize("source", blocks("rnnstudy.watch(model) as flow"))
def test_the_lines_that_watch_a_model_run(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(source, "a page", "exec"), names)
    assert names["flow"][""].log10("h").shape == (names["model"].num_layers, 100)
    assert (tmp_path / "flow.png").stat().st_size > 5000


def test_there_is_something_of_each_kind_to_test() -> None:
    kinds = ("def runs(scale)", "def sample(trial, scale)", "rnnstudy.train(", "rnnstudy.watch(model) as flow")
    assert [len(blocks(words)) for words in kinds] == [2, 1, 1, 2]
    assert len(commands()) > 20


def test_the_files_the_readme_links_to_are_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGES["README.md"])
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
