"""What the command line prints: the progress of a sweep, tables, estimates, next steps; at 80 columns and in a pipe."""

import io
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.cli import doctor
from rnnstudy.cli.catalogue import catalogue_table, known_classes
from rnnstudy.cli.commands import app
from rnnstudy.cli.common import make_console, say
from rnnstudy.cli.completion import complete_key, complete_report
from rnnstudy.cli.progress import SweepDisplay
from rnnstudy.cli.tables import (
    list_table,
    next_steps,
    outcomes_table,
    size,
    studies_lines,
    studies_rows,
    studies_shown,
    studies_table,
)
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.run import Run, Training
from rnnstudy.search.studies import StudyStatus
from rnnstudy.store.mlflow_store import open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale, grid
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import Plan, duration, make_plan
from rnnstudy.sweep.summary import SweepSummary
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series, TrainingProgress

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def printed(shown: RenderableType, width: int) -> list[str]:
    """The lines of something on a terminal of this width."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


@pytest.fixture
def planted(project_with_store: Path) -> SweepSummary:
    """A sweep of six runs without and with clipping, two of them diverged."""
    home = Project(project_with_store)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=Training(steps=5))
    runs = grid(base, {"training.clip": [None, ClipNorm(threshold=2.5)]}, seeds=range(3))
    tracker = MlflowTracker(open_store(home), SweepInfo("planted", "experiments/planted.py"))
    for run in runs:
        diverged = run.training.clip is None and run.seed < 2
        outcome = Outcome("diverged" if diverged else "finished", 5, None if diverged else True, engine="reference")
        tracker.begin(run, run.name)
        series = {"learning/loss": Series(np.arange(5), np.ones(5), (), "nats", 1)}
        tracker.write(Record(run.key, 5, 1000.0, series, outcome))
    tracker.close()
    return SweepSummary(runs=runs, project=home)


def test_diverged_runs_count_as_unsolved_and_settings_that_are_none_are_a_dash(planted: SweepSummary) -> None:
    header, *rows = (line.split() for line in printed(outcomes_table(planted.table), 200))
    assert header[:6] == ["cell", "length", "clip", "threshold", "solved", "diverged"]
    assert sorted(row[2:] for row in rows) == [
        ["ClipNorm", "2.5", "3", "of", "3", "–", "–", "–", "–"],
        ["–", "–", "1", "of", "3", "2", "–", "–", "–", "–"],
    ]
    # At 80 columns headings take several lines, and each row still one.
    narrow = printed(outcomes_table(planted.table), 80)
    assert max(map(len, narrow)) <= 80
    assert [line.split() for line in narrow[-2:]] == rows


def test_the_next_steps_name_the_report_that_uses_the_runs(planted: SweepSummary) -> None:
    assert planted.project is not None
    shown = f"rnnstudy show {planted.runs[0].key}"
    assert next_steps("planted", planted) == f"next: rnnstudy ui  ·  {shown}"
    planted.project.reports.mkdir()
    (planted.project.reports / "other.py").write_text("# ---\n#     experiments: [planted_too, planted]\n# ---\n")
    assert next_steps("planted", planted) == f"next: rnnstudy ui  ·  rnnstudy report other  ·  {shown}"
    (planted.project.reports / "planted.py").write_text("")
    assert "rnnstudy report planted " in next_steps("planted", planted)
    planted.ended = {run.key: Outcome("failed", 0) for run in planted.runs}
    assert next_steps("planted", planted) == ""


def population(cell: Any, length: int, count: int) -> Assignment:
    base = Run(task=TemporalOrder(length=length), cell=cell, training=Training(steps=100))
    return Assignment(tuple(grid(base, {}, seeds=range(count))), Path("nowhere"), None)


def terminal(width: int = 80) -> Console:
    return Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_progress_of_a_sweep_fits_the_terminal_and_names_each_phase(width: int) -> None:
    display = SweepDisplay(terminal(width))
    elman, lstm, gru = population(Elman(), 50, 12), population(LSTM(), 200, 10), population(GRU(), 1000, 64)
    with display:
        display.planned([elman, lstm, gru])
        for assignment in (elman, lstm, gru):
            display.started(assignment)
        display.progressed(lstm, TrainingProgress(0, 100, 10, math.nan, math.nan, "compiling"))
        display.progressed(gru, TrainingProgress(34, 100, 37, 1.234567, 0.75))
        first, second, third, last = lines = printed(display.view, width)
        assert max(map(len, lines)) <= width
        assert first.startswith("12 × Elman T=50")
        assert first.endswith("worker starts")
        assert "compiling" in second
        assert width < 80 or "…" not in "".join(lines)
        assert "nan" not in " ".join(lines)
        assert re.search(r"34/100 loss 1\.23", third)
        assert width < 80 or third.endswith("34/100 loss 1.23  best error 0.75  37/64 train")
        assert "0/86" in last
        assert "3 workers" in last
        display.progressed(gru, TrainingProgress(40, 100, 0, math.nan, 0.0))
        assert "all runs have stopped" in printed(display.view, width)[2]
        assert "nan" not in " ".join(printed(display.view, width))
        display.progressed(gru, TrainingProgress(40, 100, 0, math.nan, 0.0, "testing"))
        assert "testing" in printed(display.view, width)[2]
        display.ended(gru, "")
        *rest, last = printed(display.view, width)
        assert len(rest) == 2
        assert "64/86" in last


def test_the_time_left_and_the_throughput_count_from_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("rnnstudy.cli.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    display, one = SweepDisplay(Console(file=io.StringIO())), population(LSTM(), 100, 10)
    display.planned([one])
    display.started(one)
    clock.now = 60.0
    display.progressed(one, TrainingProgress(0, 100, 10, math.nan, math.nan, "measuring"))
    assert "left" not in printed(display.view, 120)[-1]
    # Taken up again at update 500, after a minute of compiling.
    display.progressed(one, TrainingProgress(50, 100, 10, math.nan, math.nan))
    clock.now = 65.0
    display.progressed(one, TrainingProgress(60, 100, 10, 1.0, 0.5))
    last = printed(display.view, 120)[-1]
    assert "20 updates/s" in last, last
    assert "about 20 s left" in last


def test_in_a_pipe_there_are_plain_lines_and_quiet_prints_nothing() -> None:
    one = population(LSTM(), 100, 10)
    for quiet in (False, True):
        file = io.StringIO()
        with SweepDisplay(Console(file=file, width=500), quiet=quiet) as display:
            display.planned([one])
            display.message("a new store: here")
            display.started(one)
            display.progressed(one, TrainingProgress(0, 100, 10, math.nan, math.nan))
            display.ended(one, "")
        expected = ["a new store: here", "training 10 × LSTM T=100, at most 100 updates"]
        expected += ["done: 10 × LSTM T=100 (all done)"]
        assert file.getvalue().splitlines() == ([] if quiet else expected)


def test_nothing_of_the_bars_remains_at_the_end() -> None:
    console, one = terminal(), population(LSTM(), 100, 10)
    with SweepDisplay(console) as display:
        display.planned([one])
        display.started(one)
        display.ended(one, "")
    written = cast(io.StringIO, console.file).getvalue()
    # As many lines are erased as the last picture had.
    assert written.count("\x1b[2K") >= 1
    assert written.endswith("\x1b[2K")


def test_the_console_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert make_console().width == 80
    monkeypatch.delenv("COLUMNS")
    assert make_console().width == 1000, "in a pipe every row is one line"


@pytest.mark.parametrize("name", ["quickstart", "recurrence_and_depth", "truncation"])
def test_the_list_of_a_sweep_fits_80_columns_with_a_line_for_each_run(name: str, tmp_path: Path) -> None:
    runs = load_experiment(EXPERIMENTS / f"{name}.py").runs(Scale.SMOKE)
    project = Project(tmp_path)
    plan = make_plan(runs, open_store_of(project), project.checkpoints, workers=1)
    lines = printed(list_table(plan, dict.fromkeys(plan.names, "interrupted")), 80)
    assert max(map(len, lines)) <= 80
    by_key = {line.split()[0]: line for line in lines}
    for run in runs:
        assert plan.names[run.key].split()[0] in by_key[run.key]


def open_store_of(project: Project) -> Any:
    from rnnstudy.store.mlflow_store import Store

    return Store(project)


def test_the_estimate_counts_the_start_and_the_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = Project(tmp_path)
    runs = load_experiment(EXPERIMENTS / "quickstart.py").runs(Scale.SMOKE)
    plan: Plan = make_plan(runs, open_store_of(project), project.checkpoints, workers=2)
    monkeypatch.setattr(CompiledEngine, "compiles", lambda self, cell: True)
    seconds = plan.cost.seconds / 2 + 5 + 60
    once = f"at most about {duration(seconds)} (of these 60 s to compile kernels, once on this machine)"
    assert plan.headline(2, "auto").endswith(once)
    assert "compile" not in plan.headline(2, "reference")
    monkeypatch.setattr(CompiledEngine, "compiles", lambda self, cell: False)
    assert plan.headline(2, "auto").endswith(f"at most about {duration(seconds - 60)}")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "under 0.1 s"), (0.42, "0.4 s"), (9.96, "10 s"), (42.4, "42 s"), (89.6, "1 min"), (420.0, "7 min"),
     (5400.0, "1.5 h"), (200_000.0, "2.3 days")],
)  # fmt: skip
def test_durations_have_a_sensible_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (320, "320 B"), (12_400, "12 kB"), (999_600, "1.0 MB"), (3.14e9, "3.1 GB")]
)
def test_sizes_have_a_sensible_unit(count: float, words: str) -> None:
    assert size(count) == words


def test_studies_fit_80_columns_and_have_plain_values(tmp_path: Path) -> None:
    best = cast(Any, SimpleNamespace(value=0.0123456, params={"learning_rate": 0.00123, "clip_threshold": 2.5}))
    status = StudyStatus("tuned_comparison/desk/lstm-T100", 11, 4, 1, 2, 24, best, ())
    [row] = studies_rows([status], Project(tmp_path))
    assert row["best_error"] == 0.0123456
    assert row["parameters"] == best.params
    assert any("0.0123" in line for line in printed(studies_table([status], Project(tmp_path)), 160))
    lines = list(studies_lines([status], Project(tmp_path)))
    assert lines == [
        "tuned_comparison/desk/lstm-T100",
        "  15 of 24 trials, 2 open: 11 complete, 4 pruned, 1 failed",
        "  best 0.0123: learning rate 0.00123, clip threshold 2.5",
    ]
    assert studies_shown([status], Project(tmp_path), Console(width=80)) == lines
    assert len(studies_shown([status], Project(tmp_path), Console(width=160))) == 1


def test_doctor_finds_nothing_wrong_here_and_says_what_is_there(project_with_store: Path) -> None:
    answer = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.stdout
    assert f"{project_with_store / 'mlruns' / 'mlflow.db'}: no runs" in answer.stdout
    assert answer.stdout.endswith("nothing is wrong\n")
    for package in ("torch", "mlflow"):
        assert package in answer.stdout


def test_doctor_says_what_is_wrong_and_how_to_mend_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mlruns" / "mlflow.db").write_bytes(b"not a database" * 100)
    (project / "mlruns" / "offline" / "20261127-1").mkdir(parents=True)
    (project / "mlruns" / "offline" / "20261127-1" / "run").mkdir()
    (project / "mlruns" / "checkpoints").mkdir()
    (project / "mlruns" / "checkpoints" / "a.pt").touch()
    versions = dict.fromkeys(doctor.REQUIRED, "1.0") | {"optuna": ""}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, ""))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5e8))
    before = sorted(project.rglob("*"))
    found = {finding.about: finding for finding in doctor.examine(Project(project))}
    assert sorted(project.rglob("*")) == before, "it changes nothing"
    wrong = {about for about, finding in found.items() if finding.verdict == "wrong"}
    assert wrong == {"packages", "disk", "store"}
    assert found["packages"].remedy == "pip install optuna, with the versions in constraints.txt"
    assert "mlflow.db" in found["store"].found
    assert found["offline runs"].remedy == f"rnnstudy sync {project / 'mlruns' / 'offline' / '20261127-1'}"
    assert found["checkpoints"].found == "1 interrupted populations"
    answer = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    assert answer.exit_code == 1
    assert '"verdict": "wrong"' in answer.stdout


def test_the_shell_completes_commands_reports_and_keys(planted: SweepSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = CliRunner().invoke(app, ["completion", shell], catch_exceptions=False).stdout
        assert f"_RNNSTUDY_COMPLETE={shell}_complete" in script
    typed = {"_RNNSTUDY_COMPLETE": "bash_complete", "COMP_WORDS": "rnnstudy swe", "COMP_CWORD": "1"}
    offered = CliRunner().invoke(app, [], prog_name="rnnstudy", env=typed).stdout
    assert offered == "plain,sweep\n"
    assert planted.project is not None
    planted.project.reports.mkdir()
    (planted.project.reports / "forgetting.py").touch()
    context: Any = None
    assert complete_report(context, context, "for") == ["forgetting"]
    assert complete_report(context, context, "") == ["forgetting", "explore"]
    (planted.project.reports / "course").mkdir()
    (planted.project.reports / "course" / "6_lstm.py").touch()
    assert complete_report(context, context, "expl") == ["explore"]
    assert complete_report(context, context, "cour") == ["course", "course/6_lstm"]
    key = planted.runs[0].key
    [item] = complete_key(context, context, key[:8])
    assert (item.value, item.help) == (key, planted.runs[0].name)
    (planted.project.database).write_bytes(b"not a database" * 100)
    assert complete_key(context, context, "") == []


def test_the_catalogue_is_wrapped_beside_the_names_and_the_help_says_whole_sentences() -> None:
    lines = printed(catalogue_table("cells"), 80)
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names == sorted(known_classes("cells"))
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout.partition("Commands:")[2].splitlines()
    assert all(line.endswith(".") and not line.endswith("...") for line in shown if line)


def test_a_line_is_wrapped_between_words_unless_it_has_a_command_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=30, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr("rnnstudy.cli.common.make_console", lambda: console)
    with console.capture() as captured:
        say("some words that are longer than the terminal")
        say("then `rnnstudy sweep experiments/tuned_comparison.py` makes some")
    first, second, *rest = captured.get().splitlines()
    assert [first.rstrip(), second.rstrip()] == ["some words that are longer", "than the terminal"]
    assert rest == ["then `rnnstudy sweep experiments/tuned_comparison.py` makes some"]
