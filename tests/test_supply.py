"""A launcher trains what its supply hands out, tells it what happened, and stops what it gives up."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.mlflow_tracker import open_store
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.grids import grid
from rnnstudy.sweep.launcher import Launcher
from rnnstudy.sweep.messages import Assignment
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Check, Outcome, TrainingProgress

RUNS = grid(
    Run(
        task=TemporalOrder(length=10),
        cell=Elman(width=3),
        training=Training(steps=100_000, batch=2, check_every=10, validation_sequences=40, test_sequences=4),
        probes=(),
    ),
    {},
    seeds=range(4),
)


class Silent:
    """A watcher that draws nothing."""

    def started(self, task: Assignment) -> None: ...

    def progressed(self, task: Assignment, progress: TrainingProgress) -> None: ...

    def ended(self, task: Assignment, message: str) -> None: ...

    def said(self, line: str) -> None: ...


class TwoAfterTheOther:
    """A second population follows from how the first ended, which is given up from its second check on."""

    def __init__(self, place: Project) -> None:
        self._folder, self._store = place.checkpoints, Store(place)
        self._handed_out = 0
        self.served: Collection[str] = ()
        self.checks: list[Check] = []
        self.outcomes: dict[str, Outcome] = {}

    @property
    def done(self) -> bool:
        return self._handed_out == 2

    def take(self) -> Assignment | None:
        if len(self.outcomes) < 2 * self._handed_out or self.done:
            return None
        runs = tuple(RUNS[2 * self._handed_out :][:2])
        if self._handed_out == 1:
            runs = tuple(run.replace(training=run.training.replace(steps=20)) for run in runs)
        self._handed_out += 1
        return Assignment(runs, self._folder / f"{self._handed_out}.pt", None)

    def give_back(self, task: Assignment) -> None:
        raise AssertionError("no worker dies here")

    def checked(self, check: Check) -> Collection[str]:
        self.checks.append(check)
        return {run.key for run in RUNS[:2]} if check.step >= 20 else ()

    def ended(self, key: str, outcome: Outcome) -> None:
        assert key not in self.outcomes
        # A search that is told first and killed then would have judged a run that nobody has.
        [kept] = self._store.runs(key)
        assert kept.state == outcome.status
        self.outcomes[key] = outcome

    def ended_elsewhere(self, served: Collection[str], set_aside: Collection[str]) -> None:
        raise AssertionError("nobody else trains here")

    def name(self, run: Run) -> str:
        return f"candidate {run.seed}"

    def tags(self, run: Run) -> Mapping[str, str]:
        return {"rnnstudy.trial": str(run.seed)}


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_come_from_a_supply_that_hears_of_errors_and_outcomes(project_with_store: Path, workers: int) -> None:
    place = Project(project_with_store)
    supply = TwoAfterTheOther(place)
    launcher = Launcher(
        supply,
        open_store(place, SweepInfo("mine")),
        place,
        experiment=None,
        device="cpu",
        workers=workers,
        watcher=Silent(),
    )
    summary = launcher.run()
    assert not summary.interrupted
    assert summary.ended == supply.outcomes
    assert [outcome.status for outcome in supply.outcomes.values()] == ["pruned"] * 2 + ["finished"] * 2
    assert all(20 <= supply.outcomes[run.key].step < 100_000 for run in RUNS[:2])
    assert {key for check in supply.checks for key in check.errors} == summary.ended.keys()
    assert all(math.isfinite(error) for check in supply.checks for error in check.errors.values())
    stored = {run.key: run for run in open_store(place, SweepInfo("mine")).store.runs()}
    assert {run.state for run in stored.values()} == {"finished", "pruned"}
    assert (stored[RUNS[0].key].name, stored[RUNS[0].key].tags["rnnstudy.trial"]) == ("candidate 0", "0")
    assert not list(place.checkpoints.glob("*")), "what has ended keeps no checkpoint"
