"""The file of Optuna's storage where it is an sqlite database: checked before Optuna opens it.

Optuna adds the tables that it misses, to the database of another program and to a damaged one, too.
"""

import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_database import connect, is_there, require_write_access, revisions_in, unusable


class StorageError(RnnstudyError):
    """Optuna's storage cannot be used."""


def check_storage_file(path: Path) -> None:
    """Raises `StorageError` for a file that is not Optuna's database, whole, and of the installed Optuna's schema."""
    if not path.exists() or (path.is_file() and not is_there(path)):
        return
    aside = f"move it aside (mv {path} {path}.old) or repair it, and start again"
    try:
        with closing(connect(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"studies", "trials", "version_info", "alembic_version"} <= tables:
                raise StorageError(f"{path} is an sqlite database, but not one of Optuna's searches; {aside}")
            revision = next((row[0] for row in connection.execute("SELECT version_num FROM alembic_version")), None)
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path} is not a sound sqlite database ({error}); {aside}") from None
    installed, known = _schema_revisions()
    if revision is None:
        raise StorageError(f"{path} is damaged: its table alembic_version is empty; {aside}")
    if installed is not None and revision != installed:
        if revision not in known:
            raise StorageError(f"{path} is of a newer Optuna (schema {revision}); install that Optuna, or {aside}")
        upgrade = f"optuna storage upgrade --storage sqlite:///{path}"
        raise StorageError(f"{path} is of an older Optuna; copy it, then run: {upgrade}")
    if missing := sorted(_tables() - tables):
        raise StorageError(f"{path} is damaged: its table {missing[0]} is gone; {aside}")


def require_writable_file(path: Path) -> None:
    """Raises an `RnnstudyError` for a storage that is read-only or stays locked, before anything is trained."""
    if is_there(path):
        require_write_access(path)


def _schema_revisions() -> tuple[str | None, frozenset[str]]:
    package = find_spec("optuna")
    assert package is not None
    assert package.origin is not None
    return revisions_in(Path(package.origin).parent / "storages" / "_rdb" / "alembic" / "versions")


def _tables() -> set[str]:
    from optuna.storages._rdb.models import BaseModel

    return set(BaseModel.metadata.tables)
