"""The searches and their untuned baseline are given the same: task, width, updates, sequences and fresh seeds."""

from collections import Counter
from pathlib import Path

import optuna
import pytest

from rnnstudy.search.definition import searches_of
from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import load_experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("scale", list(Scale))
def test_what_differs_between_a_winner_and_its_baseline_is_what_was_searched(scale):
    tuned, untuned = (load_experiment(EXPERIMENTS / f"{name}_comparison.py") for name in ("tuned", "untuned"))
    assert tuned.module.FRESH_SEEDS == untuned.module.FRESH_SEEDS
    baselines = {}
    for run in untuned.runs(scale):
        baselines.setdefault((type(run.cell), run.task.length), []).append(run)
    definitions = searches_of(tuned, scale)
    assert len(definitions) == len(baselines)
    given = {(each.search.trials, each.search.seeds, each.search.fresh_seeds) for each in definitions}
    assert len(given) == 1, "every cell has the same compute"
    assert len({each.search.own_seed for each in definitions}) == len(definitions), "every search has a seed of its own"
    for definition in definitions:
        starts = set()
        for number in range(12):
            sampler = optuna.samplers.RandomSampler(seed=number)
            run = definition.candidate(optuna.create_study(sampler=sampler).ask())
            starts.add(type(run.initialisation).__name__)
            own = baselines[type(run.cell), run.task.length]
            by_start = Counter(each.initialisation for each in own)
            assert set(by_start.values()) == {len(definition.search.fresh_seeds)}
            assert {each.seed for each in own} == set(definition.search.fresh_seeds)
            for baseline in own:
                training = run.training.replace(
                    learning_rate=baseline.training.learning_rate, clip=baseline.training.clip
                )
                same = run.replace(training=training, initialisation=baseline.initialisation, seed=baseline.seed)
                assert same == baseline
        assert len(starts) > 1
