"""The study's figures show the numbers that were put in: bounds, rates, shares, survival."""

import itertools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import CensoredData, ecdf

from rnnstudy import figures
from rnnstudy.figures.chosen_runs import medians
from rnnstudy.figures.clipping import DECADES_SHOWN
from rnnstudy.figures.picture import Picture
from rnnstudy.spec import RequestError
from rnnstudy.tasks import TemporalOrder


@dataclass(frozen=True)
class Planted:
    """Results whose numbers are known."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame]

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise RequestError(f"no reading is called '{name}'")
        frame = self.frames[name]
        return frame if keys is None else frame[frame["key"].isin(list(keys))]


def words(picture: Picture) -> str:
    return figures.rendered(picture.figure, "svg").decode()


@pytest.fixture(scope="module")
def gains() -> Planted:
    """Ten seeds of three networks whose gradient changes by log10 of their own factor at every step."""
    rows, frames = [], []
    lag = np.arange(20)
    for kind, activation in (("Elman", "tanh"), ("Elman", "relu"), ("LSTM", None)):
        for gain in (0.5, 1.0, 2.0):
            for seed in range(10):
                key = f"{kind}-{activation}-{gain}-{seed}"
                slope = np.log10(gain) * (0.1 if kind == "LSTM" else 1.0) + 0.001 * seed
                rows.append(
                    {
                        "key": key, "cell": kind, "cell.activation": activation, "initialisation.gain": gain,
                        "seed": seed, "rate_initial": slope,
                    }
                )  # fmt: skip
                frames.append(pd.DataFrame({"key": key, "step": 0, "lag": lag, "value": slope * lag}))
    return Planted(
        pd.DataFrame(rows).set_index("key"), {"profile/h_initial_normalised": pd.concat(frames, ignore_index=True)}
    )


def test_the_phase_diagram_holds_the_planted_rates(gains: Planted) -> None:
    picture = figures.vanishing_to_exploding(gains)
    rates = picture.data.groupby(["kind", "gain"])[["rate", "low", "high", "runs"]].first()
    assert list(dict.fromkeys(picture.data["kind"])) == ["Elman relu", "Elman tanh", "LSTM"]
    for kind, share in (("Elman tanh", 1.0), ("Elman relu", 1.0), ("LSTM", 0.1)):
        for gain in (0.5, 1.0, 2.0):
            row = rates.loc[(kind, gain)]
            assert row["rate"] == pytest.approx(share * np.log10(gain) + 0.0045)
            assert row["low"] < row["rate"] < row["high"]
            assert row["runs"] == 10
    last = picture.data[(picture.data["kind"] == "Elman tanh") & (picture.data["gain"] == 2.0)].iloc[-1]
    assert last["median_decades"] == pytest.approx(19 * (np.log10(2) + 0.0045))
    shown = words(picture)
    for text in ("RNN, tanh", "RNN, relu", "LSTM", "lag τ − t (steps)", "95 % bootstrap interval over runs"):
        assert f">{text}<" in shown


def test_the_phase_diagram_needs_more_than_one_gain(gains: Planted) -> None:
    one = Planted(gains.runs[gains.runs["initialisation.gain"] == 1.0], gains.frames)
    with pytest.raises(RequestError, match=r"do not differ in initialisation.gain"):
        figures.vanishing_to_exploding(one)


@pytest.fixture(scope="module")
def clipped() -> Planted:
    """Without clipping 3 of 10 runs diverge at the higher rate, at update 7; with clipping none."""
    rows, frames = [], []
    for clip in (False, True):
        for rate in (0.01, 0.1):
            for seed in range(10):
                key = f"{clip}-{rate}-{seed}"
                diverged = not clip and rate == 0.1 and seed < 3
                rows.append(
                    {
                        "key": key, "cell": "Elman", "length": 50, "learning_rate": rate, "seed": seed,
                        "status": "diverged" if diverged else "finished",
                        "training.clip.threshold": 2.0 if clip else np.nan,
                    }
                )  # fmt: skip
                norms = np.full(7 if diverged else 20, -0.5)
                norms[4] = 40.0 if diverged else 3.0
                frames.append(pd.DataFrame({"key": key, "step": np.arange(len(norms)), "value": norms}))
    return Planted(
        pd.DataFrame(rows).set_index("key"), {"gradient/global_before": pd.concat(frames, ignore_index=True)}
    )


def test_clipping_shows_norms_divergence_and_threshold(clipped: Planted) -> None:
    picture = figures.clipping(clipped, learning_rate=0.1)
    shares = picture.data.dropna(subset=["share"]).set_index(["clipping", "learning_rate"])
    assert shares.loc[("without clipping", 0.1), ["diverged", "runs"]].tolist() == [3, 10]
    assert shares.loc[("with clipping", 0.1), "diverged"] == 0
    row = shares.loc[("without clipping", 0.1)]
    assert (row["wilson_low"], row["wilson_high"]) == figures.wilson(3, 10)
    updates = picture.data.dropna(subset=["median"]).set_index(["clipping", "step"])
    assert set(updates["learning_rate"]) == {0.1}
    assert len(updates) == 2 * 20
    # The spikes of a few runs, which a median hides, and how many runs there still are.
    spike = updates.loc[("without clipping", 4)]
    assert spike[["median", "largest", "with_norm"]].tolist() == [3.0, 40.0, 10]
    assert updates.loc[("without clipping", 10), ["median", "largest", "with_norm"]].tolist() == [-0.5, -0.5, 7]
    ended = picture.data[picture.data["status"] == "diverged"]
    assert len(ended) == 3 * 7
    assert ended.groupby("key")["log10_norm"].max().tolist() == [40.0] * 3
    left, middle = picture.figure.axes[:2]
    # A line for each run, of those that diverge another for the cross; the median; the threshold.
    assert [len(axis.lines) for axis in (left, middle)] == [10 + 3 + 1 + 1, 10 + 1 + 1]
    assert not left.collections, "a band of a median over two groups of runs would stand where no run is"
    assert max(middle.lines[0].get_ydata()) == 3.0, "the spike of one update is in its line"
    crosses = [line for line in left.lines if line.get_marker() == "X"]
    assert [list(line.get_xdata()) for line in crosses] == [[7]] * 3, "the seventh update is the last of a run"
    assert left.get_ylim()[1] == DECADES_SHOWN[1]
    threshold = [line for line in left.lines if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"]
    assert threshold[0].get_ydata()[0] == pytest.approx(np.log10(2.0))
    assert ">without clipping: 3 of 10 diverge<" in words(picture)


def test_clipping_says_what_is_missing(clipped: Planted) -> None:
    with pytest.raises(RequestError, match=r"no run has learning rate 0.5; there are: 0.01, 0.1"):
        figures.clipping(clipped, learning_rate=0.5)
    only = Planted(clipped.runs[clipped.runs["training.clip.threshold"].isna()], clipped.frames)
    with pytest.raises(RequestError, match="compares runs with and without"):
        figures.clipping(only, learning_rate=0.1)


def test_survival_is_the_share_unsolved_and_censors_what_is_not_solved() -> None:
    # Eleven runs: solved after 100, 100, 200, 400; one met the criterion after 100 and failed the test; six never did,
    # one of them diverged, within 500 updates.
    times = [100, 100, 200, 400, 100, *[None] * 6]
    runs = pd.DataFrame(
        {
            "key": [f"k{place}" for place in range(11)], "cell": "LSTM", "length": 50, "seed": range(11),
            "status": ["finished"] * 10 + ["diverged"], "training.steps": 500,
            "steps_to_solve": pd.array(times, dtype="Int64"),
            "solved": pd.array([True] * 4 + [False] * 6 + [None], dtype="boolean"),
        }
    ).set_index("key")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figures.time_to_solve(Planted(runs, {}))
    curve = picture.data.set_index("step")["unsolved"]
    assert curve.to_dict() == pytest.approx({0: 1.0, 100: 9 / 11, 200: 8 / 11, 400: 7 / 11, 500: 7 / 11})
    # Nothing is censored before the end: the Kaplan–Meier estimate is the same.
    solved = runs["solved"].eq(True).fillna(False).to_numpy(bool)
    known = np.array([time for time, done in zip(times, solved, strict=True) if done], dtype=float)
    estimate = ecdf(CensoredData(uncensored=known, right=np.full(7, 500.0))).sf
    np.testing.assert_allclose(curve[[100, 200, 400]], estimate.evaluate([100, 200, 400]))
    at = picture.data.set_index("step").loc[200]
    assert (at["low"], at["high"]) == pytest.approx(figures.wilson(8, 11))
    assert (picture.data["solved"] == 4).all()
    drawn = picture.figure.axes[0].lines[0]
    assert set(drawn.get_ydata()) == set(picture.data["unsolved"])


@pytest.mark.parametrize(("times", "last"), [([100] * 5, 0.0), ([None] * 5, 1.0)])
def test_survival_where_all_or_none_solve(times: list[int | None], last: float) -> None:
    runs = pd.DataFrame(
        {
            "cell": "GRU", "length": 20, "status": "finished", "training.steps": 300, "steps_to_solve": times,
            "solved": last == 0.0,
        },
        index=pd.Index([f"k{place}" for place in range(5)], name="key"),
    )  # fmt: skip
    picture = figures.time_to_solve(Planted(runs.astype({"steps_to_solve": "Int64"}), {}))
    end = picture.data.iloc[-1]
    assert (end["unsolved"], end["step"]) == (last, 300)
    assert (end["low"], end["high"]) == pytest.approx(figures.wilson(round(5 * last), 5))
    assert end["high"] - end["low"] > 0.3


def test_a_run_that_passed_the_test_alone_has_taken_the_whole_budget_and_budgets_must_agree() -> None:
    runs = pd.DataFrame(
        {
            "cell": "GRU", "length": 20, "status": "finished", "training.steps": [300, 300],
            "steps_to_solve": pd.array([None, 100], dtype="Int64"), "solved": True,
        },
        index=pd.Index(["a", "b"], name="key"),
    )  # fmt: skip
    assert figures.updates_to_solve(runs).tolist() == [300, 100]
    with pytest.raises(RequestError, match=r"different budgets \(300, 400 updates\)"):
        figures.time_to_solve(Planted(runs.assign(**{"training.steps": [300, 400]}), {}))


def test_what_is_exactly_zero_ranks_below_all_numbers() -> None:
    values = np.array([[-np.inf, np.nan, 1.0, -np.inf]] * 4 + [[2.0, 3.0, 1.0, -np.inf]] * 6)
    median, low, high = figures.median_and_band(values)
    # Ten values with four of them below: the median is a number, the lower end of its interval is not.
    assert (median[0], np.isnan(low[0]), high[0]) == (2.0, True, 2.0)
    # Six values that are there, fewer than a bootstrap needs: their range.
    assert (median[1], low[1], high[1]) == (3.0, 3.0, 3.0)
    assert (median[2], low[2], high[2]) == (1.0, 1.0, 1.0)
    assert np.isnan([median[3], low[3], high[3]]).all()


def test_holm_rejects_step_by_step() -> None:
    # By hand: 3 · 0.01, then the largest of that and 2 · 0.03, then of that and 1 · 0.04.
    assert figures.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert figures.holm([0.5, 0.9]) == [1.0, 1.0]
    assert figures.holm([]) == []


def test_mcnemar_is_the_binomial_of_the_pairs_that_differ() -> None:
    one = np.array([True] * 6 + [False] * 3 + [True])
    other = np.array([False] * 6 + [False] * 3 + [True])
    assert figures.mcnemar(one, other) == (6, 0, pytest.approx(2 * 0.5**6))
    assert figures.mcnemar(other, other) == (0, 0, 1.0)


def test_signed_ranks_by_all_signs_of_the_ranks() -> None:
    differences = np.array([0.3, -0.1, 0.7, 0.4, 0.0, 0.9])
    ranks = np.array([2, 1, 4, 3, 5])  # of the magnitudes; the pair that does not differ has none
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=5)])
    as_uneven = np.abs(sums - 7.5) >= 14 - 7.5
    assert figures.signed_ranks(differences) == pytest.approx(as_uneven.mean())
    assert figures.signed_ranks(np.zeros(3)) == 1.0
    assert figures.signed_ranks(np.zeros(1)) == 1.0


def test_zeros_that_the_readings_tell_of_are_below_and_others_unknown() -> None:
    frame = pd.DataFrame({"key": ["a"] * 3, "step": 0, "lag": range(3), "value": [1.0, np.nan, np.nan]})
    zeros = pd.DataFrame({"key": ["a"] * 3, "step": 0, "lag": range(3), "value": [0.0, 0.9, 0.1]})
    runs = pd.DataFrame({"cell": "Elman", "length": 3, "seed": 0}, index=pd.Index(["a"], name="key"))
    planted = Planted(runs, {"profile/h_initial_normalised": frame, "profile/h_initial_zeros": zeros})
    found = medians(planted, "profile/h_initial_normalised", None)["value"].tolist()
    assert found[:2] == [1.0, -np.inf]
    assert np.isnan(found[2])


def test_the_upper_bound_has_the_slope_of_the_largest_singular_value() -> None:
    lag = np.arange(30)
    runs = pd.DataFrame(
        {
            "cell": ["Elman", "LSTM"], "length": 30, "seed": 0, "cell.activation": ["sigmoid", None],
            "recurrent_W_hh_largest_singular_value_initial": [2.0, np.nan],
        },
        index=pd.Index(["a", "b"], name="key"),
    )  # fmt: skip
    frame = pd.concat([pd.DataFrame({"key": key, "step": 0, "lag": lag, "value": -1 - 0.5 * lag}) for key in "ab"])
    picture = figures.gradient_by_lag(Planted(runs, {"profile/h_initial": frame}), bound=True)
    elman = picture.data[picture.data["cell"] == "Elman"]
    np.testing.assert_allclose(elman["bound"], -1 + np.log10(2.0 * 0.25) * lag)
    assert picture.data[picture.data["cell"] == "LSTM"]["bound"].isna().all()
    assert "upper bound" in words(picture)
    # A bound that leaves the panel at once is not drawn as a stub.
    steep = runs.assign(recurrent_W_hh_largest_singular_value_initial=[4000.0, np.nan])
    picture = figures.gradient_by_lag(Planted(steep, {"profile/h_initial": frame}), bound=True)
    np.testing.assert_allclose(picture.data[picture.data["cell"] == "Elman"]["bound"], -1 + 3 * lag)
    assert "upper bound" not in words(picture)
    assert len(picture.figure.axes[0].lines) == 1


def test_every_run_is_a_line_and_what_lies_below_the_panel_is_counted() -> None:
    lag = np.arange(50)
    slopes = {"a": -0.02, "b": -0.01, "c": -1.0, "d": -2.0}
    runs = pd.DataFrame({"cell": "Elman", "length": 50, "seed": range(4)}, index=pd.Index(list(slopes), name="key"))
    frames = [pd.DataFrame({"key": key, "step": 0, "lag": lag, "value": slope * lag}) for key, slope in slopes.items()]
    planted = Planted(runs, {"profile/h_final_normalised": pd.concat(frames, ignore_index=True)})
    picture = figures.gradient_of_runs(planted, stage="final", normalised=True)
    axis = picture.figure.axes[0]
    assert sorted(line.get_ydata()[-1] for line in axis.lines) == pytest.approx([-98, -49, -0.98, -0.49])
    assert axis.get_ylim()[0] == -8
    assert "2 of 4 runs at T = 50" in words(picture)
    assert "(down to −98)" in words(picture)
    lowest = picture.data.groupby("key")["value"].min()
    assert lowest.tolist() == pytest.approx([slope * 49 for slope in slopes.values()])
    near = figures.gradient_of_runs(planted, stage="final", normalised=True, keys=["a", "b"])
    assert near.figure.axes[0].get_ylim()[0] == pytest.approx(-0.98 - 0.3)
    assert "below the panel" not in words(near)


def test_the_stretches_with_marks_are_those_of_the_task() -> None:
    # Temporal order of length 100: the marks lie in the second tenth and in the sixth, counted from 1.
    assert figures.informative_stretches(TemporalOrder(length=100)) == [(11, 20), (51, 60)]
    generator = torch.Generator().manual_seed(3)
    where = TemporalOrder(length=100).sample(64, generator).informative.any(dim=1).nonzero().flatten() + 1
    assert where.min() >= 11
    assert where.max() <= 60


def test_lines_of_many_updates_are_thinned_and_keep_their_spikes(clipped: Planted) -> None:
    frame = clipped.frames["gradient/global_before"]
    norms = pd.concat(
        pd.DataFrame({"key": key, "step": np.arange(3000), "value": np.where(np.arange(3000) == 2345, 9.0, -0.5)})
        for key in frame["key"].unique()
    )
    picture = figures.clipping(Planted(clipped.runs, {"gradient/global_before": norms}), learning_rate=0.1)
    line = picture.figure.axes[1].lines[0]
    assert line.get_xdata()[:5] == pytest.approx([1, 2, 3, 4, 5])
    assert len(line.get_xdata()) < 20 * np.log10(3000)
    assert max(line.get_ydata()) == 9.0
    assert line.get_ydata()[-1] == -0.5


def test_errors_of_sides_and_baselines_by_length() -> None:
    rows = [
        {"key": f"{side}-{unit}-{length}-{seed}", "side": side, "cell": side.split(",")[0], "task.unit": unit,
         "length": length, "seed": seed, "status": "finished", "error": error + 0.01 * seed}
        for (side, unit, length), error in {
            ("Elman, as drawn", "word", 20): 0.3, ("Elman, as drawn", "word", 200): 0.48,
            ("Elman, as drawn", "character", 100): 0.4, ("LSTM, forget bias 1", "word", 20): 0.25,
            ("LSTM, forget bias 1", "word", 200): 0.27,
        }.items()
        for seed in range(3)
    ]  # fmt: skip
    rows[2] |= {"status": "diverged", "error": None}
    runs = pd.DataFrame(rows).set_index("key")
    bags = pd.DataFrame({"task.unit": "word", "length": [20, 200], "side": "bag of words", "error": [0.22, 0.45]})
    sides = dict(runs.pop("side"))
    picture = figures.error_by_length(Planted(runs, {}), sides, bags, chance=0.5, error="wrong", each="task.unit")
    data = picture.data.set_index(["task.unit", "length", "side"])
    # A diverged run counts as chance.
    assert data.loc[("word", 20, "Elman, as drawn"), ["runs", "error", "lowest", "highest"]].tolist() == [
        3,
        0.31,
        0.3,
        0.5,
    ]
    assert data.loc[("word", 200, "LSTM, forget bias 1"), "error"] == pytest.approx(0.28)
    assert data.loc[("word", 200, "bag of words"), ["runs", "error"]].tolist() == [0, 0.45]
    assert len(data) == 7
    assert [axis.get_title() for axis in picture.figure.axes] == ["unit: word", "unit: character"]
    shown = words(picture)
    for text in ("Elman, as drawn", "LSTM, forget bias 1", "bag of words", "chance", "wrong"):
        assert f">{text}<" in shown
