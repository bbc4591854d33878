"""The rates that experiments/fair_comparison.py reports are those that its committed selection runs choose."""

from pathlib import Path

import pandas as pd
import pytest

from rnnstudy.results.archive import Archive
from rnnstudy.results.selection import chosen_values, selection_table
from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import load_experiment

ROOT = Path(__file__).parents[1]
BY = ["task", "length", "side"]


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(ROOT / "experiments" / "fair_comparison.py").module


def test_the_rates_reported_are_those_that_the_selection_runs_choose(experiment):
    archive = Archive.open(ROOT / "reports" / "data")
    sides = experiment.side_of_keys(Scale.DESK)
    keys = sorted(sides.keys() & archive.complete_keys().keys())
    results = archive.load(keys, experiment="fair_comparison")
    labels = pd.Series(sides, name="side").to_frame()
    table = selection_table(results, BY, experiment.SELECTION_SEEDS[Scale.DESK], labels=labels)
    chosen = chosen_values(table, BY)
    assert {setting: chosen[setting] for setting in experiment.CHOSEN} == experiment.CHOSEN
    # Of a setting that is reported, every rate that the file names was tried with every seed.
    tried = table.groupby(BY)["runs"].sum().to_dict()
    for setting in experiment.CHOSEN:
        of_setting = experiment.runs_by_side(Scale.DESK)[setting]
        planned = [run for run in of_setting if run.seed in experiment.SELECTION_SEEDS[Scale.DESK]]
        assert tried[setting] == len(planned), setting


def test_selection_and_report_share_no_seed_and_the_hint_is_never_alone(experiment):
    for scale in Scale:
        assert not set(experiment.SELECTION_SEEDS[scale]) & set(experiment.REPORT_SEEDS[scale])
    for task in experiment.tasks(Scale.DESK):
        sides = experiment.sides(task, 32)
        for cell in ("GRU", "LSTM"):
            assert {f"{cell}, as drawn", f"{cell}, forget bias 1", f"{cell}, chrono"} <= sides.keys()
        as_large = experiment.parameters(sides["LSTM, as drawn"][0], task)
        for side in ("RNN, orthogonal, wide", "GRU, forget bias 1, wide"):
            assert experiment.parameters(sides[side][0], task) == pytest.approx(as_large, rel=0.03)
