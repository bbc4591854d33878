"""The trials and parameter importances of Optuna's studies, as rows of a table."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.search.definition import searches_of
from rnnstudy.search.studies import KEYS, load_studies, study_status
from rnnstudy.store.project import Project

if TYPE_CHECKING:
    from optuna import Study

    from rnnstudy.sweep.experiment import Experiment
    from rnnstudy.sweep.grids import Scale


@dataclass(frozen=True)
class SearchBudget:
    """How much work the searches of an experiment file are at one scale.

    Attributes:
        trials: number of candidates.
        winners: number of winners.
        runs: number of runs, at most.
    """

    trials: int
    winners: int
    runs: int

    @staticmethod
    def of(experiment: "Experiment", scale: "Scale") -> "SearchBudget":
        searches = [study.search for study in searches_of(experiment, scale)]
        runs = sum(search.trials * len(search.seeds) + len(search.fresh_seeds) for search in searches)
        winners = sum(bool(search.fresh_seeds) for search in searches)
        return SearchBudget(sum(search.trials for search in searches), winners, runs)

    def share(self, done: SearchTrials) -> float:
        """The share that is done: 1 when every candidate was evaluated and every winner trained on its fresh seeds."""
        return min(1.0, (len(done.trials) + done.winners) / (self.trials + self.winners))


def search_trials(project: Project, experiment: str, scale: str) -> SearchTrials:
    """The searches of an experiment at one scale, from the project's studies; empty where there are none."""
    studies = load_studies(project, f"{experiment}/{scale}")
    return SearchTrials.of_rows(
        [row for study in studies for row in trial_rows(study)],
        [row for study in studies for row in importance_rows(study)],
    )


def trial_rows(study: "Study") -> list[dict[str, Any]]:
    """One row for each complete or pruned trial; see `SearchTrials.trials`."""
    from optuna.trial import TrialState

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


def importance_rows(study: "Study") -> list[dict[str, Any]]:
    """The importance of each parameter: its share of the variation between good and poor trials, by PED-ANOVA, Optuna's
    default. Empty where fewer than four trials of finite value are complete."""
    import optuna

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    if sum(trial.value is not None and math.isfinite(trial.value) for trial in complete) < 4:
        return []
    shares = optuna.importance.get_param_importances(study)
    return [{"study": study.study_name, "parameter": name, "importance": share} for name, share in shares.items()]
