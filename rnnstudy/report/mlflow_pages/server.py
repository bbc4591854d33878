"""MLflow's own UI over the store, opened at views made for gradients through time."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

from rnnstudy.report.mlflow_pages.charts import (
    MLFLOW,
    MOST_RUNS,
    REPRESENTATIVE,
    TAG,
    grouping,
    link,
    representatives,
    supported,
    value,
)
from rnnstudy.spec import SpecError
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.store.stored_run import COMPLETE, state_of
from rnnstudy.sweep.signals import interruptible

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.entities import Run as MlflowRun


HOST = "127.0.0.1"
PORTS_TRIED = 100
SECONDS_TO_ANSWER = 180.0
SECONDS_BETWEEN_LOOKS = 60.0


def serve(project: Project, port: int, *, browser: bool = True, pictures: bool = True) -> int:
    """Serve MLflow's UI on loopback until Ctrl-C, and print a link to each experiment; gives the exit code.

    The first free port from `port` on is taken. With `browser`, the newest experiment is opened where there is a
    display; with `pictures`, those that runs still lack are drawn in the background. Where the store is a server
    already, its links are printed and nothing is served.

    Raises `SpecError` when there is no store to look at, no port is free, or the server ends before it answers.
    """
    store = Store(project)
    if not store.exists:
        raise SpecError(f"there is no store at {store.database}; rnnstudy sweep experiments/quickstart.py makes one")
    if store.uri.startswith("http"):
        address = store.uri.rstrip("/")
        _say(f"the store is a server with a UI of its own: {address}")
        _land(store, address, browser)
        if pictures:
            _draw(store, threading.Event())
        return 0
    free = free_port(port)
    if free != port:
        _say(f"port {port} is taken; using {free}")
    address = f"http://{HOST}:{free}"
    with interruptible(), _server(store, free, project.logs / "ui.log") as server:
        try:
            _say("starting MLflow's UI …")
            _wait_until_it_answers(server, address, project.logs / "ui.log")
            _say(f"MLflow's UI: {address}  (Ctrl-C ends it)")
            _land(store, address, browser)
            with (
                _in_background(lambda stop: _follow(store, address, stop)),
                _in_background(lambda stop: _draw(store, stop)) if pictures else contextlib.nullcontext(),
            ):
                return server.wait()
        except KeyboardInterrupt:
            return 0


def free_port(port: int) -> int:
    """The first port on loopback, from `port` on, that nothing listens on. Raises `SpecError` when none is free."""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, candidate))
            return candidate
    raise SpecError(f"no port from {port} to {candidate} is free; name another one with --port")


class Landing(NamedTuple):
    """Where an experiment is looked at; `note` says what its page does not show at first, if anything."""

    experiment: str
    link: str
    note: str


def landings(store: Store, address: str, version: str) -> list[Landing]:
    """The landing of every experiment of this package, that with the newest run first.

    The links open a ready-made view, which is written to the experiment here, if MLflow's `version` is the one that
    views are known of; otherwise MLflow's page as it comes. In experiments of more runs than the page loads, those that
    stand for all are tagged, and the view shows them.
    """
    with_view = supported(version)
    found = []
    for experiment in store.experiments():
        if "rnnstudy.experiment_file" not in experiment.tags:
            continue
        runs = store.runs_of(experiment.experiment_id)
        note = _prepare(store, experiment, runs) if with_view else ""
        landing = Landing(experiment.name, link(address, experiment.experiment_id, with_view=with_view), note)
        # Not by the experiment's own time of change: a view that is written to it counts there.
        found.append((max((run.info.start_time for run in runs), default=0), landing))
    return [landing for _, landing in sorted(found, key=lambda one: one[0], reverse=True)]


def _prepare(store: Store, experiment: "Experiment", runs: "list[MlflowRun]") -> str:
    """Give an experiment its view, and the tag to the runs in it; gives what the view leaves out, in words."""
    parameters = [run.data.params for run in runs]
    grouped_by, averaged = grouping(parameters)
    filtered = len(runs) > MOST_RUNS
    shown = representatives(parameters, grouped_by, _poor(runs)) if filtered else []
    store.tag_only(REPRESENTATIVE, runs, {runs[position].info.run_id for position in shown})
    metrics = {name for run in runs for name in run.data.metrics}
    made = value(metrics, parameters, grouped_by, filtered=filtered)
    if experiment.tags.get(TAG) != made:
        store.tag_experiment(experiment.experiment_id, TAG, made)
    parts = []
    if filtered:
        parts.append(f"shows {len(shown)} of {len(runs)} runs, spread over all settings; clear its search for the rest")
    if averaged:
        parts.append(f"a line is the mean over {', '.join(averaged)} and seeds")
    return "; ".join(parts)


def _poor(runs: "list[MlflowRun]") -> Iterator[int]:
    """The positions, of runs given newest first, of those that failed or were given up, or were trained again since."""
    seen = set()
    for position, run in enumerate(runs):
        key = run.data.tags.get("rnnstudy.key")
        if key in seen or state_of(run.data.tags) not in (*COMPLETE, "running"):
            yield position
        else:
            seen.add(key)


def _land(store: Store, address: str, browser: bool) -> None:
    """Print the links, and open the first."""
    version = _version(address)
    found = landings(store, address, version)
    if found and not supported(version):
        _say(f"this is MLflow {version or 'of an unknown version'}; the ready-made views are for {MLFLOW}")
    width = max((len(landing.experiment) for landing in found), default=0)
    for landing in found:
        _say(f"  {landing.experiment:{width}}  {landing.link}")
        if landing.note:
            _say(f"  {'':{width}}  ({landing.note})")
    if not found:
        _say("no experiment has runs yet")
    elif browser and _has_display():
        webbrowser.open(found[0].link)


def _follow(store: Store, address: str, stop: threading.Event) -> None:
    """Keep the views in step with a sweep that goes on beside: every minute in which the store has changed."""
    version, seen = _version(address), _changed(store)
    while not stop.wait(SECONDS_BETWEEN_LOOKS):
        # A store that is locked just now will be looked at again.
        with contextlib.suppress(SpecError, OSError):
            now = _changed(store)
            if now != seen:
                landings(store, address, version)
                seen = now


def _changed(store: Store) -> float:
    """When the store was last written, in seconds since 1970; of one that is no file, the time now."""
    return store.database.stat().st_mtime if store.database else time.time()


def _version(address: str) -> str:
    """The version that a server says it has; empty where it does not say."""
    with contextlib.suppress(OSError, ValueError), urlopen(f"{address}/version", timeout=10) as answer:
        return answer.read().decode().strip()
    return ""


def _has_display() -> bool:
    """Whether a window can be opened. In a terminal over a network `webbrowser` would start a text browser in it."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _draw(store: Store, stop: threading.Event) -> None:
    from rnnstudy.report.mlflow_pages.run_pictures import add_missing, missing

    waiting = len(missing(store))
    if waiting:
        _say(f"drawing the pictures of {waiting} runs; their pages show them as they come")
        done = add_missing(store, stop, _say)
        if not stop.is_set():
            _say(f"{done} runs have their pictures now")


@contextlib.contextmanager
def _in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` in a thread beside; at the end it is told to stop, and given the time that one run's pictures take."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@contextlib.contextmanager
def _server(store: Store, port: int, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """MLflow's server over the store: one worker, no jobs, no telemetry. It is ended at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        # A group of its own: Ctrl-C comes to this process alone, which ends the server in an orderly way.
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            _end(process.pid)
            process.wait()


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while not _answers(address):
        if server.poll() is not None:
            raise SpecError(f"MLflow's server ended with exit code {server.returncode}; {log} says why")
        if time.monotonic() > deadline:
            raise SpecError(f"MLflow's server has not answered for {SECONDS_TO_ANSWER:.0f} s; {log} may say why")
        time.sleep(0.2)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urlopen(f"{address}/health", timeout=5) as answer:
        return answer.status == 200
    return False


def _say(line: str) -> None:
    print(line, flush=True)


def _end(pid: int) -> None:
    """End a process and those it started: MLflow's server is a child of its command."""
    import psutil

    if not psutil.pid_exists(pid):
        return
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for one in left:
        one.kill()
