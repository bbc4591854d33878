"""What a report reads of an experiment's searches: trials and importances as tables, from studies or an archive."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnnstudy import studies
from rnnstudy.home import Home

if TYPE_CHECKING:
    import pandas as pd

    from rnnstudy.sweep import Experiment, Scale


@dataclass(frozen=True)
class Searched:
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
class Asked:
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
    def of(experiment: "Experiment", scale: "Scale") -> "Asked":
        found = [search for _, search, _ in experiment.searches(scale)]
        runs = sum(one.trials * len(one.seeds) + len(one.fresh_seeds) for one in found)
        return Asked(sum(one.trials for one in found), sum(bool(one.fresh_seeds) for one in found), runs)

    def share(self, there: Searched) -> float:
        """How much of it is there: 1 when every candidate was judged and every winner trained on fresh seeds."""
        return min(1.0, (len(there.trials) + there.winners) / (self.trials + self.winners))


def searched(experiment: str, scale: "Scale", home: Home, archive: Path | None = None) -> Searched:
    """The searches of an experiment at one scale, from the project's studies or from an archive; empty for none."""
    if archive is not None:
        from rnnstudy.archive import Archive

        return _of_scale(Archive.open(archive).searched(experiment), f"{experiment}/{scale.value}")
    found = studies.load(home, f"{experiment}/{scale.value}")
    return Searched(
        _below_each_other([studies.trials_table(one) for one in found], studies.COLUMNS),
        _below_each_other([studies.importances(one) for one in found], ("study", "parameter", "importance")),
    )


def _of_scale(all_scales: Searched, name: str) -> Searched:
    def own(table: "pd.DataFrame") -> "pd.DataFrame":
        return table.loc[(table["study"] + "/").str.startswith(name + "/")].reset_index(drop=True)

    return Searched(own(all_scales.trials), own(all_scales.importances))


def _below_each_other(tables: "list[pd.DataFrame]", columns: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    # An empty table has no types of its own that the others could keep.
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
