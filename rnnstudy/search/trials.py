"""What a report reads of an experiment's searches: trials and importances as tables, from studies or an archive."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy.search.studies import KEYS, load_studies, study_status
from rnnstudy.store.project import Project

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study

    from rnnstudy.sweep.experiment import Experiment
    from rnnstudy.sweep.grids import Scale


@dataclass(frozen=True)
class SearchTrials:
    """The searches of an experiment at one scale.

    Attributes:
        trials: `studies.trials_table` of each, below each other.
        importances: `studies.importances` of each, below each other.
    """

    trials: "pd.DataFrame"
    importances: "pd.DataFrame"

    @property
    def fresh_keys(self) -> tuple[str, ...]:
        """The runs of all winners on fresh seeds: those to report."""
        return tuple(key for keys in self.trials["fresh"] for key in keys.split())

    @property
    def winners(self) -> int:
        """How many winners were trained on fresh seeds."""
        return sum(bool(keys) for keys in self.trials["fresh"])

    @property
    def keys(self) -> tuple[str, ...]:
        """All runs, of candidates and of winners on fresh seeds; a run that two candidates share once."""
        own = [key for keys in self.trials["keys"] for key in keys.split()]
        return tuple(dict.fromkeys([*own, *self.fresh_keys]))

    @property
    def words(self) -> str:
        """How many candidates were judged, in words."""
        states, searches = list(self.trials["state"]), len(set(self.trials["study"]))
        return (
            f"{len(self.trials)} candidates in {searches} {'search' if searches == 1 else 'searches'}, "
            f"{states.count('pruned')} of them given up early; "
            f"{self.winners} {'winner' if self.winners == 1 else 'winners'} trained again on fresh seeds"
        )


@dataclass(frozen=True)
class SearchBudget:
    """What the searches of an experiment file come to at one scale.

    Attributes:
        trials: how many candidates.
        winners: how many winners.
        runs: how many runs at most.
    """

    trials: int
    winners: int
    runs: int

    @staticmethod
    def of(experiment: "Experiment", scale: "Scale") -> "SearchBudget":
        found = [search for _, search, _ in experiment.searches(scale)]
        runs = sum(one.trials * len(one.seeds) + len(one.fresh_seeds) for one in found)
        return SearchBudget(sum(one.trials for one in found), sum(bool(one.fresh_seeds) for one in found), runs)

    def share(self, there: SearchTrials) -> float:
        """How much of it is there: 1 when every candidate was judged and every winner trained on fresh seeds."""
        return min(1.0, (len(there.trials) + there.winners) / (self.trials + self.winners))


def search_trials(experiment: str, scale: "Scale", project: Project, archive: Path | None = None) -> SearchTrials:
    """The searches of an experiment at one scale, from the project's studies or from an archive; empty for none."""
    if archive is not None:
        from rnnstudy.results.archive import Archive

        return _of_scale(Archive.open(archive).searched(experiment), f"{experiment}/{scale.value}")
    found = load_studies(project, f"{experiment}/{scale.value}")
    return SearchTrials(
        _below_each_other([trials_table(one) for one in found], COLUMNS),
        _below_each_other([importances(one) for one in found], ("study", "parameter", "importance")),
    )


def _of_scale(all_scales: SearchTrials, name: str) -> SearchTrials:
    def own(table: "pd.DataFrame") -> "pd.DataFrame":
        return table.loc[(table["study"] + "/").str.startswith(name + "/")].reset_index(drop=True)

    return SearchTrials(own(all_scales.trials), own(all_scales.importances))


def _below_each_other(tables: "list[pd.DataFrame]", columns: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    # An empty table has no types of its own that the others could keep.
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def trials_table(study: "Study") -> "pd.DataFrame":
    """One row for each complete or pruned trial: `study`, `trial`, `state`, `value`, `keys` (of its runs, in one text),
    `fresh` (the same for the winner's runs on fresh seeds; otherwise empty), and one column for each parameter; `value`
    of a pruned trial is missing."""
    import pandas as pd
    from optuna.trial import TrialState

    stands = study_status(study)
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


COLUMNS = ("study", "trial", "state", "value", "keys", "fresh")
"""Of `trials_table`, before the parameters."""
