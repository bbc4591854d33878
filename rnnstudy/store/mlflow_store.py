"""MLflow's store: what is complete, and the runs that a tracker writes.

Exactly one process writes. A run is identified by its key (see `stored_run`). The arrays are the truth: MLflow's
metrics are a decimated copy for its pages (see `decimation`).
"""

import functools
import os
import tempfile
import time as clock
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from rnnstudy.store import mlflow_database
from rnnstudy.store.decimation import milliseconds
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import DamagedFile, DiskFull, StoreError, StoreUnavailable, disk_is_full, fullest
from rnnstudy.store.mlflow_documents import data_input, mlflow_status
from rnnstudy.store.mlflow_server import REFUSALS, TRACKING_URI, all_pages, check_server
from rnnstudy.store.open_run import OpenRun
from rnnstudy.store.owner import Owner
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import Description, parameter_text
from rnnstudy.store.stored_run import COMPLETE, RunIndex, StoredRun, attempts_of, require_folder, state_of
from rnnstudy.store.tag_names import rename_known, spellings, stored_tags

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Param, RunTag
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

LOCK_SECONDS = 120
"""How long to wait for another process that makes the database or an experiment."""


class Store(RunIndex):
    """MLflow's store of a project, or the one that `MLFLOW_TRACKING_URI` names.

    A local store is an sqlite database, with its artifacts and its lock in the same folder. Nothing is created before
    something is written: a store that does not exist yet has no runs. Every method raises a one-line `StoreError` for
    a store that is damaged, cannot be written or cannot be reached.
    """

    def __init__(self, project: Project) -> None:
        named = os.environ.get(TRACKING_URI, "")
        scheme = urlparse(named).scheme.partition("+")[0]
        if named and scheme in ("", "file"):
            raise StoreError(
                f"{TRACKING_URI} is {named!r}: MLflow 3 keeps no runs in plain folders; "
                "unset it, or name a database (sqlite:////absolute/path.db) or a server (http://…)"
            )
        if scheme == "sqlite" and ":///" not in named:
            raise StoreError(f"{TRACKING_URI} is {named!r}, which names no file; sqlite:////absolute/path.db does")
        self._connected = False
        self.database: Path | None = None
        if not named or scheme == "sqlite":
            path = project.database if not named else Path(named.split(":///", 1)[-1])
            self.database = path.expanduser().absolute()
        self.uri = f"sqlite:///{self.database}" if self.database else named
        self.artifacts = self.database.parent / "artifacts" if self.database else None
        if scheme in ("postgresql", "mysql", "mssql"):
            self.artifacts = project.artifacts.absolute()

    # Connecting

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self.database is None or mlflow_database.is_there(self.database)

    @functools.cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client; on first contact the database is made, under a lock."""
        if self.database is not None:
            if not self.exists:
                with self.locked(), self._as_store_error():
                    if not self.exists:
                        mlflow_database.create_database(self.database)
            mlflow_database.check_database(self.database)
        elif urlparse(self.uri).scheme in ("http", "https"):
            check_server(self.uri)
        with self._as_store_error():
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._connected = True
        return client

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Excludes the other processes that use this local store. A server has its own locks."""
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
            raise StoreError(f"{lock} has been held by another process for {LOCK_SECONDS} s; end it first") from None

    @contextmanager
    def _as_store_error(self) -> Iterator[None]:
        """Re-raise an error of MLflow or its database in one line: `StoreUnavailable` if it may pass."""
        from mlflow.exceptions import MlflowException

        if self._connected and not self.exists:
            # Its client would write into a file that has no name any more.
            raise StoreUnavailable(f"{self.database} is gone")
        try:
            with mlflow_database.quiet_mlflow():
                yield
        except ImportError as error:
            needed = "rnnstudy[postgres] brings that of PostgreSQL" if "psycopg" in str(error) else "install it"
            raise StoreError(f"the MLflow store {self.uri} needs a driver ({error}); {needed}") from None
        except (MlflowException, OSError, *mlflow_database.database_errors()) as error:
            if disk_is_full(error):
                folder = fullest(self.database and self.database.parent, self.artifacts)
                raise DiskFull.caused_by(error, folder) from None
            reason = f"{self.database} is gone" if self._connected and not self.exists else str(error) or repr(error)
            reason = reason.strip().partition("\n")[0].removeprefix("(sqlite3.OperationalError) ")
            if isinstance(error, MlflowException) and error.error_code in REFUSALS:
                raise StoreError(f"the MLflow store {self.uri} refuses: {reason}") from None
            raise StoreUnavailable(f"the MLflow store {self.uri} does not answer as it should: {reason}") from None

    # Reading

    def _search(self, filter_string: str) -> "list[tuple[MlflowRun, str]]":
        """MLflow's runs that a filter matches, newest first, with the names of their experiments."""
        if not self.exists:
            return []
        names = {experiment.experiment_id: experiment.name for experiment in self.experiments()}
        return [(run, names[run.info.experiment_id]) for run in self.runs_of(*names, matching=filter_string)]

    def runs(self, key: str | None = None, *, only_running: bool = False) -> list[StoredRun]:
        """The runs of this package, newest first: all, those of one key, or those that MLflow shows as running."""
        if self.database is not None:
            keys = None if key is None else [key]
            return mlflow_database.read_runs(self.database, keys, only_running) if self.exists else []
        condition = 'tags."rnnstudy.key" ' + ("LIKE '%'" if key is None else f"= '{key}'")
        if only_running:
            condition += " and attributes.status = 'RUNNING'"
        runs = []
        for run, experiment in self._search(condition):
            info, tags = run.info, run.data.tags
            key, name, artifacts = tags["rnnstudy.key"], info.run_name or "", info.artifact_uri or ""
            runs.append(StoredRun(key, name, experiment, state_of(tags), tags, info.run_id, artifacts))
        return runs

    def runs_with(self, keys: Collection[str]) -> list[StoredRun]:
        if self.database is None:
            return super().runs_with(keys)
        return mlflow_database.read_runs(self.database, keys, only_running=False) if self.exists else []

    def experiments(self) -> "list[Experiment]":
        """The experiments, their tags by the names that this package knows."""
        search = self.client.search_experiments
        with self._as_store_error():
            found = all_pages(search)
        for experiment in found:
            rename_known(experiment.tags)
        return found

    def runs_of(self, *experiments: str, matching: str = "") -> "list[MlflowRun]":
        """The runs of these experiments (by id) with parameters, known tags and last metrics, newest first."""
        newest_first = {"max_results": 1000, "order_by": ["attributes.start_time DESC"]}
        search = functools.partial(self.client.search_runs, list(experiments), matching, **newest_first)
        with self._as_store_error():
            found = all_pages(search)
        for run in found:
            rename_known(run.data.tags)
        return found

    def artifact(self, run: StoredRun, name: str) -> Path:
        """A local file with the artifact `name`. Raises `DamagedFile` when it is gone."""
        if urlparse(run.artifacts).scheme == "file":
            path = self._artifact_folder(run) / name
            if not path.exists():
                raise DamagedFile(f"{path} is gone; `rnnstudy forget {run.key}` and sweep again")
            return path
        with self._as_store_error():
            return Path(self.client.download_artifacts(run.identity, name, tempfile.mkdtemp(prefix="rnnstudy-")))

    def _artifact_folder(self, run: StoredRun) -> Path:
        """Where a run's artifacts lie, whatever address MLflow stored: a store that was copied reads its own."""
        stored = Path(url2pathname(urlparse(run.artifacts).path))
        if self.database is None or self.artifacts is None or stored.parts[-3::2] != ("artifacts", "artifacts"):
            return stored
        own = self.artifacts / run.identity / "artifacts"
        foreign = (stored.parents[2] / self.database.name).exists()
        return own if own.exists() or foreign else stored

    # Writing

    def relocate(self) -> None:
        """Have MLflow, too, read and write the artifacts beside the database, in case the project was moved or copied.

        Raises `StoreError` for a database that cannot be written.
        """
        if self.database is not None and self.artifacts is not None and self.exists:
            mlflow_database.relocate_artifacts(self.database, self.artifacts.as_uri())

    def require_writable(self) -> None:
        """Raises `StoreError` unless runs can be written. Nothing is left behind."""
        if self.database is None:
            return
        require_folder(self.database.parent)
        if self.database.exists() and not os.access(self.database, os.W_OK):
            raise StoreError(f"{self.database} cannot be written; make it writable, or move it aside")
        if self.exists:
            mlflow_database.check_writable(self.database)

    def experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """MLflow's id of the experiment `name`, made on first use."""
        location = self.artifacts.as_uri() if self.artifacts else None
        if self.database is not None and self.exists:
            # Most often there is nothing to do, and MLflow need not be imported.
            ready = mlflow_database.experiment_with(self.database, name, tags.keys(), location)
            if ready is not None:
                return ready
        client = self.client
        with self.locked(), self._as_store_error():
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                return client.create_experiment(name, artifact_location=location, tags=stored_tags(tags))
            identity = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                # Restoring brings back the runs that were deleted with the experiment; they must stay deleted.
                client.restore_experiment(identity)
                for run in all_pages(functools.partial(client.search_runs, [identity])):
                    client.delete_run(run.info.run_id)
            for tag, value in tags.items():
                if not experiment.tags.keys() & set(spellings(tag)):
                    client.set_experiment_tag(identity, spellings(tag)[0], value)
            self.relocate()
            return identity

    def unfinished(self, description: Description) -> "MlflowRun | None":
        """The newest run of this key and experiment that has not ended well."""
        found = self._search(f"tags.\"rnnstudy.key\" = '{description.key}'")
        own = (run for run, experiment in found if experiment == description.experiment)
        return next((run for run in own if state_of(run.data.tags) not in COMPLETE), None)

    def sent(self, run: "MlflowRun") -> dict[str, set[int]]:
        """The steps of each metric that the store has."""
        with self._as_store_error():
            history = self.client.get_metric_history
            return {name: {metric.step for metric in history(run.info.run_id, name)} for name in run.data.metrics}

    def start(self, description: Description, experiment_id: str, time: float | None = None) -> OpenRun:
        """Resume the unfinished run of this key, or make one that began at `time` (seconds since 1970; None: now)."""
        from mlflow.entities import Param, RunTag

        present, client = self.unfinished(description), self.client
        with self._as_store_error():
            if present is None:
                began = None if time is None else milliseconds(time)
                tags = stored_tags(description.tags)
                created = client.create_run(experiment_id, began, tags=tags, run_name=description.name)
                opened = OpenRun(description, created.info.run_id, started=created.info.start_time)
            else:
                damaged = state_of(present.data.tags) == "damaged"
                attempts = 0 if damaged else attempts_of(present.data.tags)
                opened = OpenRun(description, present.info.run_id, self.sent(present), attempts=attempts)
                opened.started = present.info.start_time
            # Written again on a resume: the process may have died before it could write them.
            parameters = [Param(name, parameter_text(value)) for name, value in description.parameters.items()]
            # A note that someone may have edited in MLflow's pages stays as it is.
            keep_note = present is not None and NOTE in present.data.tags
            tags = stored_tags(description.tags)
            described = [RunTag(name, value) for name, value in tags.items() if name != NOTE or not keep_note]
            self._log_description(opened.identity, parameters, described, present is None)
            if present is not None:
                gone = {"rnnstudy.reason", "rnnstudy.solved", *(["rnnstudy.attempts"] if damaged else [])}
                # Written by their own names before 2026-12.
                gone |= {name for name in description.tags if name not in tags}
                for stale in gone & client.get_run(opened.identity).data.tags.keys():
                    client.delete_tag(opened.identity, stale)
                client.update_run(opened.identity, status="RUNNING")
            for name, text in description.documents.items():
                client.log_text(opened.identity, text, name)
            if description.data_set:
                client.log_inputs(opened.identity, [data_input(description.data_set)])
        return opened

    def _log_description(self, identity: str, parameters: "list[Param]", tags: "list[RunTag]", made: bool) -> None:
        """Write parameters and tags; a run that was just `made` is deleted again when the store refuses them."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(identity, params=parameters, tags=tags)
        except MlflowException:
            if made:
                self.client.delete_run(identity)
            raise

    def send(self, opened: OpenRun) -> None:
        """Write the buffered points."""
        from mlflow.entities import Metric

        if opened.buffer:
            metrics = [Metric(point.metric, point.value, point.time, point.step) for point in opened.buffer]
            with self._as_store_error():
                self.client.log_batch(opened.identity, metrics=metrics)
            opened.buffer.clear()

    def end(
        self, opened: OpenRun, tags: Mapping[str, str], files: Sequence[Path] = (), time: float | None = None
    ) -> None:
        """Write the buffered points, then the artifacts, then the tags that say how the run ended."""
        self.send(opened)
        with self._as_store_error():
            self._log(opened.identity, files, tags)
            ended = max(milliseconds(clock.time() if time is None else time), opened.started)
            self.client.set_terminated(opened.identity, mlflow_status(tags["rnnstudy.outcome"]), end_time=ended)

    def add_artifacts(self, run: StoredRun, folder: str, files: Sequence[Path], tags: Mapping[str, str]) -> None:
        """Add artifacts to a run, in a folder of their own, and then tags."""
        with self._as_store_error():
            self._log(run.identity, files, tags, folder)

    def _log(self, identity: str, files: Sequence[Path], tags: Mapping[str, str], folder: str | None = None) -> None:
        """Write artifacts, then tags."""
        from mlflow.entities import RunTag

        for file in files:
            self.client.log_artifact(identity, str(file), folder)
        self.client.log_batch(identity, tags=[RunTag(name, value) for name, value in stored_tags(tags).items()])

    def tag_experiment(self, experiment_id: str, name: str, value: str) -> None:
        with self._as_store_error():
            self.client.set_experiment_tag(experiment_id, name, value)

    def tag_only(self, name: str, runs: "Iterable[MlflowRun]", chosen: Container[str]) -> None:
        """Set the tag `name` to `yes` on those of `runs` whose id is in `chosen`, and delete it on the others."""
        with self._as_store_error():
            for run in runs:
                if run.info.run_id not in chosen:
                    if name in run.data.tags:
                        self.client.delete_tag(run.info.run_id, name)
                elif run.data.tags.get(name) != "yes":
                    self.client.set_tag(run.info.run_id, name, "yes")

    def tag_each(self, name: str, runs: "Sequence[MlflowRun]", values: Sequence[str]) -> None:
        """Set the tag `name` of each of `runs` to its value, where it has another."""
        with self._as_store_error():
            for run, value in zip(runs, values, strict=True):
                if run.data.tags.get(name) != value:
                    self.client.set_tag(run.info.run_id, name, value)

    def forget(self, keys: Iterable[str]) -> int:
        """Delete these runs as MLflow's pages do, which keep them until garbage collection; returns how many."""
        if runs := self.runs_with(set(keys)):
            self.require_writable()
        for run in runs:
            with self._as_store_error():
                self.client.delete_run(run.identity)
        return len(runs)

    def mark_interrupted(self) -> int:
        """End the runs that a process of this machine left as running when it died; returns how many there were."""
        marked = 0
        for run in self.runs(only_running=True):
            owner = Owner.tagged(run.tags)
            if owner is None or owner.alive is not False:
                continue
            state = run.state
            with self._as_store_error():
                if state == "running":
                    state = "interrupted"
                    self.client.set_tag(run.identity, "rnnstudy.outcome", state)
                self.client.set_terminated(run.identity, mlflow_status(state), end_time=self._last_sign(run))
            marked += 1
        return marked

    def _last_sign(self, run: StoredRun) -> int:
        """When a run was last heard of, in ms since 1970: when its last loss was measured, or else when it began."""
        losses = self.client.get_metric_history(run.identity, "learning/loss")
        began = self.client.get_run(run.identity).info.start_time
        return max([began, *(loss.timestamp for loss in losses)])


def open_store(project: Project) -> Store:
    """The store of a project, ready to be written; made when it is missing.

    Raises `StoreError` before anything is written when the store cannot be used.
    """
    store = Store(project)
    store.require_writable()
    if store.database is None or not store.exists:
        # Make the database, or ask the server. An existing database needs no client, whose import takes a second.
        _ = store.client
    return store
