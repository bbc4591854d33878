"""MLflow's own UI over the store, opened at views that are made for gradients through time."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rnnstudy.report.mlflow_pages import charts, guard
from rnnstudy.report.mlflow_pages.run_pictures import add_missing_pictures, runs_without_pictures
from rnnstudy.run import runs_in_words
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store.errors import write_error
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
SECONDS_BETWEEN_CHECKS = 60.0

_say = partial(print, flush=True)


def serve(project: Project, port: int, *, browser: bool = True, pictures: bool = True) -> int:
    """Serve MLflow's UI on loopback until Ctrl-C, and print a link to each experiment. Returns the exit code.

    Takes the first free port from `port` on. With `browser`, opens the newest experiment if there is a display; with
    `pictures`, draws the missing pictures of runs in the background. If the store is a server itself, nothing is
    served: the links to its own UI are printed.

    Raises `RequestError` when there is no store, no port is free, or the server ends before it answers; `StoreError`
    for a store that the other commands refuse, too, or that cannot be written.
    """
    store = Store(project)
    if not store.exists:
        raise RequestError(f"there is no store at {store.database}; rnnstudy sweep experiments/quickstart.py makes one")
    if store.uri.startswith("http"):
        # Links are printed and opened: they hold neither user nor password, for which the browser asks.
        address = re.sub(r"//[^/]*@", "//", store.uri.rstrip("/"))
        _say("the store is a server with a UI of its own")
        _print_links(store, address, browser, _version(store.uri.rstrip("/")))
        if pictures:
            _draw_pictures(store, threading.Event())
        return 0
    # Before MLflow sees it: it would change what the other commands refuse.
    store.require_writable()
    store.relocate()
    free = free_port(port)
    if free != port:
        _say(f"port {port} is taken; using {free}")
    address = f"http://{HOST}:{free}"
    with interruptible(), _server(store, free, project.logs / "ui.log") as server:
        try:
            _say("starting MLflow's UI …")
            _wait_until_it_answers(server, address, project.logs / "ui.log")
            _print_links(store, address, browser, _version(address))
            _say("Ctrl-C ends it")
            with (
                _in_background(lambda stop: _update_views(store, address, stop)),
                _in_background(lambda stop: _draw_pictures(store, stop)) if pictures else contextlib.nullcontext(),
            ):
                return server.wait()
        except KeyboardInterrupt:
            return 0


def free_port(port: int) -> int:
    """The first port on loopback, from `port` on, that nothing listens on. Raises `RequestError` if none is free."""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, candidate))
            return candidate
    raise RequestError(f"no port from {port} to {candidate} is free; name another one with --port")


class ExperimentLink(NamedTuple):
    """The address of an experiment's page; `note` names what the page does not show at first, if anything."""

    experiment: str
    url: str
    note: str


def experiment_links(store: Store, address: str, version: str) -> list[ExperimentLink]:
    """A link to every experiment of this package; the experiment with the newest run comes first.

    If the ready-made views are for MLflow's `version`, each experiment is given its view, and the links open it;
    otherwise they open MLflow's ordinary page. In experiments with more runs than the page loads, representative runs
    are tagged, and the view shows those.
    """
    with_view = charts.supported(version)
    links = []
    for experiment in store.experiments():
        if "rnnstudy.experiment_file" not in experiment.tags:
            continue
        runs = store.runs_of(experiment.experiment_id)
        note = _prepare_view(store, experiment, runs) if with_view else ""
        url = charts.experiment_url(address, experiment.experiment_id, with_view=with_view)
        # The experiment's own time of change will not do: writing the view changes it.
        newest = max((run.info.start_time for run in runs), default=0)
        links.append((newest, ExperimentLink(experiment.name, url, note)))
    return [link for _, link in sorted(links, key=lambda pair: pair[0], reverse=True)]


def _prepare_view(store: Store, experiment: "Experiment", runs: "list[MlflowRun]") -> str:
    """Write the view of an experiment, and tag the runs that it shows. Returns a note on what it does not show."""
    parameters = [run.data.params for run in runs]
    told_apart, _ = charts.grouping(parameters)
    filtered = len(runs) > charts.MOST_RUNS
    shown = charts.representatives(parameters, told_apart, _unrepresentative(runs)) if filtered else []
    store.tag_only(charts.REPRESENTATIVE, runs, {runs[position].info.run_id for position in shown})
    store.tag_each(charts.COLOUR_TAG, runs, charts.colours(parameters))
    metrics = {name for run in runs for name in run.data.metrics}
    view = charts.packed_view(metrics, told_apart, filtered=filtered)
    if experiment.tags.get(charts.VIEW_TAG) != view:
        store.tag_experiment(experiment.experiment_id, charts.VIEW_TAG, view)
    if not filtered:
        return ""
    return f"shows {len(shown)} of {len(runs)} runs, spread over all settings; clear its search for the rest"


def _unrepresentative(runs: "list[MlflowRun]") -> Iterator[int]:
    """The positions, among runs given newest first, of those that failed, were pruned, or have a newer attempt."""
    seen = set()
    for position, run in enumerate(runs):
        key = run.data.tags.get("rnnstudy.key")
        if key in seen or state_of(run.data.tags) not in (*COMPLETE, "running"):
            yield position
        else:
            seen.add(key)


def _print_links(store: Store, address: str, browser: bool, version: str) -> None:
    """Print the links, and open the first in the browser."""
    links = experiment_links(store, address, version)
    if links and not charts.supported(version):
        _say(f"this is MLflow {version or 'of an unknown version'}; the ready-made views are for {charts.MLFLOW}")
    if links:
        _say("MLflow's UI, each experiment at its charts:")
    width = max((len(link.experiment) for link in links), default=0)
    for link in links:
        _say(f"  {link.experiment:{width}}  {link.url}")
        if link.note:
            _say(f"  {'':{width}}  ({link.note})")
    if not links:
        _say(f"no experiment has runs yet: {address}/#/experiments?workflowType=machine_learning")
    elif browser and _has_display():
        webbrowser.open(links[0].url)


def _update_views(store: Store, address: str, stop: threading.Event) -> None:
    """Bring the views up to date while a sweep runs: every minute, if the store has changed."""
    version, seen = _version(address), _last_change(store)
    while not stop.wait(SECONDS_BETWEEN_CHECKS):
        # A store that is locked at the moment is tried again a minute later.
        with contextlib.suppress(RnnstudyError, OSError):
            now = _last_change(store)
            if now != seen:
                experiment_links(store, address, version)
                seen = now


def _last_change(store: Store) -> float:
    """When the store was last written, in seconds since 1970; the current time if the store is not a file."""
    return store.database.stat().st_mtime if store.database else time.time()


def _version(address: str) -> str:
    """The version that a server reports; empty if it does not answer."""
    return (_answer(f"{address}/version") or "").strip()


def _has_display() -> bool:
    """Whether a window can be opened. In a remote terminal `webbrowser` would start a text browser."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _draw_pictures(store: Store, stop: threading.Event) -> None:
    waiting = len(runs_without_pictures(store))
    if waiting:
        _say(f"drawing the pictures of {runs_in_words(waiting)}; they appear in the runs' pages one by one")
        done = add_missing_pictures(store, stop, _say)
        if not stop.is_set():
            _say(f"{done} runs have their pictures now")


@contextlib.contextmanager
def _in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` in a thread. At the end its event is set, and it has ten seconds to finish."""
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
    """MLflow's server over the store: one worker, no jobs, no telemetry. It is stopped on exit."""
    command = [sys.executable, "-m", guard.__name__, sys.executable, "-m", "mlflow", "server"]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    # The address of a database may hold a password, and every user of a machine sees command lines.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("wb")
    except OSError as error:
        raise write_error(error, log.parent) from None
    # In a process group of its own, the server does not receive Ctrl-C: this process stops it in order. The guard does
    # so if this process is killed.
    with (
        stream,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            guard.end(process.pid)


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while _answer(f"{address}/health") is None:
        if server.poll() is not None:
            raise RequestError(f"MLflow's server ended with exit code {server.returncode}; {log} says why")
        if time.monotonic() > deadline:
            raise RequestError(f"MLflow's server has not answered for {SECONDS_TO_ANSWER:.0f} s; {log} may say why")
        time.sleep(0.2)


def _answer(url: str) -> str | None:
    """What a server sends; None if it does not answer, or with an error."""
    import requests

    with contextlib.suppress(OSError, ValueError):
        answer = requests.get(url, timeout=10)
        return answer.text if answer.ok else None
    return None
