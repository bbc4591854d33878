"""Where runs are kept: MLflow's store, or a folder of files where no store can be reached, brought in later by `sync`.

Exactly one process writes. A run is known by its key; what is needed to decide about it later (its specification, its
probes, the hash of its source, its outcome) is kept in tags named `rnnstudy.…`. The arrays are the truth: MLflow's
metrics are a decimated copy for its interface (see `rnnstudy.decimation`).
"""

import dataclasses
import functools
import json
import logging
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlparse
from urllib.request import Request, url2pathname, urlopen

from rnnstudy.arrays import READINGS, WEIGHTS, write_readings, write_weights
from rnnstudy.decimation import MOST_POINTS, Point, milliseconds, points_of, summary_of, summary_points
from rnnstudy.home import Home
from rnnstudy.records import Outcome, Record, State
from rnnstudy.run import Run
from rnnstudy.spec import SpecError, canonical, flatten, qualified_name, source_hash

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

BUFFERED_POINTS = 1000
"""Points of a run kept back before they are written in one batch: MLflow's own limit for a batch."""

LOCK_SECONDS = 120
COMPLETE = ("finished", "diverged")
TRACKING_URI = "MLFLOW_TRACKING_URI"


def _new_sweep() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@dataclasses.dataclass(frozen=True)
class SweepInfo:
    """What the runs that are launched together have in common.

    Attributes:
        experiment: the MLflow experiment: the stem of the experiment file.
        experiment_file: its path, as the command names it; empty when there is none.
        command: what was typed.
        engine: the engine that trains, until a run's outcome says which it was.
        sweep: identifies this launch.
    """

    experiment: str
    experiment_file: str = ""
    command: str = ""
    engine: str = ""
    sweep: str = dataclasses.field(default_factory=_new_sweep)

    def tags(self) -> dict[str, str]:
        """What each run of the sweep is tagged with: the sweep, this process, and the commit when there is one."""
        tags = {
            "rnnstudy.sweep": self.sweep,
            "rnnstudy.engine": self.engine,
            "rnnstudy.command": self.command,
            **process_tags(),
            "mlflow.source.name": self.experiment_file or self.experiment,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": _commit(self.experiment_file),
        }
        return {name: value for name, value in tags.items() if value}


def process_tags() -> dict[str, str]:
    """Which process writes, so that a later one can tell whether it still lives."""
    import psutil

    return {
        "rnnstudy.host": socket.gethostname(),
        "rnnstudy.pid": str(os.getpid()),
        "rnnstudy.pid_started": f"{psutil.Process().create_time():.2f}",
    }


def _commit(file: str) -> str:
    """The commit checked out where `file` (or else the working directory) lies; empty outside a repository."""
    folder = Path(file).absolute().parent if file else Path.cwd()
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


@dataclasses.dataclass(frozen=True)
class Description:
    """What a store is told about a run when it begins. Plain values, so that it can wait in a file.

    Attributes:
        key, name, experiment: which run it is.
        steps: the most updates it makes.
        parameters: short names and dotted paths of the specification, without the probes (they may differ between two
            parts of an interrupted run, and MLflow's parameters cannot be changed; a tag holds them).
        tags: see the module.
    """

    key: str
    name: str
    experiment: str
    steps: int
    parameters: dict[str, Any]
    tags: dict[str, str]


def describe(run: Run, name: str, experiment: str, sweep_tags: Mapping[str, str]) -> Description:
    flat = {path: value for path, value in flatten(run).items() if path.split(".")[0] != "probes"}
    return Description(
        key=run.key,
        name=name,
        experiment=experiment,
        steps=run.training.steps,
        parameters={**flat, **run.short_parameters},
        tags={
            **sweep_tags,
            "rnnstudy.key": run.key,
            "rnnstudy.outcome": "running",
            "rnnstudy.probes": json.dumps(canonical(run.probes)),
            "rnnstudy.spec": json.dumps(canonical(run)),
            "rnnstudy.source": json.dumps(_sources(run)),
        },
    )


def _sources(run: Run) -> dict[str, str]:
    """Qualified name to source hash of the task, the cell and the probes; classes typed at a prompt have no source."""
    hashes = {}
    for part in (run.task, run.cell, *run.probes):
        try:
            hashes[qualified_name(type(part))] = source_hash(type(part))
        except (OSError, TypeError):
            continue
    return hashes


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A run as it stands in a store.

    Attributes:
        key, name, experiment: which run it is.
        state: how it stands.
        tags: all of them, those of MLflow among them.
        identity: MLflow's run id, or the run's folder.
        artifacts: MLflow's address of its artifacts; empty for a folder.
    """

    key: str
    name: str
    experiment: str
    state: State
    tags: Mapping[str, str]
    identity: str
    artifacts: str = ""

    @property
    def probes(self) -> list[Any]:
        """The probes that were read, as `spec.canonical` describes them."""
        return json.loads(self.tags.get("rnnstudy.probes", "[]"))

    @property
    def sources(self) -> dict[str, str]:
        """Qualified class name to source hash."""
        return json.loads(self.tags.get("rnnstudy.source", "{}"))

    def serves(self, run: Run) -> bool:
        """Whether the probes that `run` asks for are among those that were read."""
        return all(probe in self.probes for probe in cast(list[Any], canonical(run.probes)))

    def warning(self, run: Run) -> str:
        """One line when the source of `run`'s task, cell or probes has changed since; otherwise an empty text."""
        then = self.sources
        changed = [name for name, now in _sources(run).items() if then.get(name, now) != now]
        if not changed:
            return ""
        return f"{self.name} ({self.key}) was made with another source of {', '.join(changed)}; --rerun makes it again"


def _stands(tags: Mapping[str, str]) -> State:
    return cast(State, tags.get("rnnstudy.outcome", "running"))


def _by_key(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """One run for each key, of runs given newest first: the newest complete one, else the newest."""
    chosen: dict[str, StoredRun] = {}
    for run in runs:
        present = chosen.get(run.key)
        if present is None or (run.state in COMPLETE and present.state not in COMPLETE):
            chosen[run.key] = run
    return chosen


@dataclasses.dataclass
class _Open:
    """A run being written: `sent` holds the steps of each metric that the store has or is about to get."""

    description: Description
    identity: str
    sent: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    buffer: list[Point] = dataclasses.field(default_factory=list)

    def fresh(self, points: Iterable[Point]) -> list[Point]:
        """The points that are new, now counted as sent."""
        new = []
        for point in points:
            steps = self.sent.setdefault(point.metric, set())
            if point.step not in steps and len(steps) < MOST_POINTS:
                steps.add(point.step)
                new.append(point)
        return new

    def points(self, record: Record) -> list[Point]:
        """The new points of a record."""
        points = points_of(record.series, self.description.steps, record.time, complete=record.outcome is not None)
        new = self.fresh(points)
        if record.outcome is not None and record.outcome.status in COMPLETE:
            new += self.fresh(summary_points(record.series, record.outcome, record.time))
        return new


def _ending(outcome: Outcome) -> dict[str, str]:
    """The tags that a run ends with."""
    reason = outcome.reason[:1000]
    tags = {"rnnstudy.outcome": outcome.status, "rnnstudy.engine": outcome.engine, "rnnstudy.reason": reason}
    if outcome.solved is not None:
        tags["rnnstudy.solved"] = str(outcome.solved).lower()
    return {name: value for name, value in tags.items() if value}


def run_header(description: Description, record: Record) -> dict[str, Any]:
    """What the manifest of `readings.npz` says about the run; a record without outcome describes a run under way."""
    outcome = record.outcome or Outcome(cast(Any, "running"), record.step)
    told = dataclasses.asdict(outcome)
    return {
        **{field: getattr(description, field) for field in ("key", "name", "experiment", "parameters", "tags")},
        "outcome": {field: value for field, value in told.items() if field != "summary"},
        "summary": summary_of(record.series, outcome),
        "time": record.time,
    }


def _write_arrays(folder: Path, description: Description, record: Record) -> list[Path]:
    """The array files of a run's last record, in `folder`."""
    written = [folder / READINGS]
    write_readings(written[0], run_header(description, record), record.series)
    if record.weights is not None:
        written.append(folder / WEIGHTS)
        write_weights(written[1], record.weights)
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow without telemetry, and without its log of what it does and its warnings about its own dependencies."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _client_at(uri: str) -> "MlflowClient":
    with _quiet():
        from mlflow.tracking import MlflowClient

        _hush()
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _hush() -> None:
    """MLflow sets its loggers to INFO when it is imported, so this comes after."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _all_pages(search: Callable[[str | None], Any]) -> list[Any]:
    """All entities of a paged search; `search` takes a page token."""
    page = search(None)
    found = list(page)
    while page.token:
        page = search(page.token)
        found += page
    return found


class Store:
    """MLflow's store of a project, or the one that `MLFLOW_TRACKING_URI` names.

    Local: an sqlite database, with its artifacts and its lock in the same folder. Nothing is created before something
    is written: reading where there is no store finds nothing. Raises `SpecError`, in one line, for a store that is not
    one, cannot be written or cannot be reached.
    """

    def __init__(self, home: Home) -> None:
        named = os.environ.get(TRACKING_URI, "")
        scheme = urlparse(named).scheme.partition("+")[0]
        if named and scheme in ("", "file"):
            raise SpecError(
                f"{TRACKING_URI} is {named!r}: MLflow 3 keeps no runs in plain folders; "
                "unset it, or name a database (sqlite:////absolute/path.db) or a server (http://…)"
            )
        if scheme == "sqlite" and ":///" not in named:
            raise SpecError(f"{TRACKING_URI} is {named!r}, which names no file; sqlite:////absolute/path.db does")
        self.database: Path | None = None
        if not named or scheme == "sqlite":
            path = home.database if not named else Path(named.split(":///", 1)[-1])
            self.database = path.expanduser().absolute()
        self.uri = f"sqlite:///{self.database}" if self.database else named
        self.artifacts: Path | None = None
        if self.database:
            self.artifacts = self.database.parent / "artifacts"
        elif scheme in ("postgresql", "mysql", "mssql"):
            self.artifacts = home.artifacts.absolute()

    # Connecting

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self.database is None or (self.database.exists() and self.database.stat().st_size > 0)

    @functools.cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client; on first contact the database is made, under a lock. Raises `SpecError`: see the class."""
        if self.database is not None:
            if not self.exists:
                with self.locked():
                    if not self.exists:
                        _initialise(self.database)
            _check_database(self.database)
        elif urlparse(self.uri).scheme in ("http", "https"):
            _check_server(self.uri)
        with self._told():
            return _client_at(self.uri)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the processes that use this store. A server has its own locks."""
        from filelock import FileLock, Timeout

        if self.database is None:
            yield
            return
        _require_folder(self.database.parent)
        lock = self.database.parent / "mlflow.lock"
        try:
            with FileLock(str(lock), timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise SpecError(f"{lock} has been held by another process for {LOCK_SECONDS} s; end it first") from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A fault of the store as one line."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _quiet():
                yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SpecError(f"the MLflow store {self.uri} does not answer as it should: {reason}") from None

    # Reading

    def _search(self, filter_string: str) -> "list[tuple[MlflowRun, str]]":
        """MLflow's runs that a filter matches, newest first, with the names of their experiments."""
        if not self.exists:
            return []
        client = self.client
        with self._told():
            experiments = _all_pages(lambda token: client.search_experiments(page_token=token))
            names = {experiment.experiment_id: experiment.name for experiment in experiments}
            order = ["attributes.start_time DESC"]
            runs = _all_pages(
                lambda token: client.search_runs(
                    list(names), filter_string, max_results=1000, order_by=order, page_token=token
                )
            )
        return [(run, names[run.info.experiment_id]) for run in runs]

    def runs(self, key: str | None = None) -> list[StoredRun]:
        """The runs of this package, newest first; those of one key when it is given."""
        condition = "LIKE '%'" if key is None else f"= '{key}'"
        return [
            StoredRun(
                key=run.data.tags["rnnstudy.key"],
                name=run.info.run_name or "",
                experiment=experiment,
                state=_stands(run.data.tags),
                tags=run.data.tags,
                identity=run.info.run_id,
                artifacts=run.info.artifact_uri or "",
            )
            for run, experiment in self._search(f'tags."rnnstudy.key" {condition}')
        ]

    def finished(self) -> dict[str, StoredRun]:
        """The complete runs by key: finished or diverged, and not deleted."""
        return {key: run for key, run in _by_key(self.runs()).items() if run.state in COMPLETE}

    def states(self, keys: Iterable[str]) -> dict[str, State]:
        known = _by_key(self.runs())
        return {key: known[key].state if key in known else "absent" for key in keys}

    def artifact(self, run: StoredRun, name: str) -> Path:
        """A local file with the artifact `name`. Raises `SpecError` when it is gone."""
        if urlparse(run.artifacts).scheme == "file":
            path = Path(url2pathname(urlparse(run.artifacts).path)) / name
            moved = (self.artifacts or path) / run.identity / "artifacts" / name
            path = path if path.exists() else moved
            if not path.exists():
                raise SpecError(f"{path} is gone; `rnnstudy forget {run.key}` and sweep again")
            return path
        with self._told():
            return Path(self.client.download_artifacts(run.identity, name, tempfile.mkdtemp(prefix="rnnstudy-")))

    # Writing

    def require_writable(self) -> None:
        """Raises `SpecError` unless runs can be written. Nothing is left behind."""
        if self.database is None:
            return
        _require_folder(self.database.parent)
        if self.database.exists() and not os.access(self.database, os.W_OK):
            raise SpecError(f"{self.database} cannot be written; make it writable, or move it aside")

    def experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """MLflow's id of the experiment `name`, made on first use."""
        client = self.client
        location = self.artifacts.as_uri() if self.artifacts else None
        with self.locked(), self._told():
            found = client.get_experiment_by_name(name)
            if found is None:
                return client.create_experiment(name, artifact_location=location, tags=dict(tags))
            if found.lifecycle_stage == "deleted":
                # Restoring revives the runs that were deleted with the experiment; deleted runs are to be absent.
                client.restore_experiment(found.experiment_id)
                for run in _all_pages(lambda token: client.search_runs([found.experiment_id], page_token=token)):
                    client.delete_run(run.info.run_id)
            if self.database and location and found.artifact_location not in (location, None):
                _relocate(self.database, found.experiment_id, found.artifact_location, location)
            return found.experiment_id

    def unfinished(self, description: Description) -> "MlflowRun | None":
        """The newest run of this key and experiment that has not ended well."""
        for run, experiment in self._search(f"tags.\"rnnstudy.key\" = '{description.key}'"):
            if experiment == description.experiment and _stands(run.data.tags) not in COMPLETE:
                return run
        return None

    def sent(self, run: "MlflowRun") -> dict[str, set[int]]:
        """The steps of each metric that the store has."""
        with self._told():
            history = self.client.get_metric_history
            return {name: {metric.step for metric in history(run.info.run_id, name)} for name in run.data.metrics}

    def start(self, description: Description, experiment_id: str) -> _Open:
        """Resume the unfinished run of this key, or make one."""
        from mlflow.entities import Param, RunTag

        present = self.unfinished(description)
        client = self.client
        with self._told():
            if present is None:
                made = client.create_run(experiment_id, tags=description.tags, run_name=description.name)
                opened = _Open(description, made.info.run_id)
            else:
                opened = _Open(description, present.info.run_id, self.sent(present))
                for stale in {"rnnstudy.reason", "rnnstudy.solved"} & present.data.tags.keys():
                    client.delete_tag(opened.identity, stale)
                client.update_run(opened.identity, status="RUNNING")
            # Written again on a resume: the process may have died before it could write them.
            parameters = [Param(name, str(value)) for name, value in description.parameters.items()]
            tags = [RunTag(name, value) for name, value in description.tags.items()]
            client.log_batch(opened.identity, params=parameters, tags=tags)
        return opened

    def send(self, opened: _Open) -> None:
        """Write what is buffered."""
        from mlflow.entities import Metric

        if opened.buffer:
            metrics = [Metric(point.metric, point.value, point.time, point.step) for point in opened.buffer]
            with self._told():
                self.client.log_batch(opened.identity, metrics=metrics)
            opened.buffer.clear()

    def end(
        self, opened: _Open, tags: Mapping[str, str], files: Sequence[Path] = (), time: float | None = None
    ) -> None:
        """Write what is buffered, then the artifacts, then the tags that say how the run ended."""
        from mlflow.entities import RunTag

        self.send(opened)
        with self._told():
            for file in files:
                self.client.log_artifact(opened.identity, str(file))
            self.client.log_batch(opened.identity, tags=[RunTag(name, value) for name, value in tags.items()])
            ended = None if time is None else milliseconds(time)
            self.client.set_terminated(opened.identity, _mlflow_status(_stands(tags)), end_time=ended)

    def forget(self, keys: Iterable[str]) -> int:
        """Delete these runs, as MLflow's own page does; gives how many were there."""
        wanted = set(keys)
        doomed = [run for run in self.runs() if run.key in wanted]
        for run in doomed:
            with self._told():
                self.client.delete_run(run.identity)
        return len(doomed)

    def mend(self) -> int:
        """Runs that a process of this host left RUNNING when it died become KILLED; gives how many."""
        mended = 0
        for run, _ in self._search("attributes.status = 'RUNNING' and tags.\"rnnstudy.key\" LIKE '%'"):
            tags = run.data.tags
            if tags.get("rnnstudy.host") != socket.gethostname() or _alive(tags):
                continue
            state = _stands(tags)
            with self._told():
                if state == "running":
                    state = "interrupted"
                    self.client.set_tag(run.info.run_id, "rnnstudy.outcome", state)
                self.client.set_terminated(run.info.run_id, _mlflow_status(state))
            mended += 1
        return mended


def _mlflow_status(state: State) -> str:
    return {"finished": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")


def _alive(tags: Mapping[str, str]) -> bool:
    """Whether the process that a run was tagged with still lives; a process id alone may have been given anew."""
    import psutil

    try:
        process = psutil.Process(int(tags["rnnstudy.pid"]))
        started = abs(process.create_time() - float(tags["rnnstudy.pid_started"])) < 2
        return started and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, ValueError, psutil.NoSuchProcess):
        return False
    except psutil.AccessDenied:
        return True


def _require_folder(folder: Path) -> None:
    """Make the folder of a store; raises `SpecError` when it is not one or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise SpecError(
            f"{folder} cannot hold the store ({reason}); make it a folder that you may write, or set RNNSTUDY_HOME"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{folder} cannot be written; make it writable, or set RNNSTUDY_HOME to another project")


def _check_database(path: Path) -> None:
    """Raises `SpecError` for a file that is not MLflow's database, or is of another schema than the installed MLflow's.

    MLflow itself would add its tables to a foreign database.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    aside = f"move it aside (mv {path} {path}.old) or put it right, and start again"
    try:
        # mode=rw and not ro: a writer that was killed may have left a journal to roll back.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=20)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "alembic_version"} <= tables:
                raise SpecError(f"{path} is an sqlite database, but not MLflow's; {aside}")
            revision = next((row[0] for row in connection.execute("SELECT version_num FROM alembic_version")), None)
    except sqlite3.DatabaseError as error:
        raise SpecError(f"{path} is not a sound sqlite database ({error}); {aside}") from None
    installed, known = _schema_revisions()
    if revision == installed:
        return
    if revision in known:
        raise SpecError(f"{path} is of an older MLflow; copy it, then run: mlflow db upgrade sqlite:///{path}")
    raise SpecError(f"{path} is of a newer MLflow (schema {revision}); install that MLflow, or {aside}")


@functools.cache
def _schema_revisions() -> tuple[str | None, frozenset[str]]:
    """The installed MLflow's schema, and all that it has had before."""
    with _quiet():
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory(str(package_files("mlflow").joinpath("store", "db_migrations")))
        return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def _initialise(database: Path) -> None:
    """Make MLflow's database beside its place and move it there, so that a kill leaves no half-made one."""
    unfinished = database.with_name(f".{database.name}.{os.getpid()}")
    try:
        with _quiet():
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            _hush()
            artifacts = (database.parent / "artifacts").as_uri()
            SqlAlchemyStore(f"sqlite:///{unfinished}", artifacts).engine.dispose()
        os.replace(unfinished, database)
    finally:
        unfinished.unlink(missing_ok=True)


def _relocate(database: Path, experiment_id: str, old: str, new: str) -> None:
    """Follow a project folder that was moved: MLflow stores absolute addresses and has no call to change them."""
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, int(experiment_id), len(old) + 1, old + "/"),
        )
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, int(experiment_id))
        )


def _check_server(uri: str) -> None:
    """Raises `SpecError` when nothing answers: MLflow's own client would try for minutes."""
    from urllib.error import HTTPError

    remedy = f"start it, or unset {TRACKING_URI} to use the project's own store"
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health"), timeout=10):
            pass
    except HTTPError as error:
        # Anything but a gateway's complaint is an answer: not every server has this page.
        if error.code in (502, 503, 504):
            raise SpecError(f"the MLflow server {uri} cannot be reached ({error}); {remedy}") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"the MLflow server {uri} cannot be reached ({error}); {remedy}") from None


def open_store(home: Home, info: SweepInfo) -> "MlflowTracker":
    """A tracker that writes the runs of one sweep to the store; the store and its experiment exist afterwards.

    Raises `SpecError` when the store cannot be used, before anything is written.
    """
    store = Store(home)
    store.require_writable()
    return MlflowTracker(store, info)


class MlflowTracker:
    """The one buffered writer of a sweep into MLflow's store (see `tracker.Tracker`)."""

    def __init__(self, store: Store, info: SweepInfo) -> None:
        self.store = store
        self.info = info
        self._tags = info.tags()
        self._experiment = store.experiment(info.experiment, _experiment_tags(info))
        self._open: dict[str, _Open] = {}

    def finished(self) -> dict[str, StoredRun]:
        """The complete runs of the whole store by key, whichever experiment made them."""
        return self.store.finished()

    def states(self, keys: Iterable[str]) -> dict[str, State]:
        return self.store.states(keys)

    def forget(self, keys: Iterable[str]) -> int:
        return self.store.forget(keys)

    def mend(self) -> int:
        return self.store.mend()

    def begin(self, run: Run, name: str) -> None:
        self._open[run.key] = self.store.start(describe(run, name, self.info.experiment, self._tags), self._experiment)

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        opened.buffer += opened.points(record)
        if record.outcome is not None:
            with tempfile.TemporaryDirectory(prefix="rnnstudy-") as folder:
                files = _write_arrays(Path(folder), opened.description, record)
                self.store.end(opened, _ending(record.outcome), files, record.time)
            del self._open[record.key]
        elif len(opened.buffer) >= BUFFERED_POINTS:
            self.store.send(opened)

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can go on later. One that is not being written is left as it is."""
        opened = self._open.pop(key, None)
        if opened is not None:
            self.store.end(opened, {"rnnstudy.outcome": "interrupted"})

    def close(self) -> None:
        for opened in self._open.values():
            self.store.send(opened)


def _experiment_tags(info: SweepInfo) -> dict[str, str]:
    """The first makes MLflow's page treat the runs as trainings of models."""
    tags = {"mlflow.experimentKind": "custom_model_development", "rnnstudy.experiment_file": info.experiment_file}
    return {name: value for name, value in tags.items() if value}


class OfflineTracker:
    """Keeps the same records in files, one folder for each run, where no store can be reached (see `tracker.Tracker`).

    `<folder>/<key>/`: `run.json` says what it is, `points.jsonl` gets a line for each record, `readings.npz` and
    `weights.npz` come at the end, `ending.json` last. Needs neither MLflow nor pandas. `sync` brings the runs in.
    """

    def __init__(self, folder: Path, info: SweepInfo) -> None:
        _require_folder(folder)
        self.folder = folder
        self.info = info
        self._tags = info.tags()
        self._open: dict[str, _Open] = {}

    def finished(self) -> dict[str, StoredRun]:
        return {run.key: run for run in map(_stored_offline, _offline_runs(self.folder)) if run.state in COMPLETE}

    def states(self, keys: Iterable[str]) -> dict[str, State]:
        known = {run.key: run for run in map(_stored_offline, _offline_runs(self.folder))}
        return {key: known[key].state if key in known else "absent" for key in keys}

    def forget(self, keys: Iterable[str]) -> int:
        doomed = [folder for folder in (self.folder / key for key in set(keys)) if (folder / "run.json").exists()]
        for folder in doomed:
            (folder / "run.json").unlink()
            shutil.rmtree(folder)
        return len(doomed)

    def mend(self) -> int:
        """Nothing to do: a folder without `ending.json` is a run that was interrupted."""
        return 0

    def begin(self, run: Run, name: str) -> None:
        folder = self.folder / run.key
        if _ending_of(folder).get("rnnstudy.outcome") in COMPLETE:
            self.forget([run.key])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ending.json").unlink(missing_ok=True)
        opened = _Open(describe(run, name, self.info.experiment, self._tags), str(folder))
        whole = _points_in(folder)
        opened.fresh(whole)
        # Rewritten without the line that a kill may have cut.
        _write_text(folder / "points.jsonl", "".join(_line([point]) for point in whole))
        _write_text(folder / "run.json", json.dumps(dataclasses.asdict(opened.description), indent=1))
        self._open[run.key] = opened

    def write(self, record: Record) -> None:
        opened = self._open[record.key]
        folder = Path(opened.identity)
        points = opened.points(record)
        if points:
            with (folder / "points.jsonl").open("a", encoding="utf-8") as file:
                file.write(_line(points))
        if record.outcome is not None:
            _write_arrays(folder, opened.description, record)
            ending = {"tags": _ending(record.outcome), "time": record.time}
            _write_text(folder / "ending.json", json.dumps(ending, indent=1))
            del self._open[record.key]

    def interrupt(self, key: str) -> None:
        """A run without `ending.json` counts as interrupted."""
        self._open.pop(key, None)

    def close(self) -> None:
        """Nothing to do: each record is in its file at once."""


def _line(points: Sequence[Point]) -> str:
    return json.dumps([list(point) for point in points]) + "\n"


def _points_in(folder: Path) -> list[Point]:
    """The points of a run that was tracked offline; a last line that was cut by a kill is left out."""
    path = folder / "points.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Point(metric, step, value, time) for line in lines for metric, step, value, time in json.loads(line)]


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _ending_of(folder: Path) -> dict[str, str]:
    """The tags that a run tracked offline ended with; none when it has not."""
    path = folder / "ending.json"
    return json.loads(path.read_text(encoding="utf-8"))["tags"] if path.exists() else {}


def _offline_runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/run.json"))


def _description_in(folder: Path) -> Description:
    try:
        return Description(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(f"{folder / 'run.json'} is not a run that was tracked offline ({error})") from None


def _stored_offline(folder: Path) -> StoredRun:
    described = _description_in(folder)
    tags = {**described.tags, "rnnstudy.outcome": "interrupted", **_ending_of(folder)}
    return StoredRun(described.key, described.name, described.experiment, _stands(tags), tags, str(folder))


@dataclasses.dataclass(frozen=True)
class SyncReport:
    """What `sync` did: the keys it added, those it brought further, and those that the store already had."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]


def sync(folders: Iterable[Path], home: Home) -> SyncReport:
    """Bring runs that were tracked offline into the store of `home`. A second time changes nothing.

    Runs that have not ended come in as interrupted. Runs that are complete in the store with the same probes, and runs
    that are being written at this moment, are left alone. Raises `SpecError` for a folder that holds no runs.
    """
    found = []
    for folder in folders:
        runs = _offline_runs(folder)
        if not runs:
            raise SpecError(f"{folder} holds no runs; name the folder that the offline sweep wrote")
        found += [(run, _description_in(run)) for run in runs]
    store = Store(home)
    store.require_writable()
    store.mend()
    done: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": []}
    for run_folder, described in found:
        done[_sync_one(store, run_folder, described)].append(described.key)
    return SyncReport(**{how: tuple(keys) for how, keys in done.items()})


def _sync_one(store: Store, folder: Path, described: Description) -> str:
    ending, points = _ending_of(folder), _points_in(folder)
    for known in store.runs(described.key):
        covered = all(probe in known.probes for probe in json.loads(described.tags["rnnstudy.probes"]))
        if known.state == "running" or (known.state in COMPLETE and covered):
            return "unchanged"
    present = store.unfinished(described)
    if present is not None and not _brings_more(store, present, ending, points):
        return "unchanged"
    info = SweepInfo(described.experiment, described.tags.get("mlflow.source.name", ""))
    # While it is being brought in, the run belongs to this process, so that it can be mended; then to its own again.
    borrowed = dataclasses.replace(described, tags={**described.tags, **process_tags()})
    opened = store.start(borrowed, store.experiment(described.experiment, _experiment_tags(info)))
    opened.buffer += opened.fresh(points)
    files = [path for path in (folder / READINGS, folder / WEIGHTS) if ending and path.exists()]
    tags = {**described.tags, "rnnstudy.outcome": "interrupted", **ending}
    store.end(opened, tags, files, max((point.time for point in points), default=0) / 1000)
    return "added" if present is None else "updated"


def _brings_more(store: Store, present: "MlflowRun", ending: Mapping[str, str], points: Sequence[Point]) -> bool:
    """Whether an offline run has an ending or points that the store's run has not."""
    if ending and ending.get("rnnstudy.outcome") != _stands(present.data.tags):
        return True
    sent = store.sent(present)
    return any(point.step not in sent.get(point.metric, ()) for point in points)
