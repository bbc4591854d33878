"""What the README shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.cli.commands import app
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_experiment_it_shows_gives_runs(tmp_path: Path) -> None:
    [source] = [block for block in BLOCKS if "def runs(scale)" in block]
    path = tmp_path / "shown.py"
    path.write_text(source)
    runs = load_experiment(path).runs(Scale.DESK)
    assert len({run.key for run in runs}) == 3 * 2 * 5


def test_the_lines_for_a_notebook_run(tmp_path: Path) -> None:
    [source] = [block for block in BLOCKS if "rnnstudy.train(" in block]
    assert "steps=300" in source
    short = source.replace("steps=300", "steps=2, validation_sequences=2, test_sequences=2")
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^[0-9a-f]{12} (True|False) \[", done.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("line", re.findall(r"^(rnnstudy [^#\n]*)", README, re.MULTILINE))
def test_the_commands_and_options_it_names_exist(line: str) -> None:
    name = line.split()[1]
    known = {option for parameter in app.commands[name].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_the_lines_that_watch_a_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = [block for block in BLOCKS if "rnnstudy.watch(" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    assert names["profile"].log10("h").shape == (2, 100)
    assert (tmp_path / "flow.png").stat().st_size > 5000


def test_the_files_it_links_to_are_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
