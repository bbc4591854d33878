"""Results as a user asks for them: by the project that holds the store, or by the folder of committed files.

`project` is the one of the working directory when it is None.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rnnstudy.results.archive import Archive
from rnnstudy.results.from_store import StoreSource
from rnnstudy.results.results import Results
from rnnstudy.results.source import ResultsSource
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.stored_run import StoredRun


def load(
    keys: Iterable[str] | None = None,
    *,
    experiment: str | None = None,
    project: Project | None = None,
    archive: Path | None = None,
) -> Results:
    """Complete runs (finished or diverged) from the store, or from `archive`, a folder of committed results.

    With `keys`, those runs, in that order; otherwise all of `experiment` (a name, or the path of its file); otherwise
    all. Raises `MissingRuns` naming the runs that are missing, and the sweep that makes them.
    """
    return _source(project, archive).load(keys, experiment=_stem(experiment))


def complete_keys(*, project: Project | None = None, archive: Path | None = None) -> dict[str, str]:
    """Every complete run of the store, or of an archive: its key, and the experiment that made it."""
    return _source(project, archive).complete_keys()


def runs_table(experiment: str | None = None, *, project: Project | None = None) -> pd.DataFrame:
    """See `StoreSource.table`. `experiment` may be the path of its file."""
    return _store(project).table(_stem(experiment))


def find_key(prefix: str, *, project: Project | None = None) -> str:
    """See `StoreSource.find_key`."""
    return _store(project).find_key(prefix)


def stored_run(prefix: str, *, project: Project | None = None) -> StoredRun:
    """See `StoreSource.stored_run`."""
    return _store(project).stored_run(prefix)


def artifact_file(key: str, name: str, *, project: Project | None = None) -> Path:
    """See `StoreSource.artifact`."""
    return _store(project).artifact(key, name)


def _source(project: Project | None, archive: Path | None) -> ResultsSource:
    return _store(project) if archive is None else Archive.open(archive)


def _store(project: Project | None) -> StoreSource:
    return StoreSource(Store(project or find_project()))


def _stem(experiment: str | None) -> str | None:
    return Path(experiment).stem if experiment else None
