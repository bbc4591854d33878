"""A launcher trains the assignments of its queue, reports errors and outcomes to it, and stops the runs it prunes."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.writer import Writer
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.grids import grid
from rnnstudy.sweep.launcher import Launcher
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import Plan
from rnnstudy.sweep.sharing import Sharing
from rnnstudy.sweep.summary import Silent
from rnnstudy.sweep.workers import ProcessPool
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, ValidationCheck

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


class TwoInTurn:
    """Two populations, one after the other. The first is pruned from its second check on."""

    def __init__(self, project: Project) -> None:
        self._folder, self._store = project.checkpoints, Store(project)
        self._handed_out = 0
        self.complete_keys: set[str] = set()
        self.checks: list[ValidationCheck] = []
        self.outcomes: dict[str, Outcome] = {}

    @property
    def done(self) -> bool:
        return self._handed_out == 2

    def next(self) -> Assignment | None:
        if len(self.outcomes) < 2 * self._handed_out or self.done:
            return None
        runs = tuple(RUNS[2 * self._handed_out :][:2])
        if self._handed_out == 1:
            runs = tuple(run.replace(training=run.training.replace(steps=20)) for run in runs)
        self._handed_out += 1
        return Assignment(runs, self._folder / f"{self._handed_out}.pt", None)

    def requeue(self, assignment: Assignment) -> None:
        raise AssertionError("no worker dies in this test")

    def on_validation(self, check: ValidationCheck) -> Collection[str]:
        self.checks.append(check)
        return {run.key for run in RUNS[:2]} if check.step >= 20 else ()

    def on_ended(self, key: str, outcome: Outcome) -> None:
        assert key not in self.outcomes
        # The store comes first: a search killed after this call has judged no run that is not stored.
        [stored] = self._store.runs(key)
        assert stored.state == outcome.status
        self.outcomes[key] = outcome

    def on_ended_elsewhere(self, complete: Collection[str], given_up: Collection[str]) -> None:
        raise AssertionError("there is no other launcher")

    def run_name(self, run: Run) -> str:
        return f"candidate {run.seed}"

    def run_tags(self, run: Run) -> Mapping[str, str]:
        return {"rnnstudy.trial": str(run.seed)}


def no_other_launcher(runs: Sequence[Run]) -> Plan:
    raise AssertionError("there is no other launcher")


@pytest.mark.parametrize("workers", [1, 2])
def test_assignments_come_from_a_queue_that_receives_errors_and_outcomes(
    project_with_store: Path, workers: int
) -> None:
    project = Project(project_with_store)
    queue = TwoInTurn(project)
    store = open_store(project)
    launcher = Launcher(
        queue,
        ProcessPool(workers, ["cpu"], None, "auto", project.logs),
        Writer(MlflowTracker(store, SweepInfo("mine")), None),
        Sharing(Claims(project.claims), store, no_other_launcher),
        project,
        Silent(),
    )
    summary = launcher.run()
    assert not summary.interrupted
    assert summary.ended == queue.outcomes
    assert [outcome.status for outcome in queue.outcomes.values()] == ["pruned"] * 2 + ["finished"] * 2
    assert all(20 <= queue.outcomes[run.key].step < 100_000 for run in RUNS[:2])
    assert {key for check in queue.checks for key in check.errors} == summary.ended.keys()
    assert all(math.isfinite(error) for check in queue.checks for error in check.errors.values())
    stored = {run.key: run for run in Store(project).runs()}
    assert {run.state for run in stored.values()} == {"finished", "pruned"}
    assert (stored[RUNS[0].key].name, stored[RUNS[0].key].tags["rnnstudy.trial"]) == ("candidate 0", "0")
    assert not list(project.checkpoints.glob("*")), "no checkpoint remains of runs that have ended"
