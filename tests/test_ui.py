"""`rnnstudy ui` as a person starts it: which port, which links, what the views show. See test_browser.py."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any, cast

import numpy as np
import psutil
import pytest
from matplotlib.colors import to_rgb

from rnnstudy.cells import LSTM, Elman
from rnnstudy.figures.style import style
from rnnstudy.report.mlflow_pages import charts
from rnnstudy.report.mlflow_pages import server as ui
from rnnstudy.report.mlflow_pages.run_pictures import (
    add_missing_pictures,
    description_with_pictures,
    runs_without_pictures,
)
from rnnstudy.run import Run
from rnnstudy.spec import RequestError, flatten
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import StoreError
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series

RUN = Run(task=TemporalOrder(length=10), cell=LSTM(width=3))


@pytest.fixture
def small(project_with_store: Path) -> Project:
    """A store with one finished run that has readings by lag and by time."""
    falling = -np.arange(10.0)[None, None] * np.ones((1, 5, 1))
    through = np.tile(falling[:, :, ::-1], (3, 1, 1))
    series = {
        "profile/h_initial": Series(np.array([0]), falling, ("quantile", "lag"), "log10", 0),
        "through_time/h": Series(np.array([0, 10, 20]), through, ("quantile", "time"), "log10", 10),
        "learning/loss": Series(np.arange(21), np.linspace(1, 0, 21), (), "nats", 1),
    }
    project = Project(project_with_store)
    tracker = MlflowTracker(
        open_store(project), SweepInfo("small", "experiments/small.py", "rnnstudy sweep experiments/small.py")
    )
    tracker.begin(RUN, RUN.name)
    tracker.write(Record(RUN.key, 20, time.time(), series, Outcome("finished", 20, solved=False), {}))
    tracker.close()
    return project


def unpacked(packed: str) -> dict[str, Any]:
    kind, _, text = packed.partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(text)))


def sections(state: dict[str, Any]) -> dict[str, list[str]]:
    """Section to the metrics in it."""
    return {
        section["name"]: [
            chart["metricKey"] for chart in state["compareRunCharts"] if chart["metricSectionId"] == section["uuid"]
        ]
        for section in state["compareRunSections"]
    }


def test_the_next_free_port_is_taken() -> None:
    with socket.create_server((ui.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert port < ui.free_port(port) <= port + ui.PORTS_TRIED
    assert ui.free_port(port) == port


def test_without_a_free_port_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "PORTS_TRIED", 1)
    with socket.create_server((ui.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"no port from {port} to {port} is free; name another one with --port"):
            ui.free_port(port)


def test_without_a_store_one_line_says_what_makes_one(project: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no store at .*mlflow\.db; rnnstudy sweep"):
        ui.serve(Project(project), 5000)


def test_a_link_carries_the_view_that_the_experiment_has_been_given(small: Project) -> None:
    store = Store(small)
    [(name, link, note)] = ui.experiment_links(store, "http://here", "3.17.2")
    [experiment] = [one for one in store.client.search_experiments() if one.name == name]
    assert name == "small"
    assert note == ""
    assert link == (
        f"http://here/#/experiments/{experiment.experiment_id}/runs"
        "?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=rnnstudy"
    )
    state = unpacked(experiment.tags[charts.VIEW_TAG])
    assert sections(state) == {
        "Success and error": ["summary/solved"],
        "Profile (step = lag)": ["profile/h_initial"],
        "Gradient through time": ["through_time/h_first", "through_time/h_last"],
        "Loss and gradient during training": ["learning/loss"],
    }
    assert state["groupBy"] is None, "each run is a line, in the colour of its cell"
    assert state["searchFilter"] == "", "one run needs no choice"


def add(project: Project, *runs: Run, outcome: str = "finished", experiment: str = "small") -> None:
    tracker = MlflowTracker(open_store(project), SweepInfo(experiment, f"experiments/{experiment}.py"))
    for run in runs:
        tracker.begin(run, run.name)
        tracker.write(Record(run.key, 20, time.time(), {}, Outcome(cast(Any, outcome), 20, solved=False), {}))
    tracker.close()


def tagged(store: Store) -> list[str]:
    """The names of the representative runs."""
    return sorted(run.name for run in store.runs() if charts.REPRESENTATIVE in run.tags)


def test_of_more_runs_than_the_page_loads_representative_ones_are_shown(
    small: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "MOST_RUNS", 4)
    store = Store(small)
    add(small, *(RUN.replace(seed=seed) for seed in (3, 1, 2)))
    [(_, _, note)] = ui.experiment_links(store, "http://here", "3.17.2")
    assert (note, tagged(store)) == ("", []), "four runs are loaded anyway"
    # The newest four are all of the Elman cell: the page would not show that there is an LSTM.
    others = [RUN.replace(cell=Elman(width=3), seed=seed) for seed in (4, 0, 3, 1, 2)]
    add(small, others[0], outcome="failed")
    add(small, *others[1:])
    [(_, link, note)] = ui.experiment_links(store, "http://here", "3.17.2")
    assert tagged(store) == [
        "Elman T=10 lr 0.001 s0",
        "Elman T=10 lr 0.001 s1",
        "LSTM T=10 lr 0.001 s0",
        "LSTM T=10 lr 0.001 s1",
    ]
    assert note == "shows 4 of 9 runs, spread over all settings; clear its search for the rest"
    assert "searchFilter" not in link, "with a filter in its link, the page leaves the view aside"
    [experiment] = [one for one in store.experiments() if one.name == "small"]
    assert unpacked(experiment.tags[charts.VIEW_TAG])["searchFilter"] == "tags.\"rnnstudy.representative\" = 'yes'"
    found = store.client.search_runs([experiment.experiment_id], charts.FILTER)
    assert len(found) == 4, "the filter is one that MLflow understands"
    # With another setting there is room for one run of each; forgotten runs make room again.
    longer = RUN.replace(task=TemporalOrder(length=20))
    add(small, longer)
    ui.experiment_links(store, "http://here", "3.17.2")
    assert tagged(store) == ["Elman T=10 lr 0.001 s0", "LSTM T=10 lr 0.001 s0", "LSTM T=20 lr 0.001 s0"]
    store.forget([longer.key, *(run.key for run in others)])
    [(_, _, note)] = ui.experiment_links(store, "http://here", "3.17.2")
    assert (note, tagged(store)) == ("", [])


def test_runs_that_start_while_the_page_is_open_are_included(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "MOST_RUNS", 2)
    monkeypatch.setattr(ui, "SECONDS_BETWEEN_CHECKS", 0.05)
    monkeypatch.setattr(ui, "_version", lambda address: "3.17.2")
    store = Store(small)
    assert store.client
    with ui._in_background(lambda stop: ui._update_views(store, "http://here", stop)):
        time.sleep(0.2)
        add(small, *(RUN.replace(cell=Elman(width=3), seed=seed) for seed in range(2)))
        deadline = time.monotonic() + 30
        while len(tagged(store)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert tagged(store) == ["Elman T=10 lr 0.001 s0", "LSTM T=10 lr 0.001 s0"]


def test_the_experiment_with_the_newest_run_comes_first(small: Project) -> None:
    store = Store(small)
    time.sleep(0.01)
    add(small, RUN.replace(seed=1), experiment="later")
    for _ in range(2):
        # The first time writes the views, which MLflow counts as a change of the experiment.
        assert [link.experiment for link in ui.experiment_links(store, "http://here", "3.17.2")] == ["later", "small"]


def parameters(runs: list[Run]) -> list[dict[str, str]]:
    """What MLflow keeps of them."""
    flat = [{**flatten(run), **run.short_parameters} for run in runs]
    return [{name: str(value) for name, value in one.items() if not name.startswith("probes")} for one in flat]


@pytest.mark.parametrize(
    ("experiment", "first", "rest"),
    [
        ("quickstart", ("learning_rate",), ()),
        ("clipping", ("learning_rate", "training.clip"), ()),
        ("gate_bias", ("initialisation.gate_bias.value",), ()),
        ("truncation", ("training.truncation.window",), ()),
        ("sequence_length", (), ("learning_rate",)),
        ("recurrence_and_depth", (), ("layers",)),
        ("vanishing_to_exploding", ("cell.activation",), ("initialisation.gain",)),
    ],
)
def test_the_parameters_that_tell_runs_apart_are_columns(
    experiment: str, first: tuple[str, ...], rest: tuple[str, ...]
) -> None:
    """The initialisation that is chosen by cell and length says nothing more; dotted paths repeat short names."""
    file = Path(__file__).parents[1] / "experiments" / f"{experiment}.py"
    found = parameters(load_experiment(file).runs(Scale("desk")))
    assert charts.grouping(found) == (("cell", "length", *first), rest)
    state = charts.view_state([], charts.grouping(found)[0])
    assert set(state["selectedColumns"]) >= {f"params.`{name}`" for name in first}


def test_runs_have_the_colours_of_the_reports(small: Project) -> None:
    add(small, RUN.replace(cell=Elman(width=3)), RUN.replace(task=TemporalOrder(length=200)))
    store = Store(small)
    for _ in range(2):
        ui.experiment_links(store, "http://here", "3.17.2")
        tags = {run.name: run.tags for run in store.runs()}
        colours = {name.split(" lr")[0]: to_rgb(one["mlflow.runColor"]) for name, one in tags.items()}
    # The colour of the cell; light for the shorter task, dark for the longer one.
    blue, vermilion = to_rgb(style("LSTM").colour), to_rgb(style("Elman").colour)
    assert colours["LSTM T=200"] == pytest.approx([0.775 * part for part in blue], abs=0.01)
    assert colours["LSTM T=10"] == pytest.approx([0.775 * part + 0.225 for part in blue], abs=0.01)
    assert colours["Elman T=10"] == pytest.approx([0.775 * part + 0.225 for part in vermilion], abs=0.01)
    # One length alone has the colour itself.
    assert charts.colours([{"cell": "LSTM", "length": "50"}]) == [style("LSTM").colour.lower()]


def test_representatives_are_equally_many_of_each_setting_with_the_lowest_seeds() -> None:
    runs = [
        {"cell": cell, "length": length, "learning_rate": rate, "seed": str(seed)}
        for cell in ("Elman", "LSTM")
        for length in ("50", "100")
        for rate in ("0.01", "0.001")
        for seed in reversed(range(15))
    ]
    chosen = [runs[position] for position in charts.representatives(runs, charts.GROUPED_BY)]
    assert len(chosen) == 96
    assert Counter(charts.settings(chosen, ("cell", "length", "learning_rate"))) == Counter(
        {setting: 12 for setting in charts.settings(runs, ("cell", "length", "learning_rate"))}
    )
    assert {run["seed"] for run in chosen} == {str(seed) for seed in range(12)}


def test_with_more_settings_than_the_page_loads_runs_every_line_has_as_many() -> None:
    runs = [
        {"cell": cell, "length": "50", "learning_rate": str(rate), "seed": str(seed)}
        for cell in ("Elman", "GRU", "LSTM")
        for rate in range(90)
        for seed in range(2)
    ]
    chosen = [runs[position] for position in charts.representatives(runs, charts.GROUPED_BY)]
    assert Counter(run["cell"] for run in chosen) == {"Elman": 33, "GRU": 33, "LSTM": 33}
    assert {run["seed"] for run in chosen} == {"0"}
    rates = [int(run["learning_rate"]) for run in chosen if run["cell"] == "GRU"]
    assert max(np.diff(sorted(rates))) <= 3, "spread over all"


def test_a_setting_with_few_runs_gives_all_and_those_that_failed_come_last() -> None:
    runs = [{"cell": "LSTM", "seed": str(seed)} for seed in range(120)] + [{"cell": "GRU", "seed": "7"}]
    chosen = charts.representatives(runs, charts.GROUPED_BY, last=[0, 120])
    assert chosen == [*range(1, 100), 120]


@pytest.mark.parametrize("version", ["3.18.0", "3.1.7", "2.17.0", "4.0.0", ""])
def test_views_are_for_one_minor_version(version: str) -> None:
    assert not charts.supported(version)


def test_with_another_mlflow_the_links_are_plain(small: Project) -> None:
    store = Store(small)
    [(_, link, _)] = ui.experiment_links(store, "http://here", "3.18.0")
    [tags] = [one.tags for one in store.client.search_experiments() if one.name == "small"]
    assert "viewState" not in link
    assert link.endswith("workflowType=machine_learning&compareRunsMode=CHART")
    assert charts.VIEW_TAG not in tags


def test_the_installed_mlflow_is_the_one_that_views_are_known_of() -> None:
    import mlflow

    assert charts.supported(mlflow.__version__), "look at the landing page in a browser, then raise charts.MLFLOW"


def test_every_metric_has_one_chart_and_what_is_not_asked_for_is_folded() -> None:
    """A metric without a chart would get one of MLflow's choice above all others."""
    metrics = [
        *(f"profile/{state}_{stage}" for state in ("h", "c") for stage in ("initial", "final", "final_normalised")),
        *("through_time/h_first", "through_time/c_first", "gradient/global_before", "gradient/b_h_before"),
        *("learning/loss", "learning/error", "summary/solved", "summary/rate_initial", "lyapunov/exponents"),
    ]
    state = charts.view_state(metrics, charts.GROUPED_BY)
    shown = sections(state)
    assert sorted(metric for section in shown.values() for metric in section) == sorted(metrics)
    assert [section["name"] for section in state["compareRunSections"] if not section["display"]] == [charts.REST]
    assert shown[charts.REST] == [
        "gradient/b_h_before",
        "lyapunov/exponents",
        "profile/c_final",
        "profile/h_final",
        "summary/rate_initial",
    ]
    assert shown["Profile (step = lag)"][0] == "profile/h_initial"
    assert next(iter(shown)) == "Success and error"
    identities = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(set(identities)) == len(identities)


def test_layers_have_charts_of_their_own() -> None:
    metrics = ["profile/h_layer1_initial", "profile/h_layer2_initial", "through_time/h_layer2_first"]
    shown = sections(charts.view_state(metrics, charts.GROUPED_BY))
    assert shown == {
        "Profile (step = lag)": ["profile/h_layer1_initial", "profile/h_layer2_initial"],
        "Gradient through time": ["through_time/h_layer2_first"],
    }


def test_pictures_are_drawn_once_and_stand_in_the_description(small: Project) -> None:
    store = Store(small)
    [run] = runs_without_pictures(store)
    before = run.tags[NOTE]
    said: list[str] = []
    assert add_missing_pictures(store, Event(), said.append) == 1
    assert said == []
    assert runs_without_pictures(store) == []
    [after] = store.runs()
    note = after.tags[NOTE]
    assert note.startswith(before)
    for name in ("gradient_by_lag_initial", "gradient_heat_map"):
        assert store.artifact(after, f"pictures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"](get-artifact?path=pictures%2F{name}.png&run_uuid={run.identity})" in note
    assert "gradient_by_lag_final" not in note, "this run has no such reading"
    # Drawn anew in another style, they replace the old ones.
    assert description_with_pictures(after, ["gradient_heat_map"]).startswith(before)
    assert description_with_pictures(after, ["gradient_heat_map"]).count("![") == 1


def test_a_run_whose_file_is_gone_does_not_keep_others_from_their_pictures(small: Project) -> None:
    store = Store(small)
    [run] = store.runs()
    store.artifact(run, "readings.npz").unlink()
    said: list[str] = []
    assert add_missing_pictures(store, Event(), said.append) == 0
    [line] = said
    assert line.startswith("no pictures of LSTM T=10 lr 0.001 s0: ")
    assert "is gone" in line


def test_a_server_that_ends_at_once_is_reported_with_its_log(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RequestError, match=r"MLflow's server ended with exit code 1; .*ui\.log says why"):
        ui.serve(small, 5000, browser=False, pictures=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_it_once(name: str) -> None:
    """A terminal that is closed may send its signal twice; the second must not keep the server from being ended."""
    number, ended = signal.Signals[name], False
    before = signal.getsignal(number)
    with ui.interruptible():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except KeyboardInterrupt:
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            ended = True
    assert ended
    assert signal.getsignal(number) is before


def test_what_was_started_by_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    went_on = False
    try:
        with ui.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            went_on = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert went_on


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_server_answers_prints_the_link_and_ends_with_the_command(small: Project, number: signal.Signals) -> None:
    with socket.create_server((ui.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-c",
            "from rnnstudy.cli import main; main()",
            "ui",
            "--no-browser",
            "--port",
            f"{port}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=small.root) as process:
            assert process.stdout is not None
            try:
                printed = ""
                for line in process.stdout:
                    printed += line
                    if "have their pictures now" in line:
                        break
                assert process.poll() is None, printed
            finally:
                process.send_signal(number)
                process.wait(60)
    assert process.returncode == 0
    first, *_ = printed.splitlines()
    used = int(first.removeprefix(f"port {port} is taken; using "))
    address = f"http://{ui.HOST}:{used}"
    assert f"small  {address}/#/experiments/1/runs?workflowType=machine_learning" in printed
    assert ui._answer(f"{address}/health") is None, "the server outlived its command"


PARENT = """
import subprocess, sys
guard = [sys.executable, "-m", "rnnstudy.report.mlflow_pages.guard"]
program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
child = [sys.executable, "-c", program]
process = subprocess.Popen([*guard, *child], stdin=subprocess.PIPE, start_new_session=True)
print(process.pid, flush=True)
process.wait()
"""


def test_a_guarded_server_ends_with_the_process_that_started_it_however_that_ends() -> None:
    """After kill -9 of `ui`, two processes of the server went on listening."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    guard = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 60
    while len(family := guard.children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.communicate(timeout=120)
    _, alive = psutil.wait_procs([guard, *family], timeout=60)
    assert alive == []


def test_ui_refuses_what_the_other_commands_refuse_and_changes_nothing(project: Path, monkeypatch) -> None:
    """It served, and wrote into, another program's database and one of an older MLflow."""
    database = project / "mlruns" / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE mine (a)")
        connection.commit()
    before = database.read_bytes()
    monkeypatch.setattr(ui, "_server", lambda *_: pytest.fail("no server is started"))
    with pytest.raises(StoreError, match="is an sqlite database, but not MLflow's"):
        ui.serve(Project(project), 5000)
    assert database.read_bytes() == before
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE mine")
        for table in ("experiments", "runs", "alembic_version"):
            connection.execute(f"CREATE TABLE {table} (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
        connection.commit()
    with pytest.raises(StoreError, match="is of an older MLflow"):
        ui.serve(Project(project), 5000)


def test_ui_of_a_copied_project_shows_and_writes_what_lies_in_the_copy(
    small: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Project(Path(shutil.copytree(small.root, tmp_path_factory.mktemp("copies") / "copy")))
    monkeypatch.setattr(ui, "_server", lambda *_: contextlib.nullcontext(None))
    monkeypatch.setattr(ui, "_wait_until_it_answers", interrupted)
    assert ui.serve(copy, 5000, browser=False) == 0
    [run] = Store(copy).runs()
    assert run.artifacts.startswith(copy.artifacts.as_uri())


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_ui_names_a_store_that_is_read_only(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a read-only mount gives; root may write any file whatever its mode.
    uri, connect = f"{small.database.as_uri()}?mode=ro", sqlite3.connect
    monkeypatch.setattr(
        "rnnstudy.store.mlflow_database.sqlite3.connect", lambda *_, **options: connect(uri, **{**options, "uri": True})
    )
    monkeypatch.setattr(ui, "_server", lambda *_: pytest.fail("no server is started"))
    with pytest.raises(StoreError, match=r"mlflow\.db cannot be written; make it writable"):
        ui.serve(small, 5000)


def test_ui_names_a_log_that_cannot_be_written(project_with_store: Path) -> None:
    (project_with_store / "mlruns" / "logs").write_text("a file")
    with pytest.raises(StoreError, match="logs cannot be written"):
        ui.serve(Project(project_with_store), 5000, browser=False, pictures=False)
