"""Searches as people write them: impossible combinations, mistakes in `sample`, search spaces that were changed."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.search.definition import Search, StudyDefinition, ValidationResult
from rnnstudy.search.study_runner import INFEASIBLE, StudyRunner
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


def runner(study: optuna.Study, sample: Any) -> StudyRunner:
    return StudyRunner(study, StudyDefinition("toy", SEARCH, sample, Scale.SMOKE, Path(__file__)))


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
    # Numbers may have another range.
    runner(study, lambda trial, scale: a_run(trial.suggest_int("units", 4, 8)))
