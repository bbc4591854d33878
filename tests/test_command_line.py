"""The command line as a person meets it: what it prints, its exit codes, and what it leaves in the store."""

import inspect
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner

from rnnstudy import results
from rnnstudy.cells.cell import Cell
from rnnstudy.cli.commands import app
from rnnstudy.probes import GradientThroughTime
from rnnstudy.probes.probe import Probe
from rnnstudy.results.trained import load_network, read_probe
from rnnstudy.spec import concrete
from rnnstudy.store import mlflow_database
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.sweep import Resources, launch
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.plan import make_plan
from rnnstudy.tasks.task import Task
from rnnstudy.training.batches import fixed_batches
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population


def start(project: Path, *arguments: str) -> subprocess.Popen[bytes]:
    log = (project / "log.txt").open("w")
    with log:
        return subprocess.Popen(_command(*arguments), cwd=project, stdout=log, stderr=subprocess.STDOUT)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from rnnstudy.cli import main; main()", *arguments]


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.05)


def states(project: Path, scale: Scale) -> dict[str, str]:
    keys = [run.key for run in load_experiment(project / "experiments" / "small.py").runs(scale)]
    return Store(Project(project)).states(keys)


def running(project: Path) -> list[str]:
    """Runs that MLflow shows as running; none while the database is being made or written."""
    try:
        return [status for status in statuses_in_mlflow(project) if status == "RUNNING"]
    except sqlite3.OperationalError:
        return []


def statuses_in_mlflow(project: Path) -> list[str]:
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        rows = database.execute("select status from runs where lifecycle_stage = 'active'").fetchall()
    return sorted(status for (status,) in rows)


def expected_weights(project: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the loop gives in this process, without workers and tracker, for the populations of the smoke sweep."""
    runs = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)
    nowhere = Project(project / "nowhere")
    planned = make_plan(runs, Store(nowhere), nowhere.checkpoints, workers=2)
    return {
        record.key: dict(record.weights or {})
        for task in planned.assignments
        for record in train(Population(task.runs), device="cpu")
        if record.outcome is not None
    }


def stored_weights(project: Path, keys: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    loaded = {key: load_network(key, project=Project(project)) for key in keys}
    return {key: {name: value.numpy() for name, value in one.parameters.items()} for key, one in loaded.items()}


def assert_equal_weights(weights: dict[str, dict[str, np.ndarray]], expected: dict[str, dict[str, np.ndarray]]) -> None:
    assert weights.keys() == expected.keys()
    for key, parameters in expected.items():
        assert weights[key].keys() == parameters.keys()
        for name, value in parameters.items():
            np.testing.assert_array_equal(weights[key][name], value, err_msg=f"{key} {name}")


def test_a_sweep_its_second_start_and_what_can_be_asked_of_it(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    first = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "2")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "4 runs: 0 in the store, 4 to train" in first.stdout
    assert re.search(r"^Elman +10 +\d of 2", first.stdout, re.MULTILINE)
    assert set(states(project, Scale.SMOKE).values()) == {"finished"}
    assert statuses_in_mlflow(project) == ["FINISHED"] * 4
    assert not list((project / "mlruns" / "checkpoints").glob("*")), "a finished population keeps no checkpoint"
    expected = expected_weights(project)
    assert_equal_weights(stored_weights(project, expected), expected)

    again = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke")
    assert again.returncode == 0
    assert "4 in the store, 0 to train" in again.stdout
    assert len(statuses_in_mlflow(project)) == 4

    silent = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--quiet")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    told = json.loads(rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--json").stdout)
    assert (told["runs"], len(told["complete_before"]), told["ended"]) == (4, 4, {})
    assert [(row["cell"], row["runs"]) for row in told["table"]] == [("Elman", 2), ("LSTM", 2)]
    listed = json.loads(rnnstudy("list", "experiments/small.py", "--scale", "smoke", "--json").stdout)
    assert [row["state"] for row in listed["runs"]] == 4 * ["finished"]
    assert (listed["complete"], listed["to_train"]) == (4, 0)

    [first_run, *_] = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)
    shown = rnnstudy("show", first_run.key[:8])
    assert shown.returncode == 0
    assert "Elman T=10 lr 0.001 s0" in shown.stdout
    assert re.search(r"trained on +\S.*torch", shown.stdout)
    promised = " ".join(shown.stdout.split())
    assert "equal bits on this kind of machine, agreement within the spread over seeds on others" in promised
    command = re.search(r"rnnstudy (sweep .*--rerun)", shown.stdout)
    assert command is not None
    for field, value in (("learning_rate", "0.001"), ("batch", "4"), ("optimiser", "Adam")):
        assert re.search(rf"^ +training\.{field} +{value}", shown.stdout, re.MULTILINE), shown.stdout
    recorded = results.load([first_run.key], project=Project(project)).runs.loc[first_run.key, "error"]
    assert re.search(rf"^test error +{recorded:.4g} *$", shown.stdout, re.MULTILINE)
    described = json.loads(rnnstudy("show", first_run.key, "--json").stdout)
    assert described["specification"]["training.optimiser"] == "Adam"
    assert described["outcome"]["error"] == pytest.approx(recorded)
    loss = next(row for row in described["readings"] if row["name"] == "learning/loss")
    whole = results.load([first_run.key], project=Project(project)).readings("learning/loss")["value"]
    assert (loss["first"], loss["last"]) == pytest.approx((whole.iloc[0], whole.iloc[-1]))

    repeated = rnnstudy(*command[1].split())
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert "1 run: 0 in the store, 1 to train" in repeated.stdout
    assert statuses_in_mlflow(project) == ["FINISHED"] * 4

    forgotten = rnnstudy("forget", first_run.key)
    assert forgotten.returncode == 0
    assert states(project, Scale.SMOKE)[first_run.key] == "absent"


def test_a_new_store_is_named(project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_database, "create_database", lambda database: shutil.copy(empty_database, database))
    arguments = ["sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1"]
    arguments += ["--only", load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)[0].key]
    first, second = (CliRunner().invoke(app, arguments, catch_exceptions=False).stdout for _ in range(2))
    assert f"a new store: {project / 'mlruns' / 'mlflow.db'}\n" in first
    assert "new store" not in second


def test_the_trained_network_that_load_gives_back_makes_the_recorded_error(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    assert rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1").returncode == 0
    place = Project(project)
    for run in load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE):
        network = load_network(run.key, project=place)
        assert network.run == run
        [batch] = fixed_batches(Population((run,)), "test", 40, torch.device("cpu"))
        outputs = network(batch.inputs[:, 0])[list(batch.steps)]
        error = (outputs.argmax(-1) != batch.targets[:, 0]).float().mean().item()
        recorded = results.load([run.key], project=place).runs.loc[run.key, "error"]
        assert error == pytest.approx(recorded, abs=1e-6)


def test_a_probe_reads_of_the_kept_weights_what_it_read_in_the_run(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    assert rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1").returncode == 0
    place = Project(project)
    run = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)[-1]
    loaded = results.load([run.key], project=place)
    again = {one.name: one for one in read_probe(run.key, GradientThroughTime(sequences=4), project=place)}
    for name in ("profile/h_final", "profile/c_final_normalised"):
        recorded = loaded.readings(name)["value"].to_numpy()
        np.testing.assert_allclose(again[name].values[0].flatten().numpy(), recorded, atol=1e-5)

    shown = rnnstudy("probe", run.key[:8], "GradientThroughTime", "--set", "sequences=4")
    assert shown.returncode == 0, shown.stderr
    ratio = loaded.runs.loc[run.key, "log10_ratio_final"]
    assert re.search(rf"log10_ratio_final +{re.escape(f'{ratio:.4g}')} +log10", shown.stdout), shown.stdout
    assert "profile/h_final (log10)" in shown.stdout
    exponents = rnnstudy("probe", run.key, "LyapunovExponents")
    assert "lyapunov/exponents_final (ln per step)" in exponents.stdout
    assert "reads nothing" in rnnstudy("probe", run.key, "ParameterGradients").stdout


OWN_PROBE = """

from rnnstudy.probes.probe import Probe
from rnnstudy.probes.reading import Reading


class Largest(Probe):
    \"\"\"The largest weight.\"\"\"

    source = "here"

    def read(self, moment):
        return [Reading(moment.named("largest"), moment.parameters["W_hh"].flatten(1).amax(1))]
"""


def test_a_probe_of_ones_own_is_listed_and_read(project_with_store: Path, rnnstudy: Callable[..., Any]) -> None:
    project = project_with_store
    path = project / "experiments" / "small.py"
    path.write_text(path.read_text() + OWN_PROBE)
    assert rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1").returncode == 0
    listed = rnnstudy("list", "experiments/small.py", "--probes")
    assert re.search(r"^Largest +The largest weight\.  \[here\]$", listed.stdout, re.MULTILINE)
    run = load_experiment(project / "experiments" / "small.py").runs(Scale.SMOKE)[0]
    shown = rnnstudy("probe", run.key, "Largest", "--file", "experiments/small.py")
    weights = load_network(run.key, project=Project(project)).parameters["W_hh"]
    assert f"{weights.max().item():.4g}" in shown.stdout, shown.stdout + shown.stderr


def test_a_run_with_a_cell_of_ones_own_names_the_file_that_defines_it(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    path = project_with_store / "experiments" / "small.py"
    own = "class Mine(Elman):\n    source = 'here'\n\n\ndef runs("
    path.write_text(path.read_text().replace("def runs(", own).replace("[Elman(width=4)", "[Mine(width=4)"))
    assert rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1").returncode == 0
    key = load_experiment(path).runs(Scale.SMOKE)[0].key
    command = [str(Path(sys.executable).with_name("rnnstudy")), "probe", key, "GradientThroughTime"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "Mine cannot be found" in refused.stderr
    assert "--file experiments/small.py" in refused.stderr
    named = subprocess.run([*command, "--file", "experiments/small.py"], capture_output=True, text=True, check=False)
    assert named.returncode == 0, named.stderr


@pytest.mark.parametrize(("kind", "base"), [("tasks", Task), ("cells", Cell), ("probes", Probe)])
def test_list_tells_what_there_is_with_its_source(rnnstudy: Callable[..., Any], kind: str, base: type) -> None:
    printed = rnnstudy("list", f"--{kind}").stdout.splitlines()
    known = {cls.__name__: cls for cls in concrete(base) if cls.__module__.startswith("rnnstudy.")}
    by_name = {line.split()[0]: line for line in printed}
    assert set(known) <= set(by_name)
    assert len(by_name) == len(printed)
    for name, cls in known.items():
        assert by_name[name].endswith(f"[{cls.source}]")
        assert inspect.getdoc(cls).split()[0] in by_name[name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_an_interrupted_sweep_goes_on_to_the_same_bits(
    project_with_store: Path, rnnstudy: Callable[..., Any], number: signal.Signals
) -> None:
    project = project_with_store
    sweep = ("sweep", "experiments/small.py", "--scale", "desk", "--set", "training.steps=500", "--workers", "2")
    process = start(project, *sweep)
    wait_for(lambda: len(running(project)) >= 2)
    process.send_signal(number)
    code = process.wait(timeout=120)
    printed = (project / "log.txt").read_text()
    assert code == 130, printed
    assert "the same command continues" in printed
    assert set(statuses_in_mlflow(project)) == {"KILLED"}
    assert list((project / "mlruns" / "checkpoints").glob("*.pt"))

    resumed = rnnstudy(*sweep)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert statuses_in_mlflow(project) == ["FINISHED"] * 4
    keys = sorted(run.key for run in Store(Project(project)).runs())
    assert len(keys) == 4
    disturbed = stored_weights(project, keys)
    assert rnnstudy(*sweep, "--rerun").returncode == 0
    assert_equal_weights(stored_weights(project, keys), disturbed)


def test_a_killed_worker_and_a_killed_parent_lose_nothing(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    sweep = ("sweep", "experiments/small.py", "--scale", "desk", "--set", "training.steps=600", "--workers", "2")
    process = start(project, *sweep)
    wait_for(lambda: len(running(project)) >= 2)
    parent = psutil.Process(process.pid)
    wait_for(lambda: len(_spawned(parent)) == 2)
    before = _spawned(parent)
    psutil.Process(min(before)).kill()
    wait_for(lambda: len(_spawned(parent) - before) == 1)
    workers = [psutil.Process(pid) for pid in _spawned(parent)]
    process.kill()
    process.wait()
    psutil.wait_procs(workers, timeout=30)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in workers)
    assert "RUNNING" in statuses_in_mlflow(project)

    finished = rnnstudy(*sweep)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "had left as running" in finished.stdout
    assert statuses_in_mlflow(project) == ["FINISHED"] * 4


def _spawned(parent: psutil.Process) -> set[int]:
    """The worker processes that are alive."""
    found = set()
    for child in parent.children():
        # One that has just been killed is still listed.
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_a_run_that_fails_is_told_and_the_others_go_on(project_with_store: Path, rnnstudy: Callable[..., Any]) -> None:
    project = project_with_store
    (project / "experiments" / "faulty.py").write_text(
        (project / "experiments" / "small.py").read_text()
        + '''

class Faulty(TemporalOrder):
    """Its second block cannot be drawn."""

    def sample(self, batch, generator):
        raise RuntimeError("no data today")


good = runs


def runs(scale):
    return [good(scale)[0], good(scale)[0].replace(task=Faulty(length=10))]
'''
    )
    done = rnnstudy("sweep", "experiments/faulty.py", "--scale", "smoke", "--workers", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "RuntimeError: no data today" in done.stdout
    log = re.search(r"details in (\S+\.log)", done.stdout.replace("\n", " "))
    assert log is not None
    assert "no data today" in Path(log[1]).read_text()
    assert statuses_in_mlflow(project) == ["FAILED", "FINISHED"]


def test_offline_runs_come_in_by_sync(project: Path, rnnstudy: Callable[..., Any]) -> None:
    offline = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--offline", "elsewhere", "--workers", "1")
    assert offline.returncode == 0, offline.stdout + offline.stderr
    assert not (project / "mlruns" / "mlflow.db").exists()
    assert "4 runs added" in rnnstudy("sync", "elsewhere").stdout
    assert "0 runs added, 0 brought further, 4 unchanged" in rnnstudy("sync", "elsewhere").stdout
    assert set(states(project, Scale.SMOKE).values()) == {"finished"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sweep", "experiments/smal.py"), "did you mean 'experiments/small.py'?"),
        (("sweep", "experiments/small.py", "--workers", "0"), "--workers is 0; it must be at least 1"),
        (("sweep", "experiments/small.py", "--workers", "many"), "'many' is not a valid integer"),
        (("sweep", "experiments/small.py", "--scale", "big"), "'smoke', 'desk', 'paper'"),
        (("sweep", "experiments/small.py", "--set", "training.step=5"), "no field 'step'; did you mean 'steps'?"),
        (("sweep", "experiments/small.py", "--set", "trainin.steps=5"), "did you mean 'training'?"),
        (("sweep", "experiments/small.py", "--set", "training.steps"), "--set takes FIELD=VALUE"),
        (("sweep", "experiments/small.py", "--set", "training.steps=many"), "it takes a whole number"),
        (("sweep", "experiments/small.py", "--set", "task.length=5"), "must be at least 10"),
        (("sweep", "experiments/small.py", "--set", "cell=LSTM"), "it takes a Cell"),
        (("sweep", "experiments/small.py", "--only", "zzz"), "no run of"),
        (("sweep", "experiments/small.py", "--device", "gpu"), "it takes auto, cpu, cuda or cuda:N"),
        (
            ("sweep", "experiments/misspelt.py"),
            "cannot import name 'LSTMS' from 'rnnstudy.cells'; did you mean 'LSTM'?",
        ),
        (("sweep", "experiments/unknown_field.py"), "Training has no field 'step'; did you mean 'steps'?"),
        (("sweep", "experiments/broken.py"), "experiments/broken.py:1:"),
        (("sweep", "experiments/empty.py"), "defines no runs(scale)"),
        (("sweep", "experiments/nothing.py"), "returns no runs"),
        (("sweep", "experiments/twice.py"), "two runs mean the same"),
        (("list", "nowhere/x.py"), "there is no experiment file"),
        (("show", "0000"), "no run in the store"),
        (("forget", "0000"), "no run in the store"),
        (("sync", "nowhere"), "there is no folder nowhere; name the one that the offline sweep wrote"),
        (("sync", "experiments"), "holds no runs"),
        (
            ("sweep", "experiments"),
            "'experiments' is a folder, not an experiment file; name a file in it, such as expe",
        ),
        (("sweep", "small"), "there is no experiment file 'small'; did you mean 'experiments/small.py'?"),
        (("sweep", "experiments/small.py", "--only", ""), "--only is empty; it takes the beginning of a key"),
        (
            ("sweep", "experiments/small.py", "--set", "cell=GRU(width=5)"),
            "another object is written in the experiment",
        ),
        (("studies", "--storage", "nonsense"), "it is no address of a database, such as sqlite:////absolute/path.db"),
        (("help",), "No such command 'help'. `rnnstudy --help` lists the commands."),
        (("report", "quickstat"), "there is no report 'quickstat'"),
        (("report",), "there are no reports in"),
        (("swep",), "No such command 'swep'"),
        (("sweep",), "Missing argument 'FILE'. `rnnstudy sweep --help` shows what is expected."),
        (("list",), "Missing argument 'FILE': an experiment file, or --tasks, --cells or --probes"),
        (("probe", "0000", "Lyapunov"), "there is no probe 'Lyapunov'; did you mean 'LyapunovExponents'?"),
        (("probe", "0000", "LyapunovExponents"), "no run in the store"),
        (("probe", "0000", "LyapunovExponents", "--set", "sequence=3"), "has no field 'sequence'; did you mean"),
        (("probe", "0000", "LyapunovExponents", "--set", "sequences=0"), "must be at least 1"),
        (("probe", "0000"), "Missing argument 'PROBE'"),
        (("completion", "tcsh"), "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (("report", "--replace"), "--replace belongs to --export"),
        (("ui",), "there is no store"),
    ],
)
def test_bad_input_gets_one_line_exit_code_2_and_leaves_nothing(
    project: Path, rnnstudy: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    small = (project / "experiments" / "small.py").read_text()
    (project / "experiments" / "misspelt.py").write_text("from rnnstudy.cells import LSTMS\n")
    (project / "experiments" / "unknown_field.py").write_text("from rnnstudy.run import Training\nTraining(step=3)\n")
    (project / "experiments" / "broken.py").write_text("def runs(scale)\n")
    (project / "experiments" / "empty.py").write_text("x = 1\n")
    (project / "experiments" / "nothing.py").write_text("def runs(scale):\n    return []\n")
    (project / "experiments" / "twice.py").write_text(
        small + "\nonce = runs\n\n\ndef runs(s):\n    return 2 * once(s)\n"
    )
    before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    answer = rnnstudy(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert said in answer.stderr
    assert sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused_before_anything_is_written(
    project: Path, rnnstudy: Callable[..., Any]
) -> None:
    answer = rnnstudy("sweep", "experiments/small.py", "--device", "cuda")
    assert answer.returncode == 2
    assert "use --device cpu or auto" in answer.stderr
    assert not (project / "mlruns" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda mlruns: (mlruns / "mlflow.db").write_bytes(b"not a database" * 100), "mlflow.db"),
        (lambda mlruns: (mlruns.rmdir(), mlruns.write_text("a file in its place")), "mlruns"),
    ],
    ids=["corrupt database", "mlruns is a file"],
)
def test_a_store_that_cannot_be_used_is_refused_in_one_line(
    project: Path, rnnstudy: Callable[..., Any], make: Callable[[Path], object], said: str
) -> None:
    (project / "pyproject.toml").write_text("")
    make(project / "mlruns")
    answer = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert said in answer.stderr


def test_list_and_dry_run_train_nothing(project: Path, rnnstudy: Callable[..., Any]) -> None:
    listed = rnnstudy("list", "experiments/small.py", "--scale", "smoke")
    dry = rnnstudy("sweep", "experiments/small.py", "--scale", "smoke", "--dry-run")
    assert listed.stdout == dry.stdout
    assert "Elman T=10 lr 0.001 s0" in listed.stdout
    assert listed.stdout.count("absent") == 4
    assert not (project / "mlruns" / "mlflow.db").exists()


def test_a_run_has_one_name_whichever_part_of_its_experiment_is_asked_for(
    project_with_store: Path, rnnstudy: Callable[..., Any]
) -> None:
    path = project_with_store / "experiments" / "small.py"
    varied = '{"cell": [Elman(width=4), LSTM(width=4)]}'
    assert varied in path.read_text()
    path.write_text(path.read_text().replace(varied, '{"training.batch": [3, 4]}'))
    options = ("experiments/small.py", "--scale", "smoke", "--json")
    names = {row["key"]: row["name"] for row in json.loads(rnnstudy("list", *options).stdout)["runs"]}
    assert sorted(names.values())[0] == "Elman T=10 lr 0.001 batch=3 s0"
    key = list(names)[-1]
    [row] = json.loads(rnnstudy("list", *options, "--only", key).stdout)["runs"]
    assert row["name"] == names[key]
    told = launch(path, scale=Scale.SMOKE, only=[key], resources=Resources(workers=1, engine="reference"))
    assert told.names[key] == names[key]
    assert [run.name for run in Store(Project(project_with_store)).runs()] == [names[key]]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rnnstudy import cli; cli.app(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'mlflow', 'pandas', 'optuna', 'seaborn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "sweep" in done.stdout
