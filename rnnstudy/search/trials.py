"""The trials and parameter importances of Optuna's studies, as rows of a table."""

import math
import warnings
from typing import Any

import optuna
from optuna.trial import TrialState

from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.search.definition import searches_of
from rnnstudy.search.studies import KEYS, load_studies, study_status
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import Experiment
from rnnstudy.sweep.grids import Scale


def most_runs(experiment: Experiment, scale: Scale) -> int:
    """How many runs the searches of an experiment file make at one scale, at most."""
    searches = [study.search for study in searches_of(experiment, scale)]
    return sum(search.trials * len(search.seeds) + len(search.fresh_seeds) for search in searches)


def share_done(experiment: Experiment, scale: Scale, done: SearchTrials) -> float:
    """The share that is done: 1 when every candidate was evaluated and every winner trained on its fresh seeds."""
    searches = [study.search for study in searches_of(experiment, scale)]
    planned = sum(search.trials + bool(search.fresh_seeds) for search in searches)
    return min(1.0, (len(done.trials) + done.winners) / planned)


def search_trials(project: Project, experiment: str, scale: str) -> SearchTrials:
    """The searches of an experiment at one scale, from the project's studies; empty where there are none."""
    studies = load_studies(project, f"{experiment}/{scale}")
    return SearchTrials.of_rows(
        [row for study in studies for row in trial_rows(study)],
        [row for study in studies for row in importance_rows(study)],
    )


def trial_rows(study: optuna.Study) -> list[dict[str, Any]]:
    """One row for each complete or pruned trial; see `SearchTrials.trials`."""
    status = study_status(study)
    fresh = {status.best.number: " ".join(status.fresh_keys)} if status.best is not None else {}
    return [
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


def importance_rows(study: optuna.Study) -> list[dict[str, Any]]:
    """The importance of each parameter: its share of the variation between good and poor trials, by PED-ANOVA, Optuna's
    default. Empty where fewer than four trials of finite value are complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if sum(trial.value is not None and math.isfinite(trial.value) for trial in complete) < 4:
        return []
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # Of a parameter that few trials have, such as the gain of one kind of start, Optuna says that it is inaccurate.
        shares = optuna.importance.get_param_importances(study)
    return [{"study": study.study_name, "parameter": name, "importance": share} for name, share in shares.items()]
