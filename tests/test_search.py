"""Searches: objective values, the order of asking and telling, and the effect of a kill, a restart and more trials."""

import math
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import MedianPruner, ThresholdPruner
from optuna.samplers import GridSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from pandas.testing import assert_frame_equal

from rnnstudy import results
from rnnstudy.cells import Elman
from rnnstudy.results.archive import Archive, ExportedExperiment, write_archive
from rnnstudy.run import Run, Training
from rnnstudy.search import queue as search_queue
from rnnstudy.search.definition import Search, StudyDefinition, ValidationResult, searches_of
from rnnstudy.search.queue import SearchQueue, claim_studies
from rnnstudy.search.studies import StorageError, connect_storage, open_study, study_status, study_statuses
from rnnstudy.search.trials import search_trials
from rnnstudy.spec import RequestError, SpecError
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.project import Project
from rnnstudy.store.tracker import CompletedRun
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.experiment import ExperimentError, load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.messages import Assignment
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.records import Outcome, ValidationCheck


def sample(trial: Any, scale: Scale) -> Run:
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    training = Training(steps=30, batch=2, check_every=10, learning_rate=rate, validation_sequences=4, test_sequences=4)
    return Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=())


def error_of(run: Run, step: int) -> float:
    """An invented error: smallest at a rate of 0.01, smaller with more steps, slightly different for each seed."""
    return abs(math.log10(run.training.learning_rate) + 2) * (2 - step / 30) + 0.01 * (run.seed % 10) + 0.001


SEARCH = Search(trials=8, together=4, seeds=(0, 1, 2), fresh_seeds=(100, 101))


class EmptyIndex:
    """A store that holds nothing."""

    def finished(self, keys: Any = None) -> Mapping[str, CompletedRun]:
        return {}

    def failures(self, keys: Any = None) -> Mapping[str, Any]:
        return {}


class Stage:
    """A project in which searches run without training: `error_of` is the validation error of every run."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.trained: list[str] = []

    def queue(self, search: Search, *, workers: int = 1, name: str = "mine") -> SearchQueue:
        storage = connect_storage(self.project, None)
        return SearchQueue(
            [StudyDefinition(name, search, sample, Scale.SMOKE, Path("mine.py"))],
            storage,
            EmptyIndex(),
            self.project,
            workers=workers,
        )

    def train(self, queue: SearchQueue, most: int = 1000) -> None:
        """Do what a launcher does, for at most `most` populations."""
        for _ in range(most):
            assignment = queue.next()
            if assignment is None:
                return
            self.train_one(queue, assignment)

    def train_one(self, queue: SearchQueue, assignment: Assignment) -> None:
        pruned: dict[str, int] = {}
        for step in (10, 20, 30):
            errors = {run.key: error_of(run, step) for run in assignment.runs if run.key not in pruned}
            pruned |= dict.fromkeys(queue.on_validation(ValidationCheck(step, errors)), step)
        for run in assignment.runs:
            self.trained.append(run.key)
            step = pruned.get(run.key, 30)
            queue.on_ended(run.key, Outcome("pruned" if run.key in pruned else "finished", step))

    def study(self, name: str = "mine") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=connect_storage(self.project, None))


@pytest.fixture
def stage(tmp_path: Path, empty_storage: Path) -> Stage:
    return staged(tmp_path, empty_storage)


def staged(folder: Path, empty_storage: Path) -> Stage:
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_storage, folder / "mlruns" / "optuna.db")
    return Stage(folder)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize(
    ("objective", "value"),
    [("steps_then_error", 300.0), ("error", 0.02), ("log10_error", math.log10(0.02)), ("steps_to_solve", 300.0)],
)
def test_the_objective_of_a_candidate_is_the_median_over_its_seeds(objective, value):
    ended = [
        ValidationResult(0.02, 300, 1000),
        ValidationResult(math.inf, None, 1000),
        ValidationResult(0.0, 100, 1000),
    ]
    assert Search(trials=1, objective=objective).objective_value(ended) == pytest.approx(value)


def test_the_objective_without_an_error_and_without_a_solution():
    perfect, hopeless = [ValidationResult(0.0, 100, 1000)], [ValidationResult(math.inf, None, 1000)]
    assert Search(trials=1, objective="log10_error").objective_value(perfect) == -6
    assert Search(trials=1, objective="log10_error").objective_value(hopeless) == math.inf
    assert Search(trials=1, objective="steps_to_solve").objective_value(hopeless) == 2000


def test_steps_then_error_tells_candidates_apart_that_both_solve_or_both_fail():
    value = Search(trials=1, objective="steps_then_error").objective_value
    results = [(300, 0.0), (100, 0.0), (None, 0.25), (None, 0.75), (None, math.inf)]
    values = [value([ValidationResult(error, steps, 1000)]) for steps, error in results]
    assert values == [300, 100, pytest.approx(1200), pytest.approx(1000 * (1 + 0.75 / 1.75)), 2000]
    assert value([ValidationResult(0.0, 300, 1000)] + 2 * [ValidationResult(0.25, None, 1000)]) == pytest.approx(1200)


def test_studies_of_different_names_draw_different_candidates_and_a_study_the_same_ones_again():
    def drawn(name):
        study = optuna.create_study(sampler=Search(name=name, trials=1).sampler_for(0, resumed=False))
        return study.ask().suggest_float("learning_rate", 1e-4, 1e-1, log=True)

    assert drawn("elman-T50") == drawn("elman-T50")
    assert len({drawn(f"{cell}-T{length}") for cell in ("elman", "lstm", "gru") for length in (50, 100)}) == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trials": 0}, "Search.trials is 0; it must be at least 1"),
        ({"seeds": ()}, "needs at least one seed"),
        ({"seeds": (1, 1)}, "Search.seeds names a seed twice"),
        ({"seeds": (0, 5), "fresh_seeds": (5, 6)}, "holds 5, which the search itself uses"),
        ({"sampler": "tpe"}, "Search.sampler is 'tpe'; it takes an Optuna sampler"),
        ({"sampler": TPESampler}, "or a function that makes one from a seed"),
        ({"pruner": MedianPruner}, "it takes an Optuna pruner"),
        ({"objective": "loss"}, "It takes 'error', 'log10_error', 'steps_to_solve'"),
        ({"trails": 3}, "did you mean 'trials'"),
    ],
)
def test_an_impossible_search_is_refused(fields, message):
    with pytest.raises(SpecError) as refused:
        Search(**{"trials": 1, **fields})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_candidate_is_told_its_objective_value_and_the_winner_trains_on_fresh_seeds(stage: Stage):
    queue = stage.queue(SEARCH)
    stage.train(queue)
    assert queue.done
    study = stage.study()
    assert states(study) == ["COMPLETE"] * 8
    for trial in study.trials:
        # The median of three seeds is the middle one.
        middle = sample(optuna.trial.FixedTrial(trial.params), Scale.SMOKE).replace(seed=1)
        assert trial.value == pytest.approx(math.log10(error_of(middle, 30)), rel=1e-6)
        assert list(trial.intermediate_values) == [10, 20, 30]
        assert len(trial.user_attrs["keys"]) == 3
    status = study_status(study)
    assert status.best is not None
    assert status.best.value == min(trial.value for trial in study.trials)
    winner = sample(optuna.trial.FixedTrial(status.params), Scale.SMOKE)
    assert status.fresh_keys == tuple(winner.replace(seed=seed).key for seed in (100, 101))
    assert len(stage.trained) == len(set(stage.trained)) == 8 * 3 + 2


def test_candidates_of_one_batch_train_as_one_population_and_are_tagged(stage: Stage):
    queue = stage.queue(SEARCH)
    assignment = queue.next()
    assert assignment is not None
    assert len(assignment.runs) == 4 * 3
    assert len({run.training.learning_rate for run in assignment.runs}) == 4
    assert queue.next() is None, "the next batch waits for the results of this one"
    assert not queue.done
    assert queue.run_tags(assignment.runs[4]) == {
        "rnnstudy.study": "mine",
        "rnnstudy.trial": "1",
        "rnnstudy.seeds": "search",
    }
    rate = assignment.runs[4].training.learning_rate
    assert queue.run_name(assignment.runs[4]) == f"Elman T=10 lr {rate:.3g} s1 trial 1"
    queue.requeue(assignment)
    assert queue.next() == assignment


@pytest.mark.parametrize("sampler", [RandomSampler, TPESampler])
def test_a_search_can_be_repeated_with_any_number_of_workers(tmp_path: Path, empty_storage: Path, sampler: Any):
    found = []
    for workers in (1, 3):
        stage = staged(tmp_path / str(workers), empty_storage)
        search = SEARCH.replace(sampler=lambda seed: sampler(seed=seed), trials=12, pruner=MedianPruner(4, 5))
        stage.train(stage.queue(search, workers=workers))
        found.append([(trial.params, trial.state, trial.intermediate_values) for trial in stage.study().trials])
    assert found[0] == found[1]
    assert len({tuple(params.items()) for params, _, _ in found[0]}) == 12


def test_a_finished_search_trains_nothing_and_more_trials_train_the_difference(stage: Stage):
    stage.train(stage.queue(SEARCH))
    before = list(stage.trained)
    again = stage.queue(SEARCH)
    stage.train(again)
    assert again.done
    assert stage.trained == before
    more = stage.queue(SEARCH.replace(trials=11))
    stage.train(more)
    assert states(stage.study()) == ["COMPLETE"] * 11
    searched = [key for trial in stage.study().trials[8:] for key in trial.user_attrs["keys"]]
    assert set(searched) <= set(stage.trained[len(before) :])
    assert len(stage.trained) - len(before) in (9, 11), "the difference, and fresh seeds if there is a new winner"


def test_trials_that_a_dead_process_left_are_queued_again_exactly_once(stage: Stage, empty_storage: Path):
    stage.train(stage.queue(SEARCH), most=1)
    dying = stage.queue(SEARCH)
    assignment = dying.next()
    assert assignment is not None
    running = [trial for trial in stage.study().trials if trial.state == TrialState.RUNNING]
    assert len(running) == 4
    # Killed between the two steps of queueing again: one trial has its copy and is still running.
    first = running[0]
    stage.study().add_trial(
        optuna.create_trial(
            state=TrialState.WAITING, params=first.params, distributions=first.distributions, user_attrs={"again": 4}
        )
    )
    resumed = stage.queue(SEARCH)
    assert [run.key for run in resumed.next().runs] == [run.key for run in assignment.runs]
    stage.train(stage.queue(SEARCH))
    study = stage.study()
    assert states(study).count("COMPLETE") == 8
    assert "RUNNING" not in states(study)
    assert "WAITING" not in states(study)
    complete = [tuple(trial.params.items()) for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(set(complete)) == 8

    undisturbed = staged(stage.project.root / "other", empty_storage)
    undisturbed.train(undisturbed.queue(SEARCH))
    assert complete == [tuple(trial.params.items()) for trial in undisturbed.study().trials]


@pytest.mark.parametrize("created", [1, 2])
def test_an_interrupted_batch_is_completed_with_other_candidates(stage: Stage, created: int):
    stage.train(stage.queue(SEARCH), most=1)
    study = stage.study()
    before = len(study.trials)
    study.sampler = SEARCH.sampler_for(before, resumed=False)
    # Killed after the first candidate of a batch was drawn: before the second existed, or before it had parameters.
    candidate = study.ask()
    first = sample(candidate, Scale.SMOKE)
    for _ in range(created - 1):
        study.ask()
    stage.train(stage.queue(SEARCH))
    complete = [trial for trial in stage.study().trials if trial.state == TrialState.COMPLETE]
    assert first in [
        sample(optuna.trial.FixedTrial(trial.params), Scale.SMOKE).replace(seed=first.seed) for trial in complete
    ]
    assert len({tuple(trial.params.items()) for trial in complete}) == len(complete) == 8


def test_a_pruner_stops_bad_candidates_and_their_trials_are_pruned(stage: Stage):
    search = SEARCH.replace(objective="error", pruner=ThresholdPruner(upper=0.8), sampler=RandomSampler(seed=0))
    stage.train(stage.queue(search))
    trials = stage.study().trials
    bad = [
        error_of(sample(optuna.trial.FixedTrial(trial.params), Scale.SMOKE).replace(seed=1), 10) > 0.8
        for trial in trials
    ]
    assert any(bad)
    assert not all(bad)
    for trial, is_bad in zip(trials, bad, strict=True):
        assert trial.state == (TrialState.PRUNED if is_bad else TrialState.COMPLETE)
        assert list(trial.intermediate_values) == ([10] if is_bad else [10, 20, 30])
    status = study_status(stage.study())
    assert (status.pruned, status.complete) == (sum(bad), 8 - sum(bad))


def test_a_failed_run_fails_its_trial_which_is_not_replaced_in_the_same_process(stage: Stage):
    queue = stage.queue(SEARCH.replace(trials=2, together=2))
    assignment = queue.next()
    assert assignment is not None
    queue.on_ended(assignment.runs[0].key, Outcome("failed", 0))
    for run in assignment.runs[1:]:
        queue.on_validation(ValidationCheck(30, {run.key: 0.5}))
        queue.on_ended(run.key, Outcome("finished", 30))
    assert states(stage.study()) == ["FAIL", "COMPLETE"]
    stage.train(queue)
    assert queue.done
    stage.train(stage.queue(SEARCH.replace(trials=2, together=2)))
    assert states(stage.study()) == ["FAIL", "COMPLETE", "COMPLETE"], "the next start replaces it"


@pytest.mark.parametrize("together", [1, 2])
def test_equal_candidates_train_once_and_all_get_their_value(
    stage: Stage, together: int, monkeypatch: pytest.MonkeyPatch
):
    def stored(runs: Sequence[Run], project: Project) -> dict[str, ValidationResult]:
        return {run.key: ValidationResult(float(np.float32(error_of(run, 30))), None, 30) for run in runs}

    monkeypatch.setattr(search_queue, "stored_results", stored)
    grid = GridSampler({"learning_rate": [1e-2]}, seed=0)
    stage.train(stage.queue(SEARCH.replace(trials=2, together=together, sampler=grid)))
    assert len(stage.trained) == 3 + 2
    values = [trial.value for trial in stage.study().trials]
    assert values[0] == values[1] is not None


def test_a_study_with_another_objective_is_not_continued(stage: Stage):
    stage.queue(SEARCH)
    with pytest.raises(RequestError, match="'mine' was begun with another objective or other seeds"):
        stage.queue(SEARCH.replace(objective="error"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "the storage of searches nonsense cannot be used: it is no address of a database"),
        ("postgresql://me:secret@127.0.0.1:1/none", "postgresql://me:…@127.0.0.1:1/none cannot be used"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_in_one_line_without_its_password(
    stage: Stage, url: str, message: str
):
    with pytest.raises(StorageError) as refused:
        connect_storage(stage.project, url)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


FILE = '''
"""A small search."""
from rnnstudy.cells import Elman
from rnnstudy.run import Run, Training
from rnnstudy.search import Search
from rnnstudy.tasks import TemporalOrder

SEARCH = Search(trials={trials}, together=2, seeds=(0, 1), fresh_seeds=(10, 11))


def sample(trial, scale):
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    training = Training(steps=20, batch=4, check_every=10, learning_rate=rate, validation_sequences=20,
                        test_sequences=40)
    return Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=training, probes=())
'''


def test_a_search_from_the_command_line_and_its_second_start(
    project_with_store: Path, empty_storage: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = project_with_store
    path = project / "experiments" / "mine.py"
    path.write_text(FILE.format(trials=2))
    none = rnnstudy("studies")
    assert (none.returncode, none.stdout.startswith("no studies in ")) == (0, True)
    assert not (project / "mlruns" / "optuna.db").exists(), "reading creates nothing"
    shutil.copy(empty_storage, project / "mlruns" / "optuna.db")

    # The compiled engine would spend longer compiling than these runs take.
    sweep = ("sweep", "experiments/mine.py", "--scale", "smoke", "--workers", "1", "--engine", "reference")
    first = rnnstudy(*sweep)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "1 studies: 2 trials to go, at most 6 runs" in first.stdout
    stored = Store(Project(project)).runs()
    assert len(stored) == len({run.key for run in stored}) == 6
    assert {run.state for run in stored} == {"finished"}
    assert {run.tags["rnnstudy.study"] for run in stored} == {"mine/smoke"}
    fresh = [run for run in stored if run.tags["rnnstudy.seeds"] == "fresh"]
    assert len(fresh) == 2
    shown = rnnstudy("studies")
    assert shown.returncode == 0
    assert "mine/smoke" in shown.stdout
    assert "2 of 2" in shown.stdout
    assert "learning" in shown.stdout
    assert re.search(r"^mine/smoke +2 of 2 .* [012] of 2 +0?[.\d]+ *$", shown.stdout, re.MULTILINE)
    [status] = study_statuses(Project(project))
    assert status.best is not None
    loaded = results.load(status.best.user_attrs["keys"], project=Project(project))
    last = loaded.readings("learning/error").groupby("key")["value"].last()
    assert status.best.value == pytest.approx(math.log10(last.median()))

    again = rnnstudy(*sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 trials to go" in again.stdout
    assert len(Store(Project(project)).runs()) == 6

    # The study is lost, the runs are not: the same candidates get their values without training.
    shutil.copy(empty_storage, project / "mlruns" / "optuna.db")
    repeated = rnnstudy(*sweep)
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert "training" not in repeated.stdout
    assert len(Store(Project(project)).runs()) == 6
    [retold] = study_statuses(Project(project))
    assert retold.best is not None
    assert retold.best.value == status.best.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep", "experiments/mine.py", "--rerun"), "--rerun cannot be given"),
        (("sweep", "experiments/mine.py", "--set", "training.steps=5"), "--set cannot be given"),
        (("sweep", "experiments/small.py", "--storage", "sqlite:///x.db"), "defines none"),
        (("list", "experiments/mine.py"), "defines a search, whose runs are chosen as it goes on"),
        (("sweep", "experiments/half.py"), "defines no sample(trial, scale) for its search"),
        (("sweep", "experiments/broken.py"), "trials is 0; it must be at least 1"),
    ],
)
def test_bad_input_for_a_search_prints_one_line_and_writes_nothing(
    project: Path, rnnstudy: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    folder = project / "experiments"
    (folder / "mine.py").write_text(FILE.format(trials=2))
    (folder / "half.py").write_text("from rnnstudy.search import Search\nSEARCH = Search(trials=1)\n")
    (folder / "broken.py").write_text(FILE.format(trials=0))
    answer = rnnstudy(*arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not list((project / "mlruns").iterdir())


def test_a_second_launcher_of_a_search_names_the_first_and_changes_no_trial(
    project_with_store: Path, empty_storage: Path, rnnstudy: Callable[..., Any]
) -> None:
    project = Project(project_with_store)
    shutil.copy(empty_storage, project.mlruns / "optuna.db")
    (project_with_store / "experiments" / "mine.py").write_text(FILE.format(trials=2))
    storage = connect_storage(project, None)
    claims = Claims(project.claims)
    claim_studies(claims, storage, ["mine/smoke"])
    study = open_study(storage, "mine/smoke", Search(trials=2, seeds=(0, 1)))
    study.ask()
    refused = rnnstudy("sweep", "experiments/mine.py", "--scale", "smoke", "--workers", "1")
    assert refused.returncode == 2
    message = f"rnnstudy: study 'mine/smoke' is being searched by {claims.owner}; wait for it, or end it first\n"
    assert refused.stderr == message
    assert states(study) == ["RUNNING"]
    assert not Store(project).runs()
    claims.close()
    other = Claims(project.claims)
    claim_studies(other, storage, ["mine/desk", "mine/smoke"])
    with pytest.raises(RequestError, match="'mine/desk' is being searched"):
        claim_studies(claims, storage, ["mine/paper", "mine/desk"])
    assert not claims.held, "all of them, or none"


def test_candidates_trained_by_another_launcher_get_their_value_from_the_store(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Run] = []

    def stored(runs: Sequence[Run], project: Project) -> dict[str, ValidationResult]:
        asked.extend(runs)
        return {run.key: ValidationResult(error_of(run, 30), None, 30) for run in runs}

    monkeypatch.setattr(search_queue, "stored_results", stored)
    queue = stage.queue(SEARCH.replace(trials=4))
    assignment = queue.next()
    assert assignment is not None
    queue.on_ended_elsewhere([run.key for run in assignment.runs], [])
    assert {run.key for run in asked} == {run.key for run in assignment.runs}
    assert states(stage.study()) == ["COMPLETE"] * 4
    assert stage.study().best_value == min(
        math.log10(error_of(run, 30)) for run in assignment.runs if run.seed == SEARCH.seeds[1]
    )


def test_the_tables_of_a_search_are_equal_when_read_from_an_archive(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SEARCH.replace(objective="error", pruner=ThresholdPruner(upper=0.8), sampler=RandomSampler(seed=0))
    for scale in ("smoke", "desk"):
        stage.train(stage.queue(search, name=f"mine/{scale}/a"))
    stored = search_trials(stage.project, "mine", "smoke")
    assert set(stored.trials["study"]) == {"mine/smoke/a"}
    [status] = [status for status in study_statuses(stage.project) if status.name == "mine/smoke/a"]
    assert stored.fresh_keys == status.fresh_keys
    assert len(stored.fresh_keys) == 2
    assert sum(math.isnan(value) for value in stored.trials["value"]) == status.pruned > 0
    run = sample(optuna.trial.FixedTrial({"learning_rate": 0.01}), Scale.SMOKE)
    trained = results.from_records(train(run, device="cpu", engine="reference"), [run])
    write_archive(tmp_path / "archive", {"mine": ExportedExperiment("rnnstudy sweep", trained, stored)}, [])
    archive = Archive.open(tmp_path / "archive")
    archived = archive.search_trials("mine", "smoke")
    assert_frame_equal(archived.trials, stored.trials)
    assert_frame_equal(archived.importances, stored.importances)
    assert archive.search_trials("mine", "paper").trials.empty
    assert search_trials(stage.project, "mine", "paper").trials.empty


def test_two_searches_of_one_name_are_refused(tmp_path: Path):
    path = tmp_path / "twice.py"
    path.write_text(
        textwrap.dedent(
            """
            from rnnstudy.search import Search
            def sample(trial, scale): ...
            def searches(scale): return [Search(trials=1), Search(trials=2)]
            """
        )
    )
    with pytest.raises(ExperimentError, match="two searches are called ''"):
        searches_of(load_experiment(path), Scale.SMOKE)
