"""A store of 10,000 runs: seconds of the commands that look into it, against an empty store, and bytes for each run.

Twenty runs with the readings of `loading` are written as a sweep writes them; the others are copies of their rows under
other keys. Seconds are those of whole commands, from the shell and back, the lowest of three.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.loading import LENGTH, STEPS, fill
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.project import Project

RUNS, WRITTEN = 10_000, 20
ROUNDS = 3
LIMIT = 2.0
"""Seconds that a command may take longer than on an empty store."""

TABLES = ("runs", "tags", "params", "latest_metrics")
"""MLflow's tables that are copied. That of the points is not: no command reads it, and it would have 4 GB."""

COMMANDS = ("list experiments/some.py", "sweep experiments/some.py --dry-run")

PLACE = {name: value for name, value in os.environ.items() if name not in ("RNNSTUDY_HOME", "MLFLOW_TRACKING_URI")}
"""The environment, without what would name another store."""

EXPERIMENT = f'''
"""Runs of which the store holds some."""
from rnnstudy.cells import LSTM, Elman
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


def runs(scale):
    base = Run(task=TemporalOrder(length={LENGTH}), cell=Elman(width=50), training=Training(steps={STEPS}))
    return grid(base, {{"cell": [Elman(width=50), LSTM(width=50)]}}, seeds=range(30))
'''


def multiply(database: Path, runs: int) -> None:
    """Copy the rows of every run until the store holds `runs` of them, each with a key of its own."""
    with closing(sqlite3.connect(database)) as connection, connection:
        (present,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        numbered = {
            "run_uuid": "substr(run_uuid, 1, 24) || printf('%08d', number)",
            "artifact_uri": "replace(artifact_uri, run_uuid, substr(run_uuid, 1, 24) || printf('%08d', number))",
        }
        key = "iif(key = 'rnnstudy.key', substr(value, 1, 6) || printf('%06d', number), value)"
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            tagged = {"value": key} if table == "tags" else {}
            copied = ", ".join({**numbered, **tagged}.get(column, f'"{column}"') for column in columns)
            connection.execute(
                f"INSERT INTO {table} WITH RECURSIVE numbers(number) AS "
                "(SELECT 1 UNION ALL SELECT number + 1 FROM numbers LIMIT ?) "
                f"SELECT {copied} FROM {table}, numbers",
                (runs // present - 1,),
            )


def seconds_of(arguments: list[str], home: Project) -> float:
    """Seconds of a command, from the shell and back: the lowest of the rounds."""
    command = [sys.executable, "-c", "from rnnstudy.cli import main; main()", *arguments]
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, cwd=home.root, env=PLACE, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def bytes_of(database: Path) -> int:
    """Bytes of a database that are in use."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT sum(pgsize) FROM dbstat").fetchone()[0]


def measure() -> list[dict[str, Any]]:
    """Each command on an empty store and on a full one, with the bytes that a run takes in the database."""
    with tempfile.TemporaryDirectory(prefix="rnnstudy-size-") as folder:
        stores = {name: Project(Path(folder, name)) for name in ("empty", "full")}
        for home in stores.values():
            assert open_store(home).exists
            (home.root / "experiments").mkdir()
            (home.root / "experiments" / "some.py").write_text(EXPERIMENT)
        before = bytes_of(stores["full"].database)
        fill(stores["full"], WRITTEN)
        size = (bytes_of(stores["full"].database) - before) / WRITTEN / 1024
        with closing(sqlite3.connect(stores["full"].database)) as connection:
            (points,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
        multiply(stores["full"].database, RUNS)
        runs = len(Store(stores["full"]).runs())
        assert runs == RUNS
        rows = []
        for name in COMMANDS:
            seconds = {store: seconds_of(name.split(), home) for store, home in stores.items()}
            rows.append({"command": name, "runs": runs, "seconds": seconds, "limit": LIMIT})
    return [{**row, "kilobytes_per_run": size, "points_per_run": points / WRITTEN} for row in rows]
