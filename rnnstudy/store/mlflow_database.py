import functools
import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy.spec import SpecError
from rnnstudy.store.errors import StoreUnavailable

if TYPE_CHECKING:
    pass


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a database that is there."""
    # mode=rw and not ro: a writer that was killed may have left a journal to roll back.
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)


def _check_database(path: Path) -> None:
    """Raises `SpecError` for a file that is not MLflow's database, or is of another schema than the installed MLflow's.

    MLflow itself would add its tables to a foreign database.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    aside = f"move it aside (mv {path} {path}.old) or put it right, and start again"
    try:
        with closing(_opened(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "alembic_version"} <= tables:
                raise SpecError(f"{path} is an sqlite database, but not MLflow's; {aside}")
            revision = next((row[0] for row in connection.execute("SELECT version_num FROM alembic_version")), None)
    except sqlite3.OperationalError as error:
        raise _not_now(path, error) from None
    except sqlite3.DatabaseError as error:
        raise SpecError(f"{path} is not a sound sqlite database ({error}); {aside}") from None
    installed, known = _schema_revisions()
    if revision == installed or (installed is None and revision in known):
        return
    if revision in known:
        raise SpecError(f"{path} is of an older MLflow; copy it, then run: mlflow db upgrade sqlite:///{path}")
    raise SpecError(f"{path} is of a newer MLflow (schema {revision}); install that MLflow, or {aside}")


def _try_writing(path: Path) -> None:
    """Raises `SpecError` when a database is read-only or stays locked: better now than when there is a result."""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute("BEGIN IMMEDIATE")
            # A lock alone is given for a read-only file too.
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise _not_now(path, error) from None


def _not_now(path: Path, error: sqlite3.OperationalError) -> SpecError:
    """The one line for a sound database that cannot be used."""
    if "locked" in str(error):
        return StoreUnavailable(
            f"{path} has been locked by another process for {BUSY_SECONDS:.0f} s (fuser {path} names it); end it first"
        )
    if "readonly" in str(error):
        return SpecError(f"{path} cannot be written; make it writable, or move it aside")
    return SpecError(f"{path} cannot be used ({error}); see whether its disk is full or read-only")


@functools.cache
def _schema_revisions() -> tuple[str | None, frozenset[str]]:
    """The installed MLflow's schema, None where that is not clear, and all that it has had before.

    Read off the texts of its migrations: alembic, which MLflow asks, imports every one of them, and importing MLflow
    takes a second or more by itself.
    """
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "store" / "db_migrations" / "versions"
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    named = {name: _assigned(name, texts) for name in ("revision", "down_revision")}
    newest = named["revision"] - named["down_revision"]
    return (newest.pop() if len(newest) == 1 else None), frozenset(named["revision"])


def _assigned(name: str, texts: Sequence[str]) -> set[str]:
    """The text that each module gives to a variable."""
    found = (re.search(rf"""^{name}\b.*?=\s*["'](\w+)["']""", text, re.MULTILINE) for text in texts)
    return {match[1] for match in found if match}


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


BUSY_SECONDS = 30.0
"""How long another process may hold the database locked before a sweep is refused."""


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow without telemetry, and without its log of what it does and its warnings about its own dependencies.

    Its client would try a server that is away for many minutes; how long to try is the writer's to decide.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _hush() -> None:
    """MLflow sets its loggers to INFO when it is imported, so this comes after."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def database_errors() -> tuple[type[Exception], ...]:
    """The errors of the library through which MLflow and Optuna use their databases."""
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError,)
