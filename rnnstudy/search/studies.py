"""Optuna's studies: where they are kept, how one is opened and taken up again, and how they stand."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnstudy.search.definition import Search
from rnnstudy.spec import SpecError
from rnnstudy.store.project import Project

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


MEANING, PLANNED, FRESH, KEYS, AGAIN = "meaning", "trials", "fresh", "keys", "again"
"""Attributes of ours: of a study, what its values mean, how many trials it is to have, and the winner's fresh runs; of
a trial, the keys of its runs, and the number of the trial that it takes up again."""


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """A fault of Optuna's storage as one line."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, ImportError, OSError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        raise SpecError(f"the storage of searches {without_password(url)} cannot be used: {reason}") from None


def without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.rpartition(':')[0]}:…@{tail}" if at and head.count(":") > 1 else url


def storage_url(project: Project, named: str | None) -> str:
    """Where studies are kept: `named`, or an sqlite database beside MLflow's."""
    return named or f"sqlite:///{project.mlruns / 'optuna.db'}"


def connect_storage(project: Project, named: str | None) -> "RDBStorage":
    """The storage at `named`, or the project's own; made on first use. Raises `SpecError` when it cannot be used."""
    from optuna import logging
    from optuna.storages import RDBStorage

    logging.set_verbosity(logging.WARNING)
    url = storage_url(project, named)
    if named is None:
        project.mlruns.mkdir(parents=True, exist_ok=True)
    with storage_errors(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return RDBStorage(_with_driver(url))


def _with_driver(url: str) -> str:
    """PostgreSQL by the driver that `rnnstudy[postgres]` installs: which one SQLAlchemy takes by itself depends on its
    version."""
    scheme, colon, rest = url.partition(":")
    return f"postgresql+psycopg2{colon}{rest}" if scheme == "postgresql" else url


def open_study(storage: "RDBStorage", name: str, search: Search) -> "Study":
    """The study `name`, made on first use, with the trials of a process that died queued again.

    Raises `SpecError` for a study whose values mean something else.
    """
    import optuna

    with storage_errors(storage.url):
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True, pruner=search.made_pruner()
        )
        kept = study.user_attrs.get(MEANING)
        if kept is None:
            study.set_user_attr(MEANING, search.meaning)
        elif kept != search.meaning:
            raise SpecError(
                f"study '{name}' was begun with another objective or other seeds; give the search another name, or "
                f"delete it: optuna delete-study --study-name '{name}' --storage {without_password(storage.url)}"
            )
        if study.user_attrs.get(PLANNED) != search.trials:
            study.set_user_attr(PLANNED, search.trials)
        requeue_orphans(study)
    return study


def requeue_orphans(study: "Study") -> int:
    """Fail the trials that a dead process left running, and queue each again, exactly once; gives how many.

    The copy is made first and names the trial it replaces: a kill between the two steps makes no second copy.
    """
    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get(AGAIN) for trial in trials}
    left = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in left:
        if trial.number not in replaced:
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**trial.user_attrs, AGAIN: trial.number},
                    intermediate_values=trial.intermediate_values,
                )
            )
        study.tell(trial.number, state=TrialState.FAIL)
    return len(left)


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        complete, pruned, failed, running: trials by state; those waiting count as running.
        planned: how many it is to have.
        best: the best complete trial, or None.
        fresh_keys: the winner's runs on fresh seeds; empty until they have ended.
    """

    name: str
    complete: int
    pruned: int
    failed: int
    running: int
    planned: int
    best: "FrozenTrial | None"
    fresh_keys: tuple[str, ...]

    @property
    def params(self) -> dict[str, Any]:
        return {} if self.best is None else dict(self.best.params)


def study_status(study: "Study") -> StudyStatus:
    from optuna.trial import TrialState

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


def winner(trials: "Sequence[FrozenTrial]") -> "FrozenTrial | None":
    """The complete trial of the least value, the first of equals."""
    from optuna.trial import TrialState

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    return min(complete, key=lambda trial: (trial.value, trial.number), default=None)


def study_statuses(project: Project, named: str | None = None) -> list[StudyStatus]:
    """All studies of a storage, in the order of their names. Nothing is created by looking."""
    import optuna

    if named is None and not (project.mlruns / "optuna.db").exists():
        return []
    storage = connect_storage(project, named)
    with storage_errors(storage.url):
        names = sorted(summary.study_name for summary in optuna.get_all_study_summaries(storage))
        return [study_status(optuna.load_study(study_name=name, storage=storage)) for name in names]


def load_studies(project: Project, experiment: str, named: str | None = None) -> "list[Study]":
    """The studies of an experiment (`experiment` or `experiment/scale`), by name; none where there are none."""
    import optuna

    found = [one.name for one in study_statuses(project, named) if f"{one.name}/".startswith(f"{experiment}/")]
    if not found:
        return []
    storage = connect_storage(project, named)
    return [optuna.load_study(study_name=name, storage=storage) for name in found]
