"""Searches as people write them: impossible combinations, mistakes in `sample`, search spaces that were changed."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.search.definition import Search, StudyDefinition, ValidationResult
from rnnstudy.search.studies import INFEASIBLE, study_status
from rnnstudy.search.study_runner import StudyRunner
from rnnstudy.spec import RequestError
from rnnstudy.sweep.experiment import ExperimentError
from rnnstudy.sweep.grids import Scale
from rnnstudy.tasks import TemporalOrder

SEARCH = Search(trials=12, together=4, seeds=(0,), fresh_seeds=(), sampler=lambda seed: RandomSampler(seed=seed))


def a_run(width: int) -> Run:
    return Run(task=TemporalOrder(length=10), cell=Elman(width=width), training=Training(steps=10, batch=2))


def pruned(trial: Any, scale: Scale) -> Run:
    width = trial.suggest_categorical("width", [4, 8])
    if width == 8:
        raise optuna.TrialPruned()
    return a_run(width)


def impossible(trial: Any, scale: Scale) -> Run:
    return a_run(trial.suggest_categorical("width", [4, -8]))


def broken(trial: Any, scale: Scale) -> Run:
    trial.suggest_categorical("width", [4, 8])
    raise ZeroDivisionError("x")


def misspelt(trial: Any, scale: Scale) -> Run:
    return Run(task=TemporalOrder(length=10), cell=Elman(widht=trial.suggest_categorical("width", [4, 8])))


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(study_name="toy")


def runner(study: optuna.Study, sample: Any, **fields: Any) -> StudyRunner:
    return StudyRunner(study, StudyDefinition("toy", SEARCH.replace(**fields), sample, Scale.SMOKE, Path(__file__)))


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


@pytest.mark.parametrize("sample", [pruned, impossible])
def test_an_impossible_combination_is_pruned_and_the_search_goes_on(study: optuna.Study, sample: Any) -> None:
    search = runner(study, sample)
    while not search.done:
        search.advance()
        keys = [key for candidate in search.open for key in candidate.keys]
        search.close(dict.fromkeys(keys, "finished"), dict.fromkeys(keys, ValidationResult(0.5, None, 10)))
    assert set(states(study)) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(study.trials) == SEARCH.trials
    for trial in study.trials:
        assert (INFEASIBLE in trial.user_attrs) == (trial.state == TrialState.PRUNED) == (trial.params["width"] != 4)
    again = runner(study, sample)
    again.advance()
    assert again.done


@pytest.mark.parametrize(("sample", "words"), [(broken, "ZeroDivisionError: x"), (misspelt, "did you mean 'width'")])
def test_a_mistake_stops_the_search_and_is_not_queued_again(study: optuna.Study, sample: Any, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        runner(study, sample).advance()
    assert set(states(study)) == {TrialState.FAIL}
    # The file is corrected: nothing of the mistake counts.
    search = runner(study, pruned)
    assert search.trials_left == SEARCH.trials


def widths(choices: list[int]) -> Any:
    return lambda trial, scale: a_run(trial.suggest_categorical("width", choices))


def test_a_changed_search_space_is_refused_in_one_line_and_leaves_no_trial(study: optuna.Study) -> None:
    runner(study, widths([4, 8])).advance()
    before = len(study.trials)
    with pytest.raises(RequestError) as caught:
        runner(study, widths([4, 8, 16]))
    assert str(caught.value).startswith(
        "study 'toy': parameter 'width' was one of (4, 8) and is now one of (4, 8, 16), which Optuna cannot compare; "
    )
    with pytest.raises(RequestError, match="parameter 'width' was one of"):
        runner(study, lambda trial, scale: a_run(trial.suggest_int("width", 4, 8)))
    assert len(study.trials) == before
    # A value of the last trial need not be among the choices that are left.
    with pytest.raises(RequestError, match=r"parameter 'width' was one of \(4, 8\) and is now one of \(3, 5\)"):
        runner(study, widths([3, 5]))
    # Numbers may have another range.
    runner(study, lambda trial, scale: a_run(trial.suggest_int("units", 4, 8)))


def trained(search: StudyRunner, error: float = 0.5) -> None:
    """Do what a search does, with this error of every run, until nothing is left."""
    while not search.done:
        search.advance()
        keys = [key for candidate in search.open for key in candidate.keys]
        search.close(dict.fromkeys(keys, "finished"), dict.fromkeys(keys, ValidationResult(error, None, 10)))


def wide(trial: Any, scale: Scale) -> Run:
    return a_run(trial.suggest_int("width", 2, 9))


def test_impossible_candidates_are_counted_in_one_line(study: optuna.Study) -> None:
    search = runner(study, pruned)
    trained(search)
    count = states(study).count(TrialState.PRUNED)
    first = next(trial.number for trial in study.trials if trial.state == TrialState.PRUNED)
    [line] = search.remarks()
    assert line.startswith(f"study 'toy': {count} candidates could not be trained, counted as pruned; trial {first}: ")
    assert line.endswith(": TrialPruned")


def test_candidates_that_diverged_are_counted_and_never_win(study: optuna.Study) -> None:
    """The best of them was trained again on all fresh seeds."""
    search = runner(study, wide, trials=3, fresh_seeds=(7,))
    trained(search, math.inf)
    assert states(study) == [TrialState.COMPLETE] * 3
    assert study_status(study).best is None
    assert list(search.remarks()) == [
        "study 'toy': 3 candidates diverged, counted as infinitely bad (trials 0, 1, 2)",
        "study 'toy' has no winner: every candidate diverged; let `sample` propose smaller learning rates",
    ]
    more = runner(study, wide, trials=4, fresh_seeds=(7,))
    trained(more)
    assert list(more.remarks()) == []
    assert study_status(study).best == study.trials[3]
    assert len(study_status(study).fresh_keys) == 1


def test_with_other_fresh_seeds_the_winner_is_trained_again(study: optuna.Study) -> None:
    trained(runner(study, wide, trials=2, fresh_seeds=(7,)))
    same = runner(study, wide, trials=2, fresh_seeds=(7,))
    assert (same.trials_left, same.fresh_runs_left) == (0, 0)
    other = runner(study, wide, trials=2, fresh_seeds=(7, 8))
    assert other.fresh_runs_left == 2
    trained(other)
    assert len(study_status(study).fresh_keys) == 2
    assert other.fresh_runs_left == 0


def test_a_winner_that_sample_no_longer_makes_is_named(study: optuna.Study) -> None:
    trained(runner(study, wide, trials=2))

    def another(trial: Any, scale: Scale) -> Run:
        return a_run(trial.suggest_int("units", 2, 9))

    with pytest.raises(RequestError, match=r"`sample` no longer makes its winner, trial 0, .*'units' is not found"):
        runner(study, another, trials=2, fresh_seeds=(7,)).advance()
