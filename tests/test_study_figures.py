"""The study's figures show the numbers that were put in: bounds, rates, shares, survival."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from rnnstudy import figures
from rnnstudy.spec import SpecError
from rnnstudy.tasks import TemporalOrder


@dataclass(frozen=True)
class Planted:
    """Results whose numbers are known."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame]

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise SpecError(f"no reading is called '{name}'")
        frame = self.frames[name]
        return frame if keys is None else frame[frame["key"].isin(list(keys))]


def words(picture: figures.Picture) -> str:
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
                    {"key": key, "cell": kind, "cell.activation": activation, "initialisation.gain": gain, "seed": seed}
                )
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
    with pytest.raises(SpecError, match=r"do not differ in initialisation.gain"):
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
    norms = picture.data.dropna(subset=["log10_norm"])
    assert set(norms["learning_rate"]) == {0.1}
    assert len(norms) == 17 * 20 + 3 * 7
    left = picture.figure.axes[0]
    assert left.get_ylim()[1] == figures.CLIPPING_DECADES[1]
    threshold = [line for line in left.lines if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"]
    assert threshold[0].get_ydata()[0] == pytest.approx(np.log10(2.0))
    assert ">without clipping: 3 of 10 diverge<" in words(picture)


def test_clipping_says_what_is_missing(clipped: Planted) -> None:
    with pytest.raises(SpecError, match=r"no run has learning rate 0.5; there are: 0.01, 0.1"):
        figures.clipping(clipped, learning_rate=0.5)
    only = Planted(clipped.runs[clipped.runs["training.clip.threshold"].isna()], clipped.frames)
    with pytest.raises(SpecError, match="compares runs with and without"):
        figures.clipping(only, learning_rate=0.1)


def test_survival_is_the_product_of_shares_and_censors_what_is_not_solved() -> None:
    # Ten runs: solved after 100, 100, 200, 400; six never, one of them diverged, within 500 updates.
    times = [100, 100, 200, 400, *[None] * 6]
    runs = pd.DataFrame(
        {
            "key": [f"k{place}" for place in range(10)], "cell": "LSTM", "length": 50, "seed": range(10),
            "status": ["finished"] * 9 + ["diverged"], "training.steps": 500,
            "steps_to_solve": pd.array(times, dtype="Int64"),
        }
    ).set_index("key")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figures.time_to_solve(Planted(runs, {}))
    curve = picture.data.set_index("step")["unsolved"]
    assert curve.to_dict() == pytest.approx({0: 1.0, 100: 0.8, 200: 0.7, 400: 0.6, 500: 0.6})
    at = picture.data.set_index("step").loc[200]
    # Greenwood's variance of log(−log S) at 0.7: Σ d/(n(n−d)) over the events, divided by (log S)².
    deviation = 1.959963984540054 * np.sqrt(2 / (10 * 8) + 1 / (8 * 7)) / abs(np.log(0.7))
    assert at["low"] == pytest.approx(0.7 ** np.exp(deviation))
    assert at["high"] == pytest.approx(0.7 ** np.exp(-deviation))
    assert (picture.data["solved"] == 4).all()


@pytest.mark.parametrize(("times", "last"), [([100] * 5, 0.0), ([None] * 5, 1.0)])
def test_survival_where_all_or_none_solve(times: list[int | None], last: float) -> None:
    runs = pd.DataFrame(
        {"cell": "GRU", "length": 20, "status": "finished", "training.steps": 300, "steps_to_solve": times},
        index=pd.Index([f"k{place}" for place in range(5)], name="key"),
    )
    picture = figures.time_to_solve(Planted(runs.astype({"steps_to_solve": "Int64"}), {}))
    assert picture.data["unsolved"].iloc[-1] == last
    assert picture.data["step"].iloc[-1] == 300


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


def test_the_stretches_with_marks_are_those_of_the_task() -> None:
    # Temporal order of length 100: the marks lie in the second tenth and in the sixth, counted from 1.
    assert figures.informative_stretches(TemporalOrder(length=100)) == [(11, 20), (51, 60)]
    generator = torch.Generator().manual_seed(3)
    where = TemporalOrder(length=100).sample(64, generator).informative.any(dim=1).nonzero().flatten() + 1
    assert where.min() >= 11
    assert where.max() <= 60
