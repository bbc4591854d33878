"""Spectra, truncation, half-life, settings, prediction: figures hold planted numbers and name what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from rnnstudy import figures
from rnnstudy.cells import LSTM
from rnnstudy.figures.single_unit import Unit, descend
from rnnstudy.spec import RequestError


@dataclass(frozen=True)
class Planted:
    """A table of runs, and readings (key, median value by place)."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame]

    def readings(self, name: str, *, quantile: float | None = None, keys: Sequence[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise RequestError(f"no reading is called '{name}'")
        frame = self.frames[name]
        return frame if keys is None else frame[frame["key"].isin(list(keys))]


SEEDS = 10


def planted() -> Planted:
    """Ten runs of each cell; singular value number i falls by (0.1 + 0.01 i) decades a step, in an LSTM by a tenth."""
    runs, frames = [], {}
    rng = np.random.default_rng(0)
    parts: dict[str, list[pd.DataFrame]] = {}
    for cell in ("LSTM", "Elman"):
        for seed in range(SEEDS):
            key = f"{cell}-{seed}"
            runs.append({
                "key": key, "task": "TemporalOrder", "cell": cell, "length": 20, "learning_rate": 0.001, "seed": seed,
                "status": "finished", "solved": cell == "LSTM" or seed < 5, "error": 0.0 if cell == "LSTM" else 0.5,
                "steps_to_solve": 100.0 + seed if cell == "LSTM" or seed < 5 else np.nan,
                "training.steps": 600,
                "log10_ratio_initial": -float(seed) if cell == "Elman" else rng.normal(), "layers": 1,
                "bias": np.nan if seed >= 8 else float(seed // 4), "rate_initial_c": -0.1 * (1 + seed),
                "rate_initial": -1.0, "rate_final_c": np.nan if seed == 0 else 0.02, "rate_final": -0.3,
            })  # fmt: skip
            for stage in ("initial", "final"):
                for path, size in (("h", 5),) if cell == "Elman" else (("h", 5), ("c", 5), ("joint", 10)):
                    lags, index = np.meshgrid([1, 2, 4, 8, 16, 19], np.arange(size), indexing="ij")
                    rate = (0.1 + 0.01 * index) * (0.1 if path in ("c", "joint") else 1.0)
                    frame = pd.DataFrame({"key": key, "step": 0, "lag": lags.ravel(), "index": index.ravel()})
                    parts.setdefault(f"singular_values/{path}_{stage}", []).append(
                        frame.assign(value=(-rate * lags).ravel() + 0.001 * seed)
                    )
                size = 5 if cell == "Elman" else 10
                frame = pd.DataFrame({"key": key, "step": 0, "index": np.arange(size)})
                parts.setdefault(f"lyapunov/exponents_{stage}", []).append(
                    frame.assign(value=-0.1 * np.arange(size) - 0.001 * seed)
                )
                lag = np.arange(20)
                frame = pd.DataFrame({"key": key, "step": 0, "lag": lag, "value": (lag + 1) / 20})
                parts.setdefault(f"by_lag/W_hh_cosine_{stage}", []).append(frame)
    frames = {name: pd.concat(blocks, ignore_index=True) for name, blocks in parts.items()}
    return Planted(pd.DataFrame(runs).set_index("key"), frames)


@pytest.fixture(scope="module")
def results() -> Planted:
    return planted()


def test_singular_values_are_the_medians_of_the_runs(results: Planted) -> None:
    picture = figures.singular_values_by_lag(results)
    data = picture.data.set_index(["stage", "cell", "path", "singular_value", "lag"])["median"]
    # The median of 0, 0.001, …, 0.009 is 0.0045; of five values the quarter is number 1, the half number 2.
    assert data["initial", "Elman", "h", "largest", 8] == pytest.approx(-0.8 + 0.0045)
    assert data["initial", "Elman", "h", "upper quartile", 8] == pytest.approx(-0.88 + 0.0045)
    assert data["final", "Elman", "h", "smallest", 19] == pytest.approx(-0.14 * 19 + 0.0045)
    assert data["final", "LSTM", "joint", "smallest", 19] == pytest.approx(-0.019 * 19 + 0.0045)
    assert data["initial", "LSTM", "h of several", "largest", 1] == pytest.approx(-0.1 + 0.0045)
    assert set(picture.data["path"]) == {"h", "joint", "c", "h of several"}
    assert (picture.data["low"] <= picture.data["median"]).all()
    assert len(picture.keys) == 2 * SEEDS
    # A panel for the state of each cell and one for both paths of the LSTM, before training and after.
    assert len(picture.figure.axes) == 6
    assert not any(line.get_marker() == "v" for axis in picture.figure.axes for line in axis.lines)


def test_a_singular_value_lost_in_rounding_ends_its_line_in_a_triangle(results: Planted) -> None:
    name = "singular_values/h_final"
    frame = results.readings(name)
    lost = frame["key"].str.startswith("Elman") & (frame["index"] == 4) & (frame["lag"] > 4)
    frames = results.frames | {name: frame.assign(value=frame["value"].mask(lost))}
    picture = figures.singular_values_by_lag(Planted(results.runs, frames))
    ends = {
        number: (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for number, axis in enumerate(picture.figure.axes)
        for line in axis.lines
        if line.get_marker() == "v"
    }
    assert list(ends) == [3], "below, in the panel of the RNN, and nowhere else"
    assert ends[3] == (4, pytest.approx(-0.14 * 4 + 0.0045))
    assert "lost in rounding" in figures.rendered(picture.figure, "svg").decode()


def test_lyapunov_exponents_stand_at_their_share_of_the_directions(results: Planted) -> None:
    data = figures.lyapunov_spectrum(results).data
    elman = data[(data["cell"] == "Elman") & (data["stage"] == "final")]
    np.testing.assert_allclose(elman["share"], [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(elman["median"], -0.1 * np.arange(5) - 0.0045)


def test_the_cosine_is_drawn_against_the_number_of_steps_kept(results: Planted) -> None:
    data = figures.cosine_by_window(results, informative=[(4, 6)]).data
    np.testing.assert_allclose(data["median"], data["window"] / 20)
    assert set(data["runs"]) == {SEEDS}


def test_half_life_of_a_constant_gate() -> None:
    for bias in (-3.0, 0.0, 2.0, 8.0):
        steps = figures.half_life_of_bias(np.array([bias]))[0]
        assert (1 / (1 + np.exp(-bias))) ** steps == pytest.approx(0.5)
    assert figures.half_life_of_bias(np.array([0.0, 4.0]), 0.25).tolist() == [
        pytest.approx(np.log(2) / np.log(4 / 3)),
        np.inf,
    ]


def test_the_loop_through_h_is_that_of_an_lstm_at_rest() -> None:
    """The spectral radius of ∂(c, h)_t/∂(c, h)_{t−1} at c = h = 0 with input and output gates of one half."""
    torch.manual_seed(0)
    width, bias = 40, 1.0
    cell = LSTM(width=width)
    parameters = {"W_hh": torch.zeros(1, width, 4 * width, dtype=torch.float64)}
    block = torch.diag(torch.linspace(-0.5, 0.6, width, dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    parameters["W_hh"][0, :, 3 * width :] = turn @ block @ turn.T
    projected = torch.zeros(1, 1, 4 * width, dtype=torch.float64)
    projected[..., :width] = bias

    def step(joint: torch.Tensor) -> torch.Tensor:
        c, h = joint.view(1, 1, 2 * width).chunk(2, dim=-1)
        after = cell.step(parameters, projected, {"c": c, "h": h}, lambda _, value: value)
        return torch.cat([after["c"], after["h"]], dim=-1).flatten()

    jacobian = torch.autograd.functional.jacobian(step, torch.zeros(2 * width, dtype=torch.float64))
    radius = float(torch.linalg.eigvals(jacobian).abs().max())
    steps = figures.half_life_of_bias(np.array([bias]), 0.25 * 0.6)[0]
    assert radius**steps == pytest.approx(0.5)


def test_rates_by_bias_are_medians_and_have_a_half_life_where_they_fall(results: Planted) -> None:
    lstm = Planted(results.runs[results.runs["cell"] == "LSTM"], {})
    picture = figures.half_life_by_bias(lstm, "bias", loop=0.1, longest=20)
    data = picture.data.set_index(["stage", "start"])
    assert data.loc[("initial", "0"), "rate"] == pytest.approx(-0.25)
    assert data.loc[("initial", "0"), "half_life"] == pytest.approx(np.log10(2) / 0.25)
    assert data.loc[("final", "0"), ["runs", "half_life"]].tolist() == [3, np.inf]
    assert data.loc[("initial", "chrono"), "rate"] == pytest.approx(-0.95)
    assert picture.data.loc[picture.data["start"] == "chrono", "runs"].tolist() == [2] * 2


def test_success_against_a_setting_counts_and_names_its_interval(results: Planted) -> None:
    picture = figures.success(results, "layers", each="length", label="layers", chance=0.75)
    data = picture.data.set_index("cell")
    assert data.loc["Elman", ["runs", "solved", "share", "median_error"]].tolist() == [10, 5, 0.5, 0.5]
    assert (data.loc["Elman", "wilson_low"], data.loc["Elman", "wilson_high"]) == figures.wilson(5, 10)
    assert "Wilson 95 %" in picture.caption
    with pytest.raises(RequestError, match="did you mean 'layers'"):
        figures.success(results, "layer", label="layers", chance=0.75)


def places(axis) -> list[float]:
    return [float(place) for place in axis.get_xticks()]


def test_numbers_stand_at_their_value_lengths_at_their_logarithm_and_words_evenly(results: Planted) -> None:
    windows = results.runs.assign(window=[5, 10, 40, 50] * 5, start=["chrono", "0", "1", "2"] * 5)
    windows["length"] = [10, 100, 1000, 10_000] * 5
    planted = Planted(windows, {})
    axes = figures.success(planted, "window", label="window", chance=0.75).figure.axes
    assert places(axes[1]) == [5, 10, 40, 50]
    low, high = axes[1].get_xlim()
    marks = [float(x) for axis in axes for line in axis.lines if line.get_marker() == "s" for x in line.get_xdata()]
    assert len(marks) == 8
    assert all(low < place < high for place in marks)
    # The cells stand side by side, and closer to their value than to the next.
    np.testing.assert_allclose(marks, [5, 10, 40, 50] * 2, atol=2.5)
    lengths = figures.success(planted, chance=0.75).figure.axes[0]
    assert places(lengths) == [1, 2, 3, 4]
    assert [text.get_text() for text in lengths.get_xticklabels()] == ["10", "100", "1000", "10000"]
    assert "logarithmic" in lengths.get_xlabel()
    joined = [line.get_linestyle() for line in axes[0].lines if line.get_marker() == "s"]
    assert joined == ["-"]
    words = {"chrono": "chrono", "2": "two", "0": "zero", "1": "one"}
    categories = figures.success(planted, "start", chance=0.75, words=words).figure.axes[0]
    assert [line.get_linestyle() for line in categories.lines if line.get_marker() == "s"] == ["None"]
    for named in (None, words):
        assert places(figures.success(planted, "start", chance=0.75, words=named).figure.axes[1]) == [0, 1, 2, 3]


def test_prediction_holds_the_planted_order_and_says_which_strata_can_speak(results: Planted) -> None:
    picture = figures.prediction(results, "log10_ratio_initial", label="score")
    table = picture.data.set_index(["comparison", "target", "cell"])
    # Elman: the five highest scores are the five solved, the sooner the higher.
    assert table.loc[("within strata", "solved", "Elman"), ["value", "pairs", "informative"]].tolist() == [1.0, 25, 1]
    assert table.loc[("within strata", "sooner", "Elman"), "value"] == 1.0
    # All LSTMs solve the task: nothing to compare, but for when.
    assert np.isnan(table.loc[("within strata", "solved", "LSTM"), "value"])
    assert table.loc[("within strata", "sooner", "LSTM"), "pairs"] == 45
    assert "1 of 2 strata" in picture.caption


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda empty: figures.singular_values_by_lag(empty), "SingularValues"),
        (lambda empty: figures.lyapunov_spectrum(empty), "LyapunovExponents"),
        (lambda empty: figures.cosine_by_window(empty), "GradientByLag"),
        (lambda empty: figures.half_life_by_bias(empty, "nothing", loop=0.1), "nothing"),
        (lambda empty: figures.prediction(empty, "nothing", label=""), "nothing"),
    ],
)
def test_what_is_missing_is_named(results: Planted, draw, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        draw(Planted(results.runs, {}))


def test_pictures_of_the_cliff_hold_the_closed_forms() -> None:
    unit = Unit(steps=20)
    w, b = np.linspace(4, 7, 7), np.linspace(-3.5, -1.5, 5)
    paths = {
        name: descend(unit, 6.0, -2.8, learning_rate=0.3, updates=20, threshold=limit)
        for name, limit in (("not clipped", None), ("clipped", 1.0))
    }
    picture = figures.loss_surface(unit, paths, paths, w=w, b=b, learning_rate=0.3, threshold=1.0)
    ground = picture.data[picture.data["path"] == "surface"]
    np.testing.assert_allclose(ground["loss"], unit.loss(ground["w"].to_numpy(), ground["b"].to_numpy()))
    assert picture.keys == ()
    left, right = picture.figure.axes[:2]
    descents = [line for line in left.lines if len(line.get_xdata()) == 21]
    looks = [(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in (*descents, *right.lines)]
    assert looks[:2] == looks[2:], "a path looks the same in both panels"
    picture = figures.wall_by_length(unit, w=6.0, distances=np.array([-0.1, -1e-5, 0.0, 1e-5, 0.1]), lengths=(5, 10))
    assert "logarithmic\non both sides, linear within ±10⁻⁴" in picture.figure.axes[0].get_xlabel()
    wall = picture.data
    on_it = wall[wall["distance"] == 0]
    np.testing.assert_allclose(on_it["loss"], (unit.start - unit.target) ** 2, rtol=1e-9)
    curve = figures.bifurcation(unit, w=6.0, b=b, weights=np.linspace(3.5, 7, 8)).data
    fixed = curve[curve["what"].isin(["stable", "unstable"])]
    np.testing.assert_allclose(1 / (1 + np.exp(-(6 * fixed["h"] + fixed["b"]))), fixed["h"], atol=1e-12)
