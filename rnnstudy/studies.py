"""Optuna's studies: where they are kept, how one is opened and taken up again, and how they stand."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnstudy.claims import Claims
from rnnstudy.home import Home
from rnnstudy.search import Search
from rnnstudy.spec import SpecError, digest

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

MEANING, PLANNED, FRESH, KEYS, AGAIN = "meaning", "trials", "fresh", "keys", "again"
"""Attributes of ours: of a study, what its values mean, how many trials it is to have, and the winner's fresh runs; of
a trial, the keys of its runs, and the number of the trial that it takes up again."""


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
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


def address(home: Home, named: str | None) -> str:
    """Where studies are kept: `named`, or an sqlite database beside MLflow's."""
    return named or f"sqlite:///{home.mlruns / 'optuna.db'}"


def connect(home: Home, named: str | None) -> "RDBStorage":
    """The storage at `named`, or the project's own; made on first use. Raises `SpecError` when it cannot be used."""
    from optuna import logging
    from optuna.storages import RDBStorage

    logging.set_verbosity(logging.WARNING)
    url = address(home, named)
    if named is None:
        home.mlruns.mkdir(parents=True, exist_ok=True)
    with told(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return RDBStorage(_with_driver(url))


def _with_driver(url: str) -> str:
    """PostgreSQL by the driver that `rnnstudy[postgres]` installs: which one SQLAlchemy takes by itself depends on its
    version."""
    scheme, colon, rest = url.partition(":")
    return f"postgresql+psycopg2{colon}{rest}" if scheme == "postgresql" else url


def claim(claims: Claims, storage: "RDBStorage", names: Sequence[str]) -> None:
    """Make these studies this launcher's own, all or none: another would take its trials in training for dead ones.

    Raises `SpecError` with who has one.
    """
    held = {f"study-{digest([storage.url, name])}": name for name in names}
    for key in held.keys() - claims.take(held):
        claims.release(held)
        owner = claims.holder(key)
        raise SpecError(
            f"study '{held[key]}' is being searched by {owner or 'another process, which has just ended'}; "
            "wait for it, or end it first"
        )


def open_study(storage: "RDBStorage", name: str, search: Search) -> "Study":
    """The study `name`, made on first use, with the trials of a process that died queued again.

    Raises `SpecError` for a study whose values mean something else.
    """
    import optuna

    with told(storage.url):
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
        mend(study)
    return study


def mend(study: "Study") -> int:
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
class Standing:
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


def standing(study: "Study") -> Standing:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    count = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    fresh = study.user_attrs.get(FRESH, {})
    best = winner(trials)
    return Standing(
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


def standings(home: Home, named: str | None = None) -> list[Standing]:
    """All studies of a storage, in the order of their names. Nothing is created by looking."""
    import optuna

    if named is None and not (home.mlruns / "optuna.db").exists():
        return []
    storage = connect(home, named)
    with told(storage.url):
        names = sorted(summary.study_name for summary in optuna.get_all_study_summaries(storage))
        return [standing(optuna.load_study(study_name=name, storage=storage)) for name in names]


COLUMNS = ("study", "trial", "state", "value", "keys", "fresh")
"""Of `trials_table`, before the parameters."""


def trials_table(study: "Study") -> "pd.DataFrame":
    """One row for each complete or pruned trial: `study`, `trial`, `state`, `value`, `keys` (of its runs, in one text),
    `fresh` (the same for the winner's runs on fresh seeds; otherwise empty), and one column for each parameter; `value`
    of a pruned trial is missing."""
    import pandas as pd
    from optuna.trial import TrialState

    stands = standing(study)
    fresh = {stands.best.number: " ".join(stands.fresh_keys)} if stands.best is not None else {}
    rows = [
        {
            "study": study.study_name,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "keys": " ".join(trial.user_attrs.get(KEYS, ())),
            "fresh": fresh.get(trial.number, ""),
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    table = pd.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])))
    return table.astype({"trial": int, "value": float})


def importances(study: "Study") -> "pd.DataFrame":
    """Share of each parameter in how far the trials lie apart: PED-ANOVA, Optuna's default. Columns `study`,
    `parameter`, `importance`; empty where fewer than four trials of finite value are complete."""
    import math

    import optuna
    import pandas as pd

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    shares: dict[str, float] = {}
    if sum(trial.value is not None and math.isfinite(trial.value) for trial in complete) >= 4:
        shares = optuna.importance.get_param_importances(study)
    rows = [{"study": study.study_name, "parameter": name, "importance": share} for name, share in shares.items()]
    return pd.DataFrame(rows, columns=["study", "parameter", "importance"]).astype({"importance": float})


def load(home: Home, experiment: str, named: str | None = None) -> "list[Study]":
    """The studies of an experiment (`experiment` or `experiment/scale`), by name; none where there are none."""
    import optuna

    found = [one.name for one in standings(home, named) if f"{one.name}/".startswith(f"{experiment}/")]
    if not found:
        return []
    storage = connect(home, named)
    return [optuna.load_study(study_name=name, storage=storage) for name in found]
