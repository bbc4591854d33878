"""MLflow's sqlite database: everything that depends on its private schema (tables, columns, revisions).

Tables are read directly because MLflow's client makes an object of every metric and parameter of every run: half a
second for 200 runs, many times that for a study; and importing MLflow takes more than a second by itself.
"""

import functools
import json
import logging
import os
import re
import sqlite3
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from rnnstudy.errors import RnnstudyError
from rnnstudy.store.errors import DiskFull, StoreError, StoreUnavailable, disk_is_full
from rnnstudy.store.stored_run import StoredRun, state_of
from rnnstudy.store.tag_names import known_tags, spellings
from rnnstudy.training.atomic import replacing

BUSY_SECONDS = 30.0
"""How long another process may hold the database locked before a sweep is refused."""


def is_there(path: Path) -> bool:
    """Whether there is a database to read."""
    return path.exists() and path.stat().st_size > 0


def create_database(path: Path) -> None:
    """Make MLflow's database, whole or not at all, with its artifacts in the folder `artifacts` beside it."""
    with replacing(path) as unfinished, quiet_mlflow():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{unfinished}", (path.parent / "artifacts").as_uri()).engine.dispose()


def check_database(path: Path) -> None:
    """Raises `StoreError` for a file that is not MLflow's database, or not of the installed MLflow's schema.

    MLflow itself would add its tables to a foreign database.
    """
    if not path.exists() or (path.is_file() and not is_there(path)):
        return
    aside = f"move it aside (mv {path} {path}.old) or repair it, and start again"
    try:
        with closing(connect(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "alembic_version"} <= tables:
                raise StoreError(f"{path} is an sqlite database, but not MLflow's; {aside}")
            revision = next((row[0] for row in connection.execute("SELECT version_num FROM alembic_version")), None)
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a sound sqlite database ({error}); {aside}") from None
    installed, known = schema_revisions()
    if revision == installed or (installed is None and revision in known):
        return
    if revision in known:
        raise StoreError(f"{path} is of an older MLflow; copy it, then run: mlflow db upgrade sqlite:///{path}")
    raise StoreError(f"{path} is of a newer MLflow (schema {revision}); install that MLflow, or {aside}")


def check_writable(path: Path) -> None:
    """Raises `StoreError` when a database is read-only or stays locked: before training, not when there is a result."""
    check_database(path)
    require_write_access(path)


def require_write_access(path: Path) -> None:
    """Raises `StoreError` when an sqlite database, whoever made it, is read-only or stays locked."""
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} cannot be written; make it writable, or move it aside")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute("BEGIN IMMEDIATE")
            # The lock alone can be had for a read-only file, too.
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None


def read_runs(path: Path, keys: Collection[str] | None, only_running: bool) -> list[StoredRun]:
    """The runs of this package that are not deleted, newest first; see `Store.runs`.

    What is not asked for costs next to nothing: the keys of all runs are compared, and nothing else of them is read.
    """
    asked = "" if keys is None else "AND keyed.value IN (SELECT value FROM json_each(?))"
    select_runs = f"""
        SELECT runs.run_uuid, runs.name, experiments.name, runs.artifact_uri
        FROM runs JOIN experiments ON runs.experiment_id = experiments.experiment_id
        JOIN tags AS keyed ON keyed.run_uuid = runs.run_uuid AND keyed.key = 'rnnstudy.key' {asked}
        WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
        {"AND runs.status = 'RUNNING'" if only_running else ""}
        ORDER BY runs.start_time DESC, runs.run_uuid
    """
    select_tags = "SELECT run_uuid, key, value FROM tags WHERE run_uuid IN (SELECT value FROM json_each(?))"
    values = () if keys is None else (json.dumps(list(keys)),)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    with _transaction(path) as tables:
        runs = tables.execute(select_runs, values).fetchall()
        for run, name, value in tables.execute(select_tags, (json.dumps([row[0] for row in runs]),)):
            tags[run][name] = _text(value)
    found = []
    for run, name, experiment, artifacts in runs:
        known = known_tags(tags[run])
        key, state, address = known["rnnstudy.key"], state_of(known), _text(artifacts)
        found.append(StoredRun(key, _text(name), _text(experiment), state, known, run, address))
    return found


def _text(value: object) -> str:
    """The text of a value: whoever edits a database can store anything in it."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def experiment_with(path: Path, name: str, tags: Set[str], location: str | None) -> str | None:
    """The id of the experiment `name` if it is active, has these tags and keeps its artifacts at `location`."""
    with _transaction(path) as tables:
        row = tables.execute(
            "SELECT experiment_id FROM experiments "
            "WHERE name = ? AND artifact_location = ? AND lifecycle_stage = 'active'",
            (name, location),
        ).fetchone()
        if row is None:
            return None
        present = {tag for (tag,) in tables.execute("SELECT key FROM experiment_tags WHERE experiment_id = ?", row)}
    return str(row[0]) if tags <= known_tags(dict.fromkeys(present, "")).keys() else None


def relocate_artifacts(path: Path, location: str) -> None:
    """Follow a project folder that was moved or copied: MLflow stores absolute addresses and cannot change them.

    The artifacts of this package's experiments then lie at `location`, the folder `artifacts` beside the database.
    """
    names = ", ".join(f"'{name}'" for name in spellings("rnnstudy.experiment_file"))
    own = f"SELECT experiment_id FROM experiment_tags WHERE key IN ({names})"
    elsewhere = "LIKE 'file:%/artifacts' AND artifact_location != ?"
    with _writing(path) as connection:
        connection.execute(
            "UPDATE runs SET artifact_uri = ?1 || '/' || run_uuid || '/artifacts' "
            "WHERE artifact_uri LIKE 'file:%/artifacts/' || run_uuid || '/artifacts' "
            f"AND artifact_uri != ?1 || '/' || run_uuid || '/artifacts' AND experiment_id IN ({own})",
            (location,),
        )
        connection.execute(
            f"UPDATE experiments SET artifact_location = ? WHERE artifact_location {elsewhere} "
            f"AND experiment_id IN ({own})",
            (location, location),
        )


@functools.cache
def schema_revisions() -> tuple[str | None, frozenset[str]]:
    """The schema revision of the installed MLflow (None where it is not clear), and all revisions up to it.

    Read from the texts of its migrations: alembic, which MLflow asks, imports every one of them.
    """
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    return revisions_in(Path(package.origin).parent / "store" / "db_migrations" / "versions")


def revisions_in(folder: Path) -> tuple[str | None, frozenset[str]]:
    """The newest schema revision of a folder of migrations (None where it is not clear), and all of them."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    revisions = _assigned("revision", texts)
    newest = revisions - _assigned("down_revision", texts)
    return (newest.pop() if len(newest) == 1 else None), frozenset(revisions)


def database_errors() -> tuple[type[Exception], ...]:
    """The errors of the library through which MLflow and Optuna use their databases."""
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError,)


def sqlite_file(url: str) -> Path | None:
    """The file that the address of a database names; None for one that is no sqlite file, or no address."""
    from sqlalchemy.engine import make_url

    if not is_address(url):
        return None
    named = make_url(url)
    return Path(named.database).absolute() if named.get_backend_name() == "sqlite" and named.database else None


def is_address(url: str) -> bool:
    """Whether a text has the form of an address of a database."""
    from sqlalchemy.engine import make_url

    try:
        return bool(make_url(url).get_backend_name())
    except (ValueError, *database_errors()):
        return False


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow without telemetry, without progress messages and without warnings about its own dependencies.

    Its client would retry an unreachable server for many minutes; how long to retry is the writer's decision.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        import mlflow

        # MLflow sets its loggers to INFO when it is imported.
        for name in (mlflow.__name__, "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Writes the traceback of every database error, a full disk's too, which is raised all the same.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        yield


def connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing database."""
    # mode=rw and not ro: a writer that was killed may have left a journal to roll back.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    # Bytes that are no text must not make all other runs unreadable.
    connection.text_factory = lambda content: content.decode("utf-8", "replace")
    return connection


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are written together, at the end of the block."""
    try:
        with closing(connect(path)) as connection, connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A consistent view of all tables, whatever is written meanwhile."""
    check_database(path)
    try:
        with closing(connect(path)) as connection, connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the MLflow store sqlite:///{path} does not answer as it should: {error}") from None


def unusable(path: Path, error: sqlite3.OperationalError) -> RnnstudyError:
    """The error for a sound database that is locked, read-only, on a full disk or otherwise unusable."""
    if disk_is_full(error):
        return DiskFull.caused_by(error, path.parent)
    if path.is_dir():
        return StoreError(f"{path} is a folder, not a database; move it aside (mv {path} {path}.old), and start again")
    if "locked" in str(error):
        return StoreUnavailable(
            f"{path} has been locked by another process for {BUSY_SECONDS:.0f} s (fuser {path} names it); end it first"
        )
    if "readonly" in str(error):
        return StoreError(f"{path} cannot be written; make it writable, or move it aside")
    return StoreError(f"{path} cannot be used ({error}); check whether its disk is full or read-only")


def _assigned(name: str, texts: Sequence[str]) -> set[str]:
    """The text that each module assigns to the variable `name`."""
    matches = (re.search(rf"""^{name}\b.*?=\s*["']([\w.]+)["']""", text, re.MULTILINE) for text in texts)
    return {match[1] for match in matches if match}
