"""The comparison of modern recurrences gives every side as much as the others, and reports what selection chose."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from rnnstudy.cells import S6, Published
from rnnstudy.results.archive import Archive
from rnnstudy.results.selection import chosen_values, selection_table
from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

ROOT = Path(__file__).parents[1]
BY = ["task", "length", "side"]


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(ROOT / "experiments" / "modern_recurrences.py").module


def test_the_rates_reported_are_those_that_the_selection_runs_choose(experiment):
    archive = Archive.open(ROOT / "reports" / "data")
    sides = experiment.side_of_keys(Scale.DESK)
    keys = sorted(sides.keys() & archive.complete_keys().keys())
    results = archive.load(keys, experiment="modern_recurrences")
    labels = pd.Series(sides, name="side").to_frame()
    table = selection_table(results, BY, experiment.SELECTION_SEEDS[Scale.DESK], labels=labels)
    assert chosen_values(table, BY) == experiment.CHOSEN
    assert set(table["runs"]) == {len(experiment.SELECTION_SEEDS[Scale.DESK])}


@pytest.mark.parametrize("scale", [Scale.DESK, pytest.param(Scale.PAPER, marks=pytest.mark.slow)])
def test_every_side_has_as_many_parameters_rates_and_seeds(experiment, scale):
    assert not set(experiment.SELECTION_SEEDS[scale]) & set(experiment.REPORT_SEEDS[scale])
    wanted = {Scale.DESK: 6000, Scale.PAPER: 60_000}[scale]
    for task in experiment.tasks(scale):
        for name, side in experiment.sides(task, scale).items():
            assert experiment.parameters(side, task) == pytest.approx(wanted, rel=0.055), name
    selection = experiment.SELECTION_SEEDS[scale]
    counts = [sum(run.seed in selection for run in runs) for runs in experiment.runs_by_side(scale).values()]
    assert set(counts) == {len(experiment.RATES) * len(selection)}
    assert len(counts) == sum(len(experiment.sides(task, scale)) for task in experiment.tasks(scale))


def test_the_parameters_counted_are_those_that_are_trained(experiment):
    for runs in experiment.runs_by_side(Scale.SMOKE).values():
        [run, *_] = runs
        trained = Learner.begin(Population((run,)), torch.device("cpu")).parameters
        side = experiment.Side(run.cell, run.initialisation, run.layers, run.block)
        assert experiment.parameters(side, run.task) == sum(value.numel() for value in trained.values())


def test_the_signed_factors_are_those_of_s6_stretched(experiment):
    signed, plain = experiment.SignedS6(width=5, state_size=3), S6(width=5, state_size=3)
    source = torch.Generator().manual_seed(0)
    drawn = Published().draw(plain.parameters(4, 2), 5, source)
    parameters = {name: value[None].double() for name, value in drawn.items()}
    inputs = 9 * torch.randn(1, 50, 4, generator=source, dtype=torch.float64)
    projected = plain.project(parameters, inputs)
    (a, b), (stretched, same) = (cell.coefficients(parameters, projected) for cell in (plain, signed))
    torch.testing.assert_close(stretched, 2 * a - 1)
    assert torch.equal(b, same)
    assert (a > 0).all()
    assert (stretched < 0).any()
    assert (stretched.abs() <= 1).all()


def test_the_readme_says_what_linear_recurrences_gain_and_how_parity_goes_on(experiment):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    archive = Archive.open(ROOT / "reports" / "data")
    sides = experiment.side_of_keys(Scale.DESK)
    results = archive.load(sorted(sides.keys() & archive.complete_keys().keys()), experiment="modern_recurrences")
    runs = results.runs.join(pd.Series(sides, name="side"))
    runs = runs[runs["seed"].isin(list(experiment.REPORT_SEEDS[Scale.DESK]))]
    far = runs[runs["task"] == "TemporalOrder"]
    solved = far["solved"].eq(True).groupby(far["side"]).agg(["sum", "size"])
    assert set(solved["size"]) == {10}
    count = solved["sum"]
    assert (
        f"SRU solves {count['SRU']}, RG-LRU {count['RG-LRU']} and S6 {count['S6']} of 10 runs, the LSTM with forget "
        f"bias 1 none (the GRU {count['GRU, forget bias 1']})" in readme
    )
    assert count["LSTM, forget bias 1"] == 0
    parity = runs[(runs["task"] == "PermutationComposition") & (runs["length"] == 16)]
    longer = results.readings("generalisation/error", keys=parity.index).dropna(subset=["value"])
    longer = longer.assign(key=longer["key"].astype(str)).pivot(index="key", columns="length", values="value")
    lru = parity[parity["side"] == "LRU"]["solved"].eq(True)
    assert f"the LRU too, of which {lru.sum()} of {len(lru)} runs had solved the 16 steps" in readme
    beyond = (2 * longer[64] - longer[32]).astype(float).groupby(parity["side"])
    for side in ("minGRU", "minLSTM", "SRU", "RG-LRU", "LRU", "S6"):
        assert beyond.get_group(side).between(0.45, 0.55).all()
    signed = sorted(beyond.get_group("S6, signed"))
    assert signed[-2] < 0.01
    assert f"the tenth is wrong at {100 * signed[-1]:.0f} % of these steps" in readme
