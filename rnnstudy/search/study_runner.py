"""Run one study: ask for a batch of candidates, report their errors to the pruner, tell their results, and begin again.

Every run can be repeated. On an engine whose results are equal to the bit, the search itself can be repeated too, with
any number of workers: a study asks for a batch after telling Optuna the results of the previous one, in the order of
its trials, with a new sampler whose seed is `Search.seed` plus the number of trials judged before. There are two
exceptions. A sampler that is an object, not a function of a seed, continues at random after a restart. A pruner that
compares candidates in training with each other (successive halving) depends on the order in which errors arrive.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, check_distribution_compatibility
from optuna.trial import FixedTrial, TrialState

from rnnstudy.errors import RequestError, shown
from rnnstudy.run import Run
from rnnstudy.search.definition import Infeasible, StudyDefinition, ValidationResult, with_seeds
from rnnstudy.search.studies import FRESH, INFEASIBLE, KEYS, SEEDS, deleting, study_status
from rnnstudy.sweep.experiment import ExperimentError
from rnnstudy.training.records import ValidationCheck


def _words(drawn: BaseDistribution) -> str:
    return f"one of {shown(drawn.choices)}" if isinstance(drawn, CategoricalDistribution) else shown(drawn)


def _counted(what: str, count: int) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


class _Asked(FixedTrial):
    """A trial of known values. Its `choices` are those that `sample` has asked for, also where a value is not one."""

    def __init__(self, params: dict[str, Any], number: int) -> None:
        super().__init__(params, number)
        self.choices: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.choices[name] = CategoricalDistribution(choices)
        return super().suggest_categorical(name, choices)


@dataclass
class Candidate:
    """A trial in training, or the winner on its fresh seeds (then `trial` is None).

    Attributes:
        number: the number of the trial.
        runs: one run for each seed.
        reported: the steps whose errors the pruner has received.
    """

    number: int
    runs: tuple[Run, ...]
    trial: optuna.Trial | None
    reported: set[int] = field(default_factory=set)
    pruned: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(run.key for run in self.runs)


class StudyRunner:
    """The candidates of one study, batch after batch, and then its winner on fresh seeds.

    Attributes:
        open: the candidates whose runs have not all ended.
        done: nothing is left to train.
    """

    def __init__(self, study: optuna.Study, definition: StudyDefinition, url: str = "URL") -> None:
        self.study, self.definition, self.search = study, definition, definition.search
        self._url = url
        self._diverged: list[int] = []
        self._infeasible: list[tuple[int, str]] = []
        self._resumed = bool(study.get_trials(deepcopy=False))
        self._failed = 0
        self.open: list[Candidate] = []
        self.done = False
        self._require_comparable()

    @property
    def trials_left(self) -> int:
        """Trials without a result, including those in training. A trial that failed in this process is not replaced by
        this process."""
        return max(0, self.search.trials - study_status(self.study).judged - self._failed)

    @property
    def fresh_runs_left(self) -> int:
        """The number of runs with fresh seeds that are still to be trained, at most."""
        seeds, status = self.search.fresh_seeds, study_status(self.study)
        if self.done or (status.best is None and not self.trials_left):
            return 0
        # Older versions did not store the seeds.
        trained = status.fresh_keys and self.study.user_attrs[FRESH].get(SEEDS, list(seeds)) == list(seeds)
        return 0 if trained and not self.trials_left else len(seeds)

    def advance(self) -> None:
        """Open the next batch or, after the last batch, the winner, or set `done`. Called when nothing is open."""
        count = min(self.search.together, self.trials_left)
        if count:
            self._ask(count)
            return
        status = study_status(self.study)
        if status.best is None or not self.fresh_runs_left:
            self.done = True
            return
        try:
            run = self.definition.candidate(FixedTrial(status.best.params, status.best.number))
        except ExperimentError as error:
            raise RequestError(
                f"study '{self.study.study_name}': `sample` no longer makes its winner, trial {status.best.number}, "
                f"which has to be trained with fresh seeds ({error}); undo that change, or give the search another name"
            ) from None
        self.open = [Candidate(status.best.number, with_seeds(run, self.search.fresh_seeds), None)]

    def _ask(self, count: int) -> None:
        # Optuna hands out first the trials that a dead process left waiting. Those without parameters are drawn now.
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = sum(bool(trial.params) for trial in waiting)
        # Not by place in the list of all trials: a damaged storage may lack some.
        reported = {trial.number: set(trial.intermediate_values) for trial in waiting}
        self.study.sampler = self.search.sampler_for(study_status(self.study).judged, self._resumed, queued)
        self._resumed = False
        refused: list[tuple[optuna.Trial, Infeasible]] = []
        for _ in range(count):
            trial = self.study.ask()
            try:
                run = self.definition.candidate(trial)
            except Infeasible as error:
                refused.append((trial, error))
                continue
            except ExperimentError:
                # Left open, it would be queued again at each start, with the same parameters.
                self._tell(trial, state=TrialState.FAIL)
                raise
            runs = with_seeds(run, self.search.seeds)
            trial.set_user_attr(KEYS, [run.key for run in runs])
            trial.set_user_attr("name", run.name)
            self.open.append(Candidate(trial.number, runs, trial, reported.get(trial.number, set())))
        self._close_infeasible(refused)

    def _close_infeasible(self, refused: Sequence[tuple[optuna.Trial, Infeasible]]) -> None:
        """Tell Optuna that these trials are pruned, as candidates that cannot be trained.

        Raises `ExperimentError` if no candidate of the study has ever been possible, without a word from `sample`: then
        the file is wrong, and not the parameters.
        """
        others = [trial for trial in self.study.get_trials(deepcopy=False) if KEYS in trial.user_attrs]
        mistake = next((error for _, error in refused if not error.told), None)
        wrong = mistake is not None and not others and all(not error.told for _, error in refused)
        for trial, error in refused:
            trial.set_user_attr(INFEASIBLE, str(error))
            self._infeasible.append((trial.number, str(error)))
            self._tell(trial, state=TrialState.FAIL if wrong else TrialState.PRUNED)
        if wrong:
            raise ExperimentError(str(mistake))

    def _require_comparable(self) -> None:
        """Raises `RequestError` if `sample` now draws a parameter in a way that cannot be compared with earlier trials.

        Found out without a trial, which would be left behind.
        """
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if trial.params]
        if not trials:
            return
        asked = _Asked(trials[-1].params, trials[-1].number)
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(ExperimentError):
            # It may refuse the old values; what it has asked for until then is known.
            self.definition.candidate(asked)
        before = {name: drawn for trial in trials for name, drawn in trial.distributions.items()}
        now = asked.distributions | asked.choices
        for name in before.keys() & now.keys():
            try:
                check_distribution_compatibility(before[name], now[name])
            except ValueError:
                raise RequestError(
                    f"study '{self.study.study_name}': parameter '{name}' was {_words(before[name])} and is now "
                    f"{_words(now[name])}, which Optuna cannot compare; give the parameter or the "
                    f"search another name, or {deleting(self.study.study_name, self._url)}"
                ) from None

    def report(self, errors: Mapping[str, Mapping[int, float]], check: ValidationCheck) -> set[str]:
        """Report to the pruner each candidate whose errors at this check are now complete.

        `errors`: validation error by run key and step. Returns the keys of the runs to stop: those that only pruned
        candidates use.
        """
        for candidate in self.open:
            if candidate.trial is None or candidate.pruned or set(candidate.keys).isdisjoint(check.errors):
                continue
            known = [errors[key][check.step] for key in candidate.keys if check.step in errors.get(key, {})]
            if len(known) == len(candidate.keys) and check.step not in candidate.reported:
                candidate.reported.add(check.step)
                candidate.trial.report(self.search.pruning_value(known), check.step)
                last = check.step >= candidate.runs[0].training.steps
                candidate.pruned = not last and candidate.trial.should_prune()
        pruned = {key for candidate in self.open if candidate.pruned for key in candidate.keys}
        return pruned - {key for candidate in self.open if not candidate.pruned for key in candidate.keys}

    def close(self, statuses: Mapping[str, str], results: Mapping[str, ValidationResult]) -> None:
        """Tell Optuna the results of all open candidates, in the order of their trials.

        `statuses`: how every run ended, by key; `results`: those of the complete runs.
        """
        for candidate in self.open:
            ended = {statuses[key] for key in candidate.keys}
            if candidate.trial is None:
                if "failed" not in ended:
                    fresh = {
                        "trial": candidate.number,
                        KEYS: list(candidate.keys),
                        SEEDS: list(self.search.fresh_seeds),
                    }
                    self.study.set_user_attr(FRESH, fresh)
                self.done = True
            elif "failed" in ended:
                self._failed += 1
                self._tell(candidate.trial, state=TrialState.FAIL)
            elif candidate.pruned or "pruned" in ended:
                self._tell(candidate.trial, state=TrialState.PRUNED)
            else:
                value = self.search.objective_value([results[key] for key in candidate.keys])
                if math.isinf(value):
                    self._diverged.append(candidate.number)
                self._tell(candidate.trial, value)
        self.open = []

    def remarks(self) -> Iterator[str]:
        """One line each on the candidates of this process that could not be trained, and on those that diverged."""
        name = self.study.study_name
        if self._infeasible:
            (number, reason), *_ = self._infeasible
            counted = _counted("candidate", len(self._infeasible))
            yield f"study '{name}': {counted} could not be trained, counted as pruned; trial {number}: {reason}"
        if self._diverged:
            counted, numbers = _counted("candidate", len(self._diverged)), ", ".join(map(str, self._diverged[:10]))
            more = ", …" if len(self._diverged) > 10 else ""
            yield f"study '{name}': {counted} diverged, counted as infinitely bad (trials {numbers}{more})"
        if self.done and study_status(self.study).complete and study_status(self.study).best is None:
            yield f"study '{name}' has no winner: every candidate diverged; let `sample` propose smaller learning rates"

    def _tell(self, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
        try:
            self.study.tell(trial, value, state=state)
        except RuntimeError:
            # A grid sampler with nothing left to propose stops the study, which only Study.optimize allows. The result
            # of the trial has been stored before that.
            if not self.study.trials[trial.number].state.is_finished():
                raise
