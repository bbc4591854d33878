"""The work queue of a search: it asks for new populations of candidates as results arrive."""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from optuna.storages import RDBStorage

from rnnstudy.run import Run
from rnnstudy.search.definition import StudyDefinition, ValidationResult
from rnnstudy.search.studies import open_study, storage_errors
from rnnstudy.search.study_runner import Candidate, StudyRunner
from rnnstudy.spec import RequestError, digest
from rnnstudy.store.project import Project
from rnnstudy.store.stored_run import COMPLETE
from rnnstudy.store.tracker import CompletedRun, Failures, KnownRuns
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import make_plan
from rnnstudy.training.records import Outcome, ValidationCheck


class SearchQueue:
    """The populations of all studies of an experiment file (see `WorkQueue`). The studies do not wait for each other.

    Args:
        definitions: the searches of the file.
        storage: where their studies are stored.
        known: which runs are complete or have failed. It is read once, here.
        project: whose checkpoints and stored results are used.
        workers: number of workers; a batch is split if there are more workers than studies.
    """

    def __init__(
        self,
        definitions: Sequence[StudyDefinition],
        storage: RDBStorage,
        known: KnownRuns,
        project: Project,
        *,
        workers: int,
    ) -> None:
        self._project, self._storage, self._workers = project, storage, workers
        self._known = _Snapshot(known)
        self._waiting: deque[Assignment] = deque()
        self._errors: dict[str, dict[int, float]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._status: dict[str, str] = {}
        self._newly_complete: set[str] = set()
        self.complete_keys: set[str] = set()
        self.studies = [
            StudyRunner(open_study(storage, definition.name, definition.search), definition, storage.url)
            for definition in definitions
        ]

    @property
    def done(self) -> bool:
        return all(study.done for study in self.studies)

    @property
    def runs_left(self) -> int:
        """The number of runs still to train, at most; for a display."""
        return sum(study.trials_left * len(study.search.seeds) + study.fresh_runs_left for study in self.studies)

    def next(self) -> Assignment | None:
        with storage_errors(self._storage.url):
            while not self._waiting:
                idle = next((study for study in self.studies if not study.done and not study.open), None)
                if idle is None:
                    return None
                idle.advance()
                self._plan(idle)
        return self._waiting.popleft()

    def _plan(self, study: StudyRunner) -> None:
        """Queue the runs of a study's open candidates that are neither complete nor in training."""
        others = [candidate for other in self.studies if other is not study for candidate in other.open]
        in_training = {key for candidate in others for key in candidate.keys} - self._status.keys()
        wanted = {run.key: run for candidate in study.open for run in candidate.runs if run.key not in in_training}
        complete = wanted.keys() & self._newly_complete
        runs = [run for key, run in wanted.items() if key not in complete]
        parts = max(1, math.ceil(self._workers / max(1, sum(not study.done for study in self.studies))))
        plan = make_plan(runs, self._known, self._project.checkpoints, parts)
        for key in plan.complete:
            self._status.setdefault(key, "finished")
        self._status |= dict.fromkeys(plan.given_up, "failed")
        for assignment in plan.assignments:
            for run in assignment.runs:
                self._status.pop(run.key, None)
        self.complete_keys |= complete | plan.complete
        self._waiting.extend(plan.assignments)
        self._close_ended()

    def requeue(self, assignment: Assignment) -> None:
        self._waiting.appendleft(assignment)

    def on_validation(self, check: ValidationCheck) -> Collection[str]:
        for key, error in check.errors.items():
            # In the store's precision, so that a value computed from the store later is equal.
            self._errors.setdefault(key, {})[check.step] = float(np.float32(error))
        with storage_errors(self._storage.url):
            return {key for study in self.studies for key in study.report(self._errors, check)}

    def on_ended(self, key: str, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._status[key] = outcome.status
        if outcome.status in COMPLETE:
            self._newly_complete.add(key)
        self._close_ended()

    def on_ended_elsewhere(self, complete: Collection[str], given_up: Collection[str]) -> None:
        self._newly_complete |= set(complete)
        self._status |= dict.fromkeys(complete, "finished") | dict.fromkeys(given_up, "failed")
        self.complete_keys |= set(complete)
        self._close_ended()

    def _close_ended(self) -> None:
        """Close the batch of every study whose open candidates have all ended."""
        for study in self.studies:
            runs = {run.key: run for candidate in study.open for run in candidate.runs}
            if runs and runs.keys() <= self._status.keys():
                complete = [run for key, run in runs.items() if self._status[key] in COMPLETE]
                with storage_errors(self._storage.url):
                    study.close(self._status, self._results(complete))
                for key in runs:
                    self._errors.pop(key, None)

    def _results(self, runs: Sequence[Run]) -> dict[str, ValidationResult]:
        """The results of complete runs: from this process if they were trained in it, else from the store."""
        results = {}
        for run in runs:
            errors, outcome = self._errors.get(run.key), self._outcomes.get(run.key)
            if errors and outcome is not None:
                error = math.inf if outcome.status == "diverged" else errors[max(errors)]
                results[run.key] = ValidationResult(error, outcome.steps_to_solve, run.training.steps)
        return results | stored_results([run for run in runs if run.key not in results], self._project)

    def _users_of(self, key: str) -> list[tuple[StudyRunner, Candidate]]:
        """The open candidates to which a run belongs."""
        return [(study, candidate) for study in self.studies for candidate in study.open if key in candidate.keys]

    def run_name(self, run: Run) -> str:
        numbers = " + ".join(
            f"trial {candidate.number}" + ("" if candidate.trial else " fresh")
            for _, candidate in self._users_of(run.key)
        )
        return f"{run.name} {numbers}" if numbers else run.name

    def run_tags(self, run: Run) -> Mapping[str, str]:
        users = self._users_of(run.key)
        return {
            "rnnstudy.study": ", ".join(dict.fromkeys(study.definition.name for study, _ in users)),
            "rnnstudy.trial": ", ".join(str(candidate.number) for _, candidate in users),
            "rnnstudy.seeds": "fresh" if any(candidate.trial is None for _, candidate in users) else "search",
        }


class _Snapshot:
    """The runs that were complete or had failed when the search began."""

    def __init__(self, known: KnownRuns) -> None:
        self._finished, self._failures = dict(known.finished()), dict(known.failures())

    def finished(self, keys: Collection[str] | None = None) -> Mapping[str, CompletedRun]:
        return self._finished

    def failures(self, keys: Collection[str] | None = None) -> Mapping[str, Failures]:
        return self._failures


def stored_results(runs: Sequence[Run], project: Project) -> dict[str, ValidationResult]:
    """The results, by key, of runs that are complete in the store."""
    from rnnstudy import results

    if not runs:
        return {}
    loaded = results.load([run.key for run in runs], project=project)
    checks = loaded.readings("learning/error") if "learning/error" in loaded.names else None
    found = {}
    for run in runs:
        row, error = loaded.runs.loc[run.key], math.inf
        if row["status"] == "finished" and checks is not None:
            own = checks.loc[checks["key"] == run.key]
            error = float(own.set_index("step")["value"].sort_index().iloc[-1])
        solved_at = str(row["steps_to_solve"])
        found[run.key] = ValidationResult(error, int(solved_at) if solved_at.isdigit() else None, run.training.steps)
    return found


def claim_studies(claims: Claims, storage: RDBStorage, names: Sequence[str]) -> None:
    """Claim these studies for this launcher, all or none: a second launcher would take the trials in training for those
    of a dead process.

    Raises `RequestError` with the name of the process that has claimed one of them.
    """
    by_key = {f"study-{digest([storage.url, name])}": name for name in names}
    for key in by_key.keys() - claims.take(by_key):
        claims.release(by_key)
        owner = claims.holder(key)
        if owner is None:
            raise RequestError(f"study '{by_key[key]}' was being searched by a process that has just ended; try again")
        raise RequestError(f"study '{by_key[key]}' is being searched by {owner}; {claims.remedy(key, owner)}")
