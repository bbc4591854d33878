"""Where runs are kept: MLflow's store. Where none can be reached, `rnnstudy.store.offline` keeps the same in files.

Exactly one process writes. A run is known by its key; what is needed to decide about it later (its specification, its
probes, the hash of its source, its outcome) is kept in tags named `rnnstudy.…`. The arrays are the truth: MLflow's
metrics are a decimated copy for its interface (see `rnnstudy.store.decimation`).
"""

import functools
import json
import os
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import Request, url2pathname, urlopen

import numpy as np

from rnnstudy.spec import SpecError
from rnnstudy.store.decimation import milliseconds
from rnnstudy.store.description import NOTE
from rnnstudy.store.errors import StoreUnavailable
from rnnstudy.store.mlflow_database import _check_database, _hush, _initialise, _opened, _quiet, _relocate, _try_writing
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.owner import Owner
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import Description
from rnnstudy.store.stored_run import (
    COMPLETE,
    StoredRun,
    attempts_of,
    failures_of,
    newest_complete,
    require_folder,
    state_of,
)
from rnnstudy.store.tracker import Failures
from rnnstudy.training.records import RunState

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Experiment
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient


LOCK_SECONDS = 120


REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "BAD_REQUEST")
"""What MLflow's errors say of a request that will never succeed; any other may succeed later."""

TRACKING_URI = "MLFLOW_TRACKING_URI"


def _client_at(uri: str) -> "MlflowClient":
    with _quiet():
        from mlflow.tracking import MlflowClient

        _hush()
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


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

    def __init__(self, project: Project) -> None:
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
            path = project.database if not named else Path(named.split(":///", 1)[-1])
            self.database = path.expanduser().absolute()
        self.uri = f"sqlite:///{self.database}" if self.database else named
        self.artifacts: Path | None = None
        if self.database:
            self.artifacts = self.database.parent / "artifacts"
        elif scheme in ("postgresql", "mysql", "mssql"):
            self.artifacts = project.artifacts.absolute()

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
        require_folder(self.database.parent)
        lock = self.database.parent / "mlflow.lock"
        try:
            with FileLock(str(lock), timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise SpecError(f"{lock} has been held by another process for {LOCK_SECONDS} s; end it first") from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A fault of the store as one line: `StoreFault` where it may answer later, otherwise `SpecError`."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _quiet():
                yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, MlflowException) and error.error_code in REFUSALS:
                raise SpecError(f"the MLflow store {self.uri} refuses: {reason}") from None
            raise StoreUnavailable(f"the MLflow store {self.uri} does not answer as it should: {reason}") from None

    # Reading

    def _search(self, filter_string: str) -> "list[tuple[MlflowRun, str]]":
        """MLflow's runs that a filter matches, newest first, with the names of their experiments."""
        if not self.exists:
            return []
        client = self.client
        with self._told():
            names = {experiment.experiment_id: experiment.name for experiment in self.experiments()}
            order = ["attributes.start_time DESC"]
            runs = _all_pages(
                lambda token: client.search_runs(
                    list(names), filter_string, max_results=1000, order_by=order, page_token=token
                )
            )
        return [(run, names[run.info.experiment_id]) for run in runs]

    def runs(self, key: str | None = None, *, only_running: bool = False) -> list[StoredRun]:
        """The runs of this package, newest first; those of one key, or those that MLflow shows as running, if asked."""
        if self.database is not None:
            return self._read(key, only_running)
        condition = 'tags."rnnstudy.key" ' + ("LIKE '%'" if key is None else f"= '{key}'")
        if only_running:
            condition += " and attributes.status = 'RUNNING'"
        return [
            StoredRun(
                key=run.data.tags["rnnstudy.key"],
                name=run.info.run_name or "",
                experiment=experiment,
                state=state_of(run.data.tags),
                tags=run.data.tags,
                identity=run.info.run_id,
                artifacts=run.info.artifact_uri or "",
            )
            for run, experiment in self._search(condition)
        ]

    def _read(self, key: str | None, only_running: bool) -> list[StoredRun]:
        """As `runs`, from the local database's own tables.

        MLflow's client makes an object of every metric and parameter of every run: for 200 runs that takes half a
        second, for a study's store many times that; and importing MLflow takes more than a second by itself.
        """
        if not self.exists:
            return []
        wanted = "SELECT run_uuid FROM tags WHERE key = 'rnnstudy.key'" + (" AND value = ?" if key is not None else "")
        of_runs = f"""
            SELECT runs.run_uuid, runs.name, experiments.name, runs.artifact_uri FROM runs JOIN experiments
            ON runs.experiment_id = experiments.experiment_id
            WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
            {"AND runs.status = 'RUNNING'" if only_running else ""}
            AND runs.run_uuid IN ({wanted}) ORDER BY runs.start_time DESC, runs.run_uuid
        """
        given = () if key is None else (key,)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        with self._tables() as tables:
            found = tables.execute(of_runs, given).fetchall()
            for run, name, value in tables.execute(
                f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({wanted})", given
            ):
                tags[run][name] = value
        return [
            StoredRun(tags[run]["rnnstudy.key"], name or "", experiment, state_of(tags[run]), tags[run], run, artifacts)
            for run, name, experiment, artifacts in found
        ]

    @contextmanager
    def _tables(self) -> Iterator[sqlite3.Connection]:
        """One view of all tables of the local database, whatever is written meanwhile."""
        assert self.database is not None
        _check_database(self.database)
        try:
            with closing(_opened(self.database)) as connection, connection:
                connection.execute("BEGIN")
                yield connection
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"the MLflow store {self.uri} does not answer as it should: {error}") from None

    def finished(self) -> dict[str, StoredRun]:
        """The complete runs by key: finished or diverged, and not deleted."""
        return {key: run for key, run in newest_complete(self.runs()).items() if run.state in COMPLETE}

    def failures(self) -> dict[str, Failures]:
        """How often each run has failed that has not ended well, by key."""
        return failures_of(self.runs())

    def states(self, keys: Iterable[str]) -> dict[str, RunState]:
        known = newest_complete(self.runs())
        return {key: known[key].state if key in known else "absent" for key in keys}

    def experiments(self) -> "list[Experiment]":
        client = self.client
        with self._told():
            return _all_pages(lambda token: client.search_experiments(page_token=token))

    def runs_of(self, experiment_id: str) -> "list[MlflowRun]":
        """The runs of an experiment with parameters, tags and last metrics, newest first."""
        client = self.client
        order = ["attributes.start_time DESC"]
        with self._told():
            return _all_pages(
                lambda token: client.search_runs([experiment_id], max_results=1000, order_by=order, page_token=token)
            )

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
        require_folder(self.database.parent)
        if self.database.exists() and not os.access(self.database, os.W_OK):
            raise SpecError(f"{self.database} cannot be written; make it writable, or move it aside")
        if self.exists:
            _check_database(self.database)
            _try_writing(self.database)

    def experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """MLflow's id of the experiment `name`, made on first use."""
        location = self.artifacts.as_uri() if self.artifacts else None
        if (standing := self._standing(name, tags, location)) is not None:
            return standing
        client = self.client
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
            for tag, value in tags.items():
                if tag not in found.tags:
                    client.set_experiment_tag(found.experiment_id, tag, value)
            return found.experiment_id

    def _standing(self, name: str, tags: Mapping[str, str], location: str | None) -> str | None:
        """The id of a local experiment that needs nothing done; None where MLflow has to be asked."""
        if self.database is None or not self.exists:
            return None
        with self._tables() as tables:
            found = tables.execute(
                "SELECT experiment_id FROM experiments "
                "WHERE name = ? AND artifact_location = ? AND lifecycle_stage = 'active'",
                (name, location),
            ).fetchone()
            if found is None:
                return None
            has = {tag for (tag,) in tables.execute("SELECT key FROM experiment_tags WHERE experiment_id = ?", found)}
        return str(found[0]) if tags.keys() <= has else None

    def unfinished(self, description: Description) -> "MlflowRun | None":
        """The newest run of this key and experiment that has not ended well."""
        for run, experiment in self._search(f"tags.\"rnnstudy.key\" = '{description.key}'"):
            if experiment == description.experiment and state_of(run.data.tags) not in COMPLETE:
                return run
        return None

    def sent(self, run: "MlflowRun") -> dict[str, set[int]]:
        """The steps of each metric that the store has."""
        with self._told():
            history = self.client.get_metric_history
            return {name: {metric.step for metric in history(run.info.run_id, name)} for name in run.data.metrics}

    def start(self, description: Description, experiment_id: str, time: float | None = None) -> OpenRun:
        """Resume the unfinished run of this key, or make one that began at `time`, in seconds since 1970, or now."""
        from mlflow.entities import Param, RunTag

        present = self.unfinished(description)
        client = self.client
        with self._told():
            if present is None:
                began = None if time is None else milliseconds(time)
                made = client.create_run(experiment_id, began, tags=description.tags, run_name=description.name)
                opened = OpenRun(description, made.info.run_id)
            else:
                attempts = attempts_of(present.data.tags)
                opened = OpenRun(description, present.info.run_id, self.sent(present), attempts=attempts)
                for stale in {"rnnstudy.reason", "rnnstudy.solved"} & present.data.tags.keys():
                    client.delete_tag(opened.identity, stale)
                client.update_run(opened.identity, status="RUNNING")
            # Written again on a resume: the process may have died before it could write them.
            parameters = [Param(name, str(value)) for name, value in description.parameters.items()]
            # A description that someone has changed since is left as it is.
            kept = {NOTE} & present.data.tags.keys() if present else set()
            tags = [RunTag(name, value) for name, value in description.tags.items() if name not in kept]
            client.log_batch(opened.identity, params=parameters, tags=tags)
            upload_documents(client, opened.identity, description.papers, description.data_set)
        return opened

    def send(self, opened: OpenRun) -> None:
        """Write what is buffered."""
        from mlflow.entities import Metric

        if opened.buffer:
            metrics = [Metric(point.metric, point.value, point.time, point.step) for point in opened.buffer]
            with self._told():
                self.client.log_batch(opened.identity, metrics=metrics)
            opened.buffer.clear()

    def end(
        self, opened: OpenRun, tags: Mapping[str, str], files: Sequence[Path] = (), time: float | None = None
    ) -> None:
        """Write what is buffered, then the artifacts, then the tags that say how the run ended."""
        from mlflow.entities import RunTag

        self.send(opened)
        with self._told():
            for file in files:
                self.client.log_artifact(opened.identity, str(file))
            self.client.log_batch(opened.identity, tags=[RunTag(name, value) for name, value in tags.items()])
            ended = None if time is None else milliseconds(time)
            self.client.set_terminated(opened.identity, _mlflow_status(state_of(tags)), end_time=ended)

    def keep(self, run: StoredRun, folder: str, files: Sequence[Path], tags: Mapping[str, str]) -> None:
        """Add artifacts to a run, in a folder of their own, and then tags."""
        with self._told():
            for file in files:
                self.client.log_artifact(run.identity, str(file), folder)
            for name, value in tags.items():
                self.client.set_tag(run.identity, name, value)

    def tag_experiment(self, experiment_id: str, name: str, value: str) -> None:
        client = self.client
        with self._told():
            client.set_experiment_tag(experiment_id, name, value)

    def tag_only(self, name: str, runs: "Iterable[MlflowRun]", chosen: Container[str]) -> None:
        """Let those of `runs` whose id is in `chosen`, and no others, have the tag `name`, with the value `yes`."""
        with self._told():
            for run in runs:
                wanted, identity = run.info.run_id in chosen, run.info.run_id
                if wanted and run.data.tags.get(name) != "yes":
                    self.client.set_tag(identity, name, "yes")
                elif not wanted and name in run.data.tags:
                    self.client.delete_tag(identity, name)

    def forget(self, keys: Iterable[str]) -> int:
        """Delete these runs, as MLflow's own page does; gives how many were there."""
        wanted = set(keys)
        doomed = [run for run in self.runs() if run.key in wanted]
        for run in doomed:
            with self._told():
                self.client.delete_run(run.identity)
        return len(doomed)

    def mark_interrupted(self) -> int:
        """Runs that a process of this host left RUNNING when it died become KILLED; gives how many."""
        mended = 0
        for run in self.runs(only_running=True):
            owner = Owner.tagged(run.tags)
            if owner is None or not owner.here or owner.alive:
                continue
            state = run.state
            with self._told():
                if state == "running":
                    state = "interrupted"
                    self.client.set_tag(run.identity, "rnnstudy.outcome", state)
                self.client.set_terminated(run.identity, _mlflow_status(state))
            mended += 1
        return mended


def open_store(project: Project) -> Store:
    """The store of a project, ready to be written; made when it is missing.

    Raises `StoreError` before anything is written when the store cannot be used.
    """
    store = Store(project)
    store.require_writable()
    if store.database is None or not store.exists:
        # First contact makes the database, or asks the server. A database that is there is opened without MLflow.
        _ = store.client
    return store


def _mlflow_status(state: RunState) -> str:
    return {"finished": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")


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


def upload_documents(
    client: "MlflowClient", identity: str, papers: Mapping[str, str], data_set: Mapping[str, Any]
) -> None:
    """Write the files `papers` as artifacts of the run `identity`, and its data as an input. Twice changes nothing."""
    for name, text in papers.items():
        client.log_text(identity, text, name)
    if data_set:
        client.log_inputs(identity, [data_input(data_set)])


def data_input(described: Mapping[str, Any]) -> "DatasetInput":
    """MLflow's description of what `descriptions.data_set` tells; no sequence is drawn.

    The schema has the shapes that a network reads and says for each sequence: (time, features) and (time, outputs).
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.types import Schema, TensorSpec

    number, steps = np.dtype("float32"), described["steps"]
    schema = Schema(
        [
            TensorSpec(number, (-1, steps, described["features"]), "inputs"),
            TensorSpec(number, (-1, steps, described["outputs"]), "outputs"),
        ]
    )
    source = CodeDatasetSource(
        {
            "mlflow.source.type": "CODE",
            "mlflow.source.name": described["generator"],
            "task": json.dumps(described["task"]),
            "seed": str(described["seed"]),
        }
    )
    data = MetaDataset(source, name=described["name"], digest=described["digest"], schema=schema)
    return DatasetInput(Dataset(**data.to_dict()), [InputTag("mlflow.data.context", "training")])
