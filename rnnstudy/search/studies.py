"""Optuna's studies: where they are stored, how one is opened or resumed, and how far each has got."""

import contextlib
import math
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rnnstudy.errors import message_of, shown, without_passwords
from rnnstudy.search.definition import Search
from rnnstudy.search.storage_file import StorageError, check_storage_file
from rnnstudy.spec import RequestError
from rnnstudy.store.errors import DiskFull, disk_is_full
from rnnstudy.store.mlflow_database import database_errors, is_address, is_there, sqlite_file
from rnnstudy.store.project import Project

COMPARABILITY, PLANNED, FRESH, KEYS, SEEDS, RETRY_OF = "meaning", "trials", "fresh", "keys", "seeds", "again"
"""Attributes that we store. Of a study: its comparability hash, its planned number of trials, and the winner's runs on
fresh seeds, with these seeds. Of a trial: the keys of its runs, and the number of the trial that it repeats."""

INFEASIBLE = "infeasible"
"""An attribute of a trial: why its combination of parameters cannot be trained."""


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise errors of Optuna's storage again as a `StorageError` of one line, or as `DiskFull`."""
    try:
        yield
    except (OptunaError, *database_errors(), ImportError, OSError) as error:
        if disk_is_full(error):
            file = sqlite_file(url)
            raise DiskFull.caused_by(error, file and file.parent) from None
        cause = error.__cause__ or error
        # The database's own words; SQLAlchemy adds the statement and a link.
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())[:200]
        if isinstance(cause, ImportError):
            reason = f"it needs a driver ({reason}); pip install 'rnnstudy[postgres]' brings that of PostgreSQL"
        elif not is_address(url):
            reason = "it is no address of a database, such as sqlite:////absolute/path.db or postgresql://host/name"
        raise StorageError(f"the storage of searches {without_passwords(url)} cannot be used: {reason}") from None


def storage_url(project: Project, url: str | None) -> str:
    """The address of the storage: `url`, or by default an sqlite database beside MLflow's."""
    return url or f"sqlite:///{project.mlruns / 'optuna.db'}"


def connect_storage(project: Project, url: str | None) -> RDBStorage:
    """The storage at `url`, or the project's own, created on first use. Raises `StorageError` if it cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        project.mlruns.mkdir(parents=True, exist_ok=True)
    url = storage_url(project, url)
    if (file := sqlite_file(url)) is not None:
        check_storage_file(file)
    with storage_errors(url), warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            return RDBStorage(_with_driver(url))
        except ValueError as error:
            raise StorageError(f"--storage is {url}, which is no address of a database ({error})") from None
        except RuntimeError as error:
            # Of a server's: a file's was checked before.
            raise StorageError(
                f"the storage of searches {url} is of another version of Optuna, or of another program: {error}"
            ) from None


def _with_driver(url: str) -> str:
    """Name the PostgreSQL driver that `rnnstudy[postgres]` installs: SQLAlchemy's default depends on its version."""
    scheme, colon, rest = url.partition(":")
    return f"postgresql+psycopg2{colon}{rest}" if scheme == "postgresql" else url


def open_study(storage: RDBStorage, name: str, search: Search) -> optuna.Study:
    """The study `name`, created on first use; the trials that a dead process left running are queued again.

    Raises `RequestError` if the stored study has another objective or other seeds, `StorageError` if the storage fails.
    """
    with storage_errors(storage.url), damaged_study(name, storage.url):
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True, pruner=search.study_pruner()
        )
        check_study(study)
        stored = study.user_attrs.get(COMPARABILITY)
        if stored is None:
            if study.get_trials(deepcopy=False):
                raise RequestError(f"study '{name}' was made by another program; give the search another name")
            study.set_user_attr(COMPARABILITY, search.comparability_hash)
        elif stored != search.comparability_hash:
            raise RequestError(
                f"study '{name}' was begun with another objective or other seeds; give the search another name, or "
                f"{deleting(name, storage.url)}"
            )
        if study.user_attrs.get(PLANNED) != search.trials:
            study.set_user_attr(PLANNED, search.trials)
        requeue_orphans(study)
    return study


@contextlib.contextmanager
def damaged_study(name: str | None, url: str) -> Iterator[None]:
    """Raise what Optuna raises for rows that it did not write as a `StorageError` of one line.

    `name`: the study; None where all are read. `url`: the address of the storage, whose own errors are those of
    `storage_errors`.
    """
    try:
        yield
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = message_of(error) or type(error).__name__
        what, remedy = f"the storage of searches {without_passwords(url)}", "move it aside, or repair it"
        if name is not None:
            what, remedy = f"study '{name}' in the storage of searches", deleting(name, url)
        raise StorageError(
            f"{what} is damaged ({reason}); {remedy}; the runs stay in the store, and are not trained again"
        ) from None


def check_study(study: optuna.Study) -> None:
    """Raises `ValueError`, `TypeError` or other errors of Python unless everything that is stored of a study can be
    read and has the form that we write."""
    attributes, trials, directions = study.user_attrs, study.get_trials(), study.directions
    _require_types(attributes, {COMPARABILITY: str, PLANNED: int, FRESH: dict})
    if COMPARABILITY not in attributes:
        return
    _require_types(attributes.get(FRESH, {}), {"trial": int, KEYS: list, SEEDS: list})
    if directions != [StudyDirection.MINIMIZE]:
        raise ValueError("its objective is not minimised")
    for trial in trials:
        _require_types(trial.user_attrs, {KEYS: list, RETRY_OF: int, INFEASIBLE: str})
        if trial.state == TrialState.COMPLETE and not isinstance(trial.value, float):
            raise ValueError(f"trial {trial.number} is complete and has no value")


def _require_types(found: Mapping[str, Any], expected: Mapping[str, type]) -> None:
    for name, kind in expected.items():
        if name in found and not isinstance(found[name], kind):
            raise TypeError(f"its attribute '{name}' is {shown(found[name])}")


def deleting(name: str, url: str) -> str:
    """How a user deletes a study."""
    words = shlex.join(["optuna", "delete-study", "--study-name", name, "--storage", url])
    return f"delete the study: {words}"


def requeue_orphans(study: optuna.Study) -> None:
    """Fail the trials that a dead process left running, and queue a copy of each, exactly once.

    The copy is made first and names the trial that it repeats: a kill between the two steps leads to no second copy.
    """
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        if trial.number not in repeated:
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**trial.user_attrs, RETRY_OF: trial.number},
                    intermediate_values=trial.intermediate_values,
                )
            )
        study.tell(trial.number, state=TrialState.FAIL)


@dataclass(frozen=True)
class StudyStatus:
    """How far a study has got.

    Attributes:
        complete, pruned, failed, running: number of trials in each state; waiting trials count as running.
        planned: number of trials that the search asks for.
        best: the best complete trial, or None.
        fresh_keys: the winner's runs on fresh seeds; empty until they have ended.
    """

    name: str
    complete: int
    pruned: int
    failed: int
    running: int
    planned: int
    best: FrozenTrial | None
    fresh_keys: tuple[str, ...]

    @property
    def judged(self) -> int:
        """Number of trials with a result."""
        return self.complete + self.pruned

    @property
    def params(self) -> dict[str, Any]:
        return {} if self.best is None else dict(self.best.params)


def study_status(study: optuna.Study) -> StudyStatus:
    trials = study.get_trials(deepcopy=False)
    count = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    fresh = study.user_attrs.get(FRESH, {})
    best = winner(trials)
    return StudyStatus(
        name=study.study_name,
        complete=count[TrialState.COMPLETE],
        pruned=count[TrialState.PRUNED],
        failed=count[TrialState.FAIL],
        running=count[TrialState.RUNNING] + count[TrialState.WAITING],
        planned=study.user_attrs.get(PLANNED, 0),
        best=best,
        fresh_keys=tuple(fresh[KEYS]) if best is not None and fresh.get("trial") == best.number else (),
    )


def winner(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the smallest value; of equal ones, the first. One whose runs diverged has no finite value
    and never wins."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    finite = [trial for trial in complete if math.isfinite(trial.value)]
    return min(finite, key=lambda trial: (trial.value, trial.number), default=None)


def study_statuses(project: Project, url: str | None = None) -> list[StudyStatus]:
    """The status of all studies in a storage, sorted by name. Creates no storage, and leaves no connection open."""
    with storage_errors(storage_url(project, url)):
        if (storage := _storage_that_is_there(project, url)) is None:
            return []
        try:
            return [study_status(study) for study in _studies_in(storage)]
        finally:
            storage.engine.dispose()


def load_studies(project: Project, prefix: str = "", url: str | None = None) -> list[optuna.Study]:
    """The studies in a storage, sorted by name: all, or those named `prefix` or `prefix/…`. Creates no storage."""
    storage = _storage_that_is_there(project, url)
    return [] if storage is None else _studies_in(storage, prefix)


def _storage_that_is_there(project: Project, url: str | None) -> RDBStorage | None:
    file = sqlite_file(storage_url(project, url))
    return None if file is not None and not is_there(file) else connect_storage(project, url)


def _studies_in(storage: RDBStorage, prefix: str = "") -> list[optuna.Study]:
    with storage_errors(storage.url):
        with damaged_study(None, storage.url):
            names = optuna.get_all_study_names(storage)
        studies = []
        for name in sorted(name for name in names if f"{name}/".startswith(prefix and f"{prefix}/")):
            with damaged_study(name, storage.url):
                studies.append(optuna.load_study(study_name=name, storage=storage))
                check_study(studies[-1])
        # Another program's studies in the same storage are not ours to show.
        return [study for study in studies if COMPARABILITY in study.user_attrs]
