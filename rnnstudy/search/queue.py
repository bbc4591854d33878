"""The supply of a search: asks each study for candidates, has them trained, tells what they were worth.

What is reproducible: every run, as always; and, where the engine gives equal bits, the search itself, with any number
of workers. A study's batches follow each other: a batch is asked for when the one before it has been told, in the order
of its trials, with a sampler of its own whose seed is `Search.seed` plus the number of trials judged before. (A sampler
given as an object, and not as a function of a seed, goes on at random after a restart.) With a pruner that compares
candidates in training with each other (successive halving), decisions depend on the order in which errors come in.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnnstudy.run import Run
from rnnstudy.search.definition import RunSummary, Search, candidates
from rnnstudy.search.studies import FRESH, KEYS, open_study, storage_errors, study_status
from rnnstudy.spec import SpecError, digest
from rnnstudy.store.project import Project
from rnnstudy.store.stored_run import COMPLETE
from rnnstudy.store.tracker import CompletedRun, Failures, Tracker
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.messages import Assignment
from rnnstudy.sweep.plan import make_plan
from rnnstudy.training.records import Check, Outcome

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import TrialState


@dataclass
class _Candidate:
    """A trial under way, or a winner on its fresh seeds (`trial` is then None)."""

    number: int
    runs: tuple[Run, ...]
    trial: "Trial | None"
    reported: set[int] = field(default_factory=set)
    pruned: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)


class _KnownRuns:
    """What is complete: in the store when the search began, or since."""

    def __init__(self, tracker: Tracker) -> None:
        self.kept = dict(tracker.finished())
        self._failures = tracker.failures()

    def finished(self) -> Mapping[str, CompletedRun]:
        return self.kept

    def failures(self) -> Mapping[str, Failures]:
        return self._failures


class StudyRunner:
    """The candidates of one study, batch after batch, and then its winner on fresh seeds."""

    def __init__(self, study: "Study", search: Search, sample: Callable[..., Run], scale: Scale, path: Path) -> None:
        self.study, self.search = study, search
        self._sample, self._scale, self._path = sample, scale, path
        self._again = bool(study.get_trials(deepcopy=False))
        self._failed = 0
        self.open: list[_Candidate] = []
        self.done = False

    @property
    def _judged(self) -> int:
        standing = study_status(self.study)
        return standing.complete + standing.pruned

    @property
    def left(self) -> int:
        """Trials to come, those in training among them; what failed in this process is not replaced in it."""
        return max(0, self.search.trials - self._judged - self._failed)

    def advance(self) -> None:
        """Open the next batch, or the winner, or be done. Called when nothing is open."""
        count = min(self.search.together, self.left)
        if count:
            self._ask(count)
            return
        best = study_status(self.study)
        if best.best is None or best.fresh_keys or not self.search.fresh_seeds:
            self.done = True
            return
        from optuna.trial import FixedTrial

        run = self._run(FixedTrial(best.best.params, best.best.number))
        self.open = [_Candidate(best.best.number, candidates(run, self.search.fresh_seeds), None)]

    def _ask(self, count: int) -> None:
        from optuna.trial import TrialState

        # The candidates that a dead process left come first. One that it had no parameters for yet is drawn now.
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = sum(bool(trial.params) for trial in waiting)
        self.study.sampler = self.search.sampler_for(self._judged, self._again, queued)
        self._again = False
        for _ in range(count):
            trial = self.study.ask()
            run = self._run(trial)
            runs = candidates(run, self.search.seeds)
            trial.set_user_attr(KEYS, [one.key for one in runs])
            trial.set_user_attr("name", run.name)
            [frozen] = [one for one in self.study.get_trials(deepcopy=False) if one.number == trial.number]
            self.open.append(_Candidate(trial.number, runs, trial, set(frozen.intermediate_values)))

    def _run(self, trial: object) -> Run:
        from rnnstudy.sweep.experiment import one_line

        try:
            run = self._sample(trial, self._scale)
        except Exception as error:
            raise SpecError(one_line(self._path, error)) from None
        if not isinstance(run, Run):
            raise SpecError(f"{self._path}: sample(trial, scale) must give a Run, not {type(run).__name__}")
        return run

    def checked(self, errors: Mapping[str, Mapping[int, float]], check: Check) -> set[str]:
        """Report what has become known; gives the keys of the candidates that are given up."""
        given_up: set[str] = set()
        for one in self.open:
            if one.trial is not None and not one.pruned and not set(one.keys).isdisjoint(check.errors):
                known = [errors.get(key, {}).get(check.step) for key in one.keys]
                values = [error for error in known if error is not None]
                last = check.step >= one.runs[0].training.steps
                if len(values) == len(known) and check.step not in one.reported:
                    one.reported.add(check.step)
                    one.trial.report(self.search.seen_by_pruner(values), check.step)
                    one.pruned = not last and one.trial.should_prune()
            if one.pruned:
                given_up |= set(one.keys)
        return given_up - {key for one in self.open if not one.pruned for key in one.keys}

    def close(self, outcomes: Mapping[str, str], courses: Mapping[str, RunSummary]) -> None:
        """Tell what every open candidate was worth, in the order of their trials."""
        from optuna.trial import TrialState

        for one in self.open:
            ended = {outcomes[key] for key in one.keys}
            if one.trial is None:
                if "failed" not in ended:
                    self.study.set_user_attr(FRESH, {"trial": one.number, KEYS: list(one.keys)})
                self.done = True
            elif "failed" in ended:
                self._failed += 1
                self._tell(one.trial, state=TrialState.FAIL)
            elif one.pruned or "pruned" in ended:
                self._tell(one.trial, state=TrialState.PRUNED)
            else:
                self._tell(one.trial, self.search.worth([courses[key] for key in one.keys]))
        self.open = []

    def _tell(self, trial: "Trial", value: float | None = None, state: "TrialState | None" = None) -> None:
        try:
            self.study.tell(trial, value, state=state)
        except RuntimeError:
            # A grid sampler that has no more to propose asks the study to stop, which only Study.optimize can. The
            # trial itself has been told.
            if not self.study.trials[trial.number].state.is_finished():
                raise


class SearchQueue:
    """Populations of all studies of an experiment file (see `supply.Supply`); each study goes on by itself."""

    def __init__(
        self,
        searches: Sequence[tuple[str, Search, Callable[..., Run]]],
        storage: "RDBStorage",
        tracker: Tracker,
        project: Project,
        *,
        scale: Scale,
        path: Path,
        workers: int,
    ) -> None:
        self._project, self._storage, self._workers = project, storage, workers
        self._shelf = _KnownRuns(tracker)
        self._waiting: deque[Assignment] = deque()
        self._errors: dict[str, dict[int, float]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._status: dict[str, str] = {}
        self.served: set[str] = set()
        self.studies = [
            StudyRunner(open_study(storage, name, search), search, sample, scale, path)
            for name, search, sample in searches
        ]

    @property
    def done(self) -> bool:
        return all(one.done for one in self.studies)

    @property
    def runs_left(self) -> int:
        """Runs that are still to be trained at most, for a display."""
        return sum(
            one.left * len(one.search.seeds) + (0 if one.done else len(one.search.fresh_seeds)) for one in self.studies
        )

    def take(self) -> Assignment | None:
        with storage_errors(self._storage.url):
            while not self._waiting:
                idle = next((one for one in self.studies if not one.done and not one.open), None)
                if idle is None:
                    return None
                idle.advance()
                self._plan(idle)
        return self._waiting.popleft()

    def _plan(self, study: StudyRunner) -> None:
        """Queue the runs of a study's open candidates that are neither complete nor under way."""
        wanted = {run.key: run for one in study.open for run in one.runs}
        under_way = {run.key for other in self.studies if other is not study for one in other.open for run in one.runs}
        runs = [run for key, run in wanted.items() if key not in under_way or key in self._status]
        # Studies train beside each other: a batch is split only where there are more workers than studies.
        share = max(1, -(-self._workers // max(1, sum(not one.done for one in self.studies))))
        planned = make_plan(runs, self._shelf, self._project.checkpoints, share)
        for key in planned.served:
            self._status[key] = self._status.get(key, "finished")
        self._status |= dict.fromkeys(planned.set_aside, "failed")
        for task in planned.tasks:
            for run in task.runs:
                self._status.pop(run.key, None)
        self.served |= planned.served
        self._waiting.extend(planned.tasks)
        self._close()

    def give_back(self, task: Assignment) -> None:
        self._waiting.appendleft(task)

    def checked(self, check: Check) -> Collection[str]:
        for key, error in check.errors.items():
            # As it is kept in the store, so that a trial told from there gets the same value.
            self._errors.setdefault(key, {})[check.step] = float(np.float32(error))
        with storage_errors(self._storage.url):
            return {key for one in self.studies for key in one.checked(self._errors, check)}

    def ended(self, key: str, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._status[key] = outcome.status
        if outcome.status in COMPLETE:
            self._shelf.kept[key] = _TrainedHere()
        with storage_errors(self._storage.url):
            self._close()

    def ended_elsewhere(self, served: Collection[str], set_aside: Collection[str]) -> None:
        self._shelf.kept |= dict.fromkeys(served, _TrainedHere())
        self._status |= dict.fromkeys(served, "finished") | dict.fromkeys(set_aside, "failed")
        self.served |= set(served)
        with storage_errors(self._storage.url):
            self._close()

    def _close(self) -> None:
        for one in self.studies:
            runs = {run.key: run for candidate in one.open for run in candidate.runs}
            if runs and runs.keys() <= self._status.keys():
                complete = [run for run in runs.values() if self._status[run.key] in COMPLETE]
                one.close(self._status, self._courses(complete))
                for key in runs:
                    self._errors.pop(key, None)

    def _courses(self, runs: Sequence[Run]) -> dict[str, RunSummary]:
        """How complete runs went: as it was heard, or else as the store has it."""
        courses = {}
        for run in runs:
            heard, outcome = self._errors.get(run.key), self._outcomes.get(run.key)
            if heard and outcome is not None:
                error = math.inf if outcome.status == "diverged" else heard[max(heard)]
                courses[run.key] = RunSummary(error, outcome.steps_to_solve, run.training.steps)
        return {**stored_summaries([run for run in runs if run.key not in courses], self._project), **courses}

    def _holders(self, key: str) -> list[tuple[StudyRunner, _Candidate]]:
        return [(one, candidate) for one in self.studies for candidate in one.open if key in candidate.keys]

    def name(self, run: Run) -> str:
        numbers = "+".join(
            f"trial{candidate.number}" + ("" if candidate.trial else "-fresh")
            for _, candidate in self._holders(run.key)
        )
        return f"{run.name}-{numbers}" if numbers else run.name

    def tags(self, run: Run) -> Mapping[str, str]:
        holders = self._holders(run.key)
        return {
            "rnnstudy.study": ", ".join(dict.fromkeys(one.study.study_name for one, _ in holders)),
            "rnnstudy.trial": ", ".join(str(candidate.number) for _, candidate in holders),
            "rnnstudy.seeds": "fresh" if any(candidate.trial is None for _, candidate in holders) else "search",
        }


def stored_summaries(runs: Sequence[Run], project: Project) -> dict[str, RunSummary]:
    """How runs that are complete in the store went, by key."""
    from rnnstudy import results

    if not runs:
        return {}
    loaded = results.load([run.key for run in runs], project=project)
    checks = loaded.readings("learning/error") if "learning/error" in loaded.names else None
    courses = {}
    for run in runs:
        row, error = loaded.runs.loc[run.key], math.inf
        if row["status"] == "finished" and checks is not None:
            own = checks.loc[checks["key"] == run.key]
            error = float(own.set_index("step")["value"].sort_index().iloc[-1])
        solved_at = str(row["steps_to_solve"])
        courses[run.key] = RunSummary(error, int(solved_at) if solved_at.isdigit() else None, run.training.steps)
    return courses


class _TrainedHere:
    """A run that has just been trained, with the probes that this search asks for."""

    def serves(self, run: Run) -> bool:
        return True

    def warning(self, run: Run) -> str:
        return ""


def claim_studies(claims: Claims, storage: "RDBStorage", names: Sequence[str]) -> None:
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
