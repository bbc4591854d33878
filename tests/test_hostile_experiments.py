"""Experiment files that end the program, never end themselves, or hide Python's own modules: one line, soon."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import ExperimentError, load_experiment

HEAD = """
import itertools, sys
from rnnstudy.cells import LSTM, Elman
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder
BASE = Run(task=TemporalOrder(length=10), cell=Elman(width=4))
class Broken:
    def __repr__(self): raise RuntimeError("no text")
class Mute(Exception):
    def __str__(self): raise RuntimeError("no text")
"""

FILES = {
    "ends the program while it is loaded": ("sys.exit(0)", "it ends the program (exit code 0)"),
    "ends the program in runs": ("def runs(scale): sys.exit(0)", "it ends the program (exit code 0)"),
    "ends the program with a text": ("def runs(scale): sys.exit('done')", "it ends the program (exit code 'done')"),
    "raises what is no Exception": ("def runs(scale): raise BaseException('x')", "BaseException: x"),
    "raises what has no text": ("def runs(scale): raise Mute", "Mute: an error without a text"),
    "the same run without end": (
        "def runs(scale):\n    while True: yield BASE",
        "two runs mean the same: Run(task=TemporalOrder(length=10)",
    ),
    "other things without end": ("def runs(scale): return itertools.count()", "must return Run objects, not int"),
    "seeds without end": ("def runs(scale): return grid(BASE, {}, seeds=itertools.count())", "do they end?"),
    "values without end": ("def runs(scale): return grid(BASE, {'seed': itertools.count()})", "do they end?"),
    "too many combinations": (
        "def runs(scale): return grid(BASE, {'seed': range(1000), 'data_seed': range(1000)})",
        "1000000 combinations; a sweep has at most 100000 runs",
    ),
    "recursion without end": ("def runs(scale): return runs(scale)", "RecursionError: maximum recursion depth"),
    "a value without a text": ("def runs(scale): return grid(BASE, {'seed': [Broken()]})", "a Broken that cannot be"),
    "something else than a run": ("def runs(scale): return [Broken()]", "must return Run objects, not Broken"),
    "no list": ("def runs(scale): return None", "TypeError: 'NoneType' object is not iterable"),
    "a number beyond float": ("def runs(scale): return [BASE.replace(seed=10**400)]", "must be less than 2^63"),
    "a rate beyond float": (
        "def runs(scale): return [BASE.replace(training=Training(learning_rate=10**400))]",
        "finite",
    ),
    "10^9 layers": ("def runs(scale): return [BASE.replace(layers=10**9)]", "it must be between 1 and 1000"),
    "10^9 updates": ("def runs(scale): return [BASE.replace(training=Training(steps=10**9))]", "must be between 1 and"),
    "10^9 units": ("def runs(scale): return [BASE.replace(cell=LSTM(width=10**9))]", "GB of memory, and there are"),
    "a search that ends the program": (
        "from rnnstudy.search import Search\ndef searches(scale): sys.exit(0)",
        "it ends the program (exit code 0)",
    ),
    "searches without end": (
        "from rnnstudy.search import Search\n"
        "def searches(scale): return (Search(name=str(n), trials=1) for n in itertools.count())",
        "are more than 10000; do they end?",
    ),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_a_hostile_file_is_refused_in_one_line(
    project: Path, rnnstudy: Callable[..., Any], text: str, words: str
) -> None:
    (project / "experiments" / "hostile.py").write_text(HEAD + text)
    command = ["sweep", "--workers", "1"] if "searches" in text else ["list"]
    answer = rnnstudy(*command, "experiments/hostile.py")
    assert answer.returncode == 2
    assert words in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert list((project / "mlruns").iterdir()) == []


def test_runs_that_differ_without_end_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnstudy.sweep.experiment.MOST_RUNS", 50)
    file = tmp_path / "endless.py"
    file.write_text(HEAD + "def runs(scale): return (BASE.replace(seed=seed) for seed in itertools.count())")
    with pytest.raises(ExperimentError, match=r"runs\(smoke\) returns more than 50 runs; does it end\?"):
        load_experiment(file).runs(Scale.SMOKE)


def test_files_beside_an_experiment_hide_no_module_of_python(tmp_path: Path) -> None:
    """In a process of its own, as each worker loads it: most of these modules are imported later than the file."""
    names = ("random", "copy", "types", "queue", "statistics", "secrets", "numpy", "torch")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "beside.py").write_text("VALUE = 1")
    file = tmp_path / "copy.py"
    file.write_text(HEAD + "from beside import VALUE\ndef runs(scale): return [BASE]")
    program = (
        "import sys\nfrom pathlib import Path\nfrom rnnstudy.sweep.worker_process import prepare_process\n"
        f"prepare_process(Path({str(file)!r}))\nimport random, copy, queue, statistics, secrets\n"
        "print(sys.modules['experiments.copy'].VALUE)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path.parent, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


def test_a_file_that_another_module_hides_is_named(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("def wilson(): ...")
    file = tmp_path / "with_own_statistics.py"
    file.write_text("from statistics import wilson\n")
    with pytest.raises(ExperimentError, match=r"statistics\.py beside it has the name of another module.*rename"):
        load_experiment(file)
