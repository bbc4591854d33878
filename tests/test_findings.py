"""The findings at the top of the README, recomputed from the committed data."""

from pathlib import Path

import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.results.archive import Archive
from rnnstudy.results.selection import chosen_values, selection_table
from rnnstudy.sweep import Scale
from rnnstudy.sweep.experiment import load_experiment

ROOT = Path(__file__).parents[1]
BY = ["task", "length", "side"]


@pytest.fixture(scope="module")
def findings() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return " ".join(text.split("<!-- findings")[1].partition("-->")[2].split("<!-- end")[0].split())


def runs_of(experiment: str, keys: list[str] | None = None):
    archive = Archive.open(ROOT / "reports" / "data")
    own = [key for key, made_by in archive.complete_keys().items() if made_by == experiment]
    return archive.load(sorted(own if keys is None else keys), experiment=experiment)


def counted(solved: pd.Series) -> str:
    """`7 of 20`, with what follows it and the interval."""
    count, of = int(figures.true(solved).sum()), len(solved)
    low, high = figures.wilson(count, of)
    return f"{count} of {of}", f"({low:.2f} to {high:.2f})"


def test_shares_of_the_fair_comparison(findings):
    experiment = load_experiment(ROOT / "experiments" / "fair_comparison.py").module
    complete = Archive.open(ROOT / "reports" / "data").complete_keys()
    sides = pd.Series({k: v for k, v in experiment.side_of_keys(Scale.DESK).items() if k in complete}, name="side")
    results = runs_of("fair_comparison", list(sides.index))
    table = selection_table(results, BY, experiment.SELECTION_SEEDS[Scale.DESK], labels=sides.to_frame())
    rates = chosen_values(table, BY)
    runs = results.runs.join(sides)
    reported = runs[runs["seed"].isin(list(experiment.REPORT_SEEDS[Scale.DESK]))]

    def share(side: str) -> tuple[str, str]:
        own = reported[(reported["side"] == side) & (reported["length"] == 100) & (reported["task"] == "TemporalOrder")]
        return counted(own[own["learning_rate"] == rates["TemporalOrder", 100, side]]["solved"])

    said = {
        "LSTM, as drawn": "An LSTM as PyTorch draws it solves the task in {} runs {}",
        "RNN, identity": "that starts from the identity in {} {}",
        "GRU, as drawn": "A GRU as PyTorch draws it solves it in {} runs {}",
        "LSTM, chrono": "with chrono biases it solves {} {}",
        "LSTM, forget bias 1": "which does not know the length, {} {}",
    }
    for side, sentence in said.items():
        assert sentence.format(*share(side)) in findings


def test_gradient_and_signal_before_training(findings):
    runs = runs_of("state_and_gradient").runs
    runs = runs[runs["task"] == "TemporalOrder"]
    side = runs["cell"] + runs["initialisation"] + runs["initialisation.gate_bias"].fillna("")
    decades = -runs.groupby(side)["log10_ratio_initial"].median()
    signal = runs.groupby(side)["signal_to_noise_initial"].median()
    assert f"lies up to {decades.max():.0f} decades below" in findings
    assert f"at the marks is {signal.min():.1f} to {signal.max():.1f} in all of them" in findings


def test_half_lives_and_what_is_learned(findings):
    runs = runs_of("gate_bias").runs
    bias = runs["initialisation.gate_bias.value"]
    for value, sentence in {
        2.0: "halves in {:.0f} steps and {} runs {} solve the task",
        3.0: "halves in {:.0f} steps, and {} {} do",
    }.items():
        own = runs[bias == value]
        assert sentence.format(own["half_life_initial_c"].median(), *counted(own["solved"])) in findings
