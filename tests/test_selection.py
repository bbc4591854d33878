"""Values chosen on some seeds, to be reported on others."""

from dataclasses import replace

import numpy as np
import pytest

from rnnstudy import figures
from rnnstudy.cells import Elman
from rnnstudy.results.results import from_records
from rnnstudy.results.selection import chosen_values, selection_table, success_by_budget
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series


def one(rate, seed, *, steps=None, error=0.5, length=10, status="finished"):
    """A run, and the last record of it."""
    training = Training(steps=1000, learning_rate=rate)
    run = Run(task=TemporalOrder(length=length), cell=Elman(width=3), seed=seed, training=training)
    outcome = Outcome(status=status, step=1000, solved=steps is not None, steps_to_solve=steps)
    series = {"learning/error": Series(np.array([100, 200]), np.array([0.75, error], dtype=np.float32))}
    outcome = replace(outcome, summary={"error": error} if status == "finished" else {})
    return run, Record(run.key, 1000, 0.0, series, outcome)


def results(*runs):
    return from_records([record for _, record in runs], [run for run, _ in runs])


def table(*runs, seeds=range(10)):
    return selection_table(results(*runs), ["task", "length"], seeds)


def chosen(*runs, seeds=range(10)):
    [value] = chosen_values(table(*runs, seeds=seeds), ["task", "length"]).values()
    return value


def test_the_largest_share_solved_is_chosen_then_the_fewest_updates_then_the_lowest_error():
    assert chosen(one(0.1, 0, steps=900), one(0.1, 1, steps=900), one(0.2, 0, steps=100), one(0.2, 1)) == 0.1
    # Two of two each: on the average 500 against 450 updates.
    assert chosen(one(0.1, 0, steps=500), one(0.1, 1, steps=500), one(0.2, 0, steps=800), one(0.2, 1, steps=100)) == 0.2
    # One of two each: an unsolved run counts with its budget.
    assert chosen(one(0.1, 0, steps=300), one(0.1, 1), one(0.2, 0, steps=200), one(0.2, 1)) == 0.2
    assert chosen(one(0.1, 0, error=0.3), one(0.1, 1, error=0.5), one(0.2, 0, error=0.2), one(0.2, 1, error=0.7)) == 0.1
    assert chosen(one(0.2, 0), one(0.1, 0)) == 0.1


def test_a_diverged_run_is_worse_than_every_error_and_a_failed_one_does_not_count():
    assert chosen(one(0.1, 0, status="diverged", error=0.1), one(0.2, 0, error=0.7)) == 0.2
    assert chosen(one(0.1, 0, status="failed"), one(0.1, 1, steps=100), one(0.2, 0, steps=500)) == 0.1


def test_only_the_seeds_of_selection_choose():
    runs = (one(0.1, 0, steps=100), one(0.2, 0), one(0.1, 7), one(0.2, 7, steps=100))
    assert chosen(*runs, seeds=range(5)) == 0.1
    assert chosen(*runs, seeds=range(5, 10)) == 0.2
    with pytest.raises(RequestError, match="seeds 20"):
        table(*runs, seeds=[20])


def test_each_setting_has_its_own_choice_and_an_edge_is_told():
    errors = {10: (0.1, 0.2, 0.3), 20: (0.3, 0.1, 0.2)}
    runs = [
        one(rate, 0, length=length, error=error)
        for length, of_length in errors.items()
        for rate, error in zip((0.1, 0.2, 0.3), of_length, strict=True)
    ]
    found = table(*runs)
    assert chosen_values(found, ["task", "length"]) == {("TemporalOrder", 10): 0.1, ("TemporalOrder", 20): 0.2}
    assert found[found["chosen"]].set_index("length")["at_edge"].to_dict() == {10: True, 20: False}
    assert not found[~found["chosen"]]["at_edge"].any()


def test_success_by_budget_counts_what_was_solved_by_then():
    runs = results(one(0.1, 0, steps=100), one(0.1, 1, steps=700), one(0.1, 2)).runs
    found = success_by_budget(runs, [50, 100, 500, 1000])
    assert found["solved"].tolist() == [0, 1, 1, 2]
    assert found["runs"].tolist() == [3] * 4


def test_the_comparison_counts_and_colours_every_side_at_every_length():
    runs = results(
        one(0.1, 0, steps=100, error=0.0), one(0.1, 1, error=0.75), one(0.1, 2, status="diverged"),
        one(0.1, 0, length=20, error=0.375), one(0.2, 0, steps=50, error=0.0),
    )  # fmt: skip
    keys = list(runs.runs.index)
    sides = {key: "fast" if runs.runs.loc[key, "learning_rate"] == 0.2 else "slow" for key in keys}
    picture = figures.comparison(runs, sides, {"TemporalOrder": 0.75})
    table = picture.data.set_index(["side", "length"])
    assert table.loc[("slow", 10), ["solved", "runs"]].tolist() == [1, 3]
    assert table.loc[("slow", 10), "mean_skill"] == pytest.approx(1 / 3)
    assert table.loc[("slow", 20), "mean_skill"] == pytest.approx(0.5)
    assert table.loc[("fast", 10), ["solved", "runs", "mean_skill"]].tolist() == [1, 1, 1.0]
    texts = {text.get_text() for axis in picture.figure.axes for text in axis.texts}
    assert texts == {"1/3", "0/1", "1/1"}
    named = dict.fromkeys(keys[:3], "first") | dict.fromkeys(keys[3:], "second")
    apart = figures.comparison(runs, sides, {"first": 0.75, "second": 0.375}, panels=named).data
    assert apart.set_index(["task", "length", "side"])["mean_skill"].to_dict() == {
        ("first", 10, "slow"): pytest.approx(1 / 3), ("second", 20, "slow"): 0.0, ("second", 10, "fast"): 1.0,
    }  # fmt: skip

    curve = figures.success_by_budget(runs, sides).data
    slow = curve[(curve["side"] == "slow") & (curve["length"] == 10)].set_index("updates")["solved"].to_dict()
    assert slow == {0: 0, 100: 1, 1000: 1}
