"""MLflow's own UI over the store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

from rnnstudy.home import Home
from rnnstudy.spec import SpecError
from rnnstudy.tracking import Store

HOST = "127.0.0.1"


def serve(place: Home, port: int) -> int:
    """Serve MLflow's UI on loopback until Ctrl-C; gives the exit code.

    Raises `SpecError` when there is no store to look at, the store is a server that has a UI of its own, or the port is
    taken.
    """
    store = Store(place)
    if store.uri.startswith("http"):
        raise SpecError(f"MLFLOW_TRACKING_URI names a server, which shows its own UI: open {store.uri}")
    if not store.exists:
        raise SpecError(f"there is no store at {store.database}; rnnstudy sweep experiments/quickstart.py makes one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise SpecError(f"port {port} is taken; name another one, for example --port {port + 1}") from None
    address = f"http://{HOST}:{port}/#/experiments"
    print(f"MLflow's UI, in a few seconds: {address}  (Ctrl-C ends it)")
    for experiment in store.client.search_experiments():
        if "rnnstudy.experiment_file" in experiment.tags:
            # Without this parameter MLflow 3 opens an experiment on its page for language models.
            print(f"  {experiment.name}: {address}/{experiment.experiment_id}/runs?workflowType=machine_learning")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _end(process.pid)


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
