from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

COLUMNS = ("study", "trial", "state", "value", "keys", "fresh")
"""Columns of `SearchTrials.trials`, before those of the parameters."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SearchTrials:
    """The searches of an experiment at one scale.

    Attributes:
        trials: one row for each complete or pruned trial of each study: `study`, `trial`, `state`, `value` (missing for
            a pruned trial), `keys` (of its runs, separated by spaces), `fresh` (the keys of the winner's runs on
            fresh seeds; empty for other trials), and one column for each parameter.
        importances: one row for each parameter of each study: `study`, `parameter`, `importance`.
    """

    trials: pd.DataFrame
    importances: pd.DataFrame

    @staticmethod
    def of_rows(trials: Rows, importances: Rows) -> "SearchTrials":
        columns = list(dict.fromkeys([*COLUMNS, *(name for row in trials for name in row)]))
        return SearchTrials(
            pd.DataFrame(trials, columns=columns).astype({"trial": int, "value": float}),
            pd.DataFrame(importances, columns=["study", "parameter", "importance"]).astype({"importance": float}),
        )

    def of_study(self, name: str) -> "SearchTrials":
        """The searches called `name` or `name/…`."""

        def own(table: pd.DataFrame) -> pd.DataFrame:
            return table.loc[(table["study"] + "/").str.startswith(name + "/")].reset_index(drop=True)

        return SearchTrials(own(self.trials), own(self.importances))

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
        """All runs, of candidates and of winners; a run that two candidates share appears once."""
        own = [key for keys in self.trials["keys"] for key in keys.split()]
        return tuple(dict.fromkeys([*own, *self.fresh_keys]))

    @property
    def summary(self) -> str:
        """How many candidates were evaluated, as a phrase."""
        states, searches = list(self.trials["state"]), len(set(self.trials["study"]))
        return (
            f"{len(self.trials)} candidates in {searches} {'search' if searches == 1 else 'searches'}, "
            f"{states.count('pruned')} of them pruned; "
            f"{self.winners} {'winner' if self.winners == 1 else 'winners'} trained again on fresh seeds"
        )
