"""Figures hold up where their numbers are extreme, absent or many."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.spec import RequestError


@dataclass(frozen=True)
class Planted:
    """Results whose numbers are known."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise RequestError(f"no reading is called '{name}'")
        frame = self.frames[name]
        return frame if keys is None else frame[frame["key"].isin(list(keys))]


@pytest.mark.parametrize("finite", [True, False])
def test_clipping_draws_a_diverged_run_that_never_had_a_finite_norm(finite: bool) -> None:
    rows, frames = [], []
    for clip in (False, True):
        for seed in range(3):
            key, diverged = f"{clip}-{seed}", not clip and seed == 0
            rows.append(
                {
                    "key": key, "cell": "Elman", "length": 50, "learning_rate": 0.1, "seed": seed,
                    "status": "diverged" if diverged else "finished",
                    "training.clip.threshold": 1.0 if clip else np.nan,
                }
            )  # fmt: skip
            norms = np.full(8, np.inf if diverged or not finite else 0.5)
            frames.append(pd.DataFrame({"key": key, "step": np.arange(8), "value": norms}))
    results = Planted(pd.DataFrame(rows).set_index("key"), {"gradient/global_before": pd.concat(frames)})
    picture = figures.clipping(results, learning_rate=0.1)
    left = picture.figure.axes[0]
    crosses = [line for line in left.lines if line.get_marker() == "X"]
    assert [list(line.get_xdata()) for line in crosses] == [[8]], "at its last update, the eighth"
    assert left.get_ylim()[0] < crosses[0].get_ydata()[0] < left.get_ylim()[1]
    assert left.get_title() == "without clipping: 1 of 3 diverge"


def with_half_lives(lives: dict[float, float]) -> Planted:
    """Four runs for each bias, whose gradients halve in about so many steps; infinite: they grow a little."""
    rows = []
    for bias, life in lives.items():
        for seed in range(4):
            rate = -np.log10(2) / (life * (1 + 0.02 * seed)) if np.isfinite(life) else 0.001 * seed
            rows.append(
                {
                    "key": f"{bias}-{seed}", "length": 100, "status": "finished", "bias": bias,
                    **{f"rate_{stage}{end}": rate for stage in ("initial", "final") for end in ("", "_c")},
                }
            )  # fmt: skip
    return Planted(pd.DataFrame(rows).set_index("key"))


def test_half_lives_stand_at_their_length_and_what_does_not_fall_stands_above() -> None:
    planted = {0.0: 14.0, 1.0: 58.0, 2.0: 117.0, 3.0: 300.0, 4.0: np.inf, np.nan: 40.0}
    picture = figures.half_life_by_bias(with_half_lives(planted), "bias", loop=0.14, longest=100)
    data = picture.data[picture.data["stage"] == "initial"].set_index("start")
    for bias, life in planted.items():
        start = "chrono" if np.isnan(bias) else f"{bias:g}"
        assert data.loc[start, "half_life"] == pytest.approx(1.03 * life, rel=0.01)
    assert (data["half_life_low"] <= data["half_life"]).all()
    assert (data["half_life"] <= data["half_life_high"]).all()
    axis = picture.figure.axes[0]
    assert axis.get_yscale() == "log"
    marks = sorted(float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "o")
    assert marks[:5] == pytest.approx(sorted(1.03 * life for life in planted.values() if np.isfinite(life)), rel=0.01)
    # The runs that do not fall stand above every half-life, inside the axes, where the axis says so.
    low, high = axis.get_ylim()
    strip = dict(zip(axis.get_yticks(), (text.get_text() for text in axis.get_yticklabels()), strict=True))
    assert strip[marks[-1]] == "does not fall"
    assert low < marks[0] < max(planted[3.0], 300.0) < marks[-1] < high
    # How many of the four runs do not fall, in the same strip.
    counts = {text.get_position()[0]: text.get_text() for text in axis.texts}
    assert counts == {4.0: "4/4"}
    # Told apart: half as far again is visible on the axis.
    share = np.diff(np.log(marks)) / np.log(high / low)
    assert share.min() > 0.02


def test_half_lives_need_a_bias() -> None:
    with pytest.raises(RequestError, match="no run has a forget-gate bias"):
        figures.half_life_by_bias(with_half_lives({np.nan: 10.0}), "bias", loop=0.1, longest=100)


def test_many_panels_stand_in_rows_that_can_be_read_at_half_size() -> None:
    rows, frames = [], {}
    for cell, states in {"Elman": "h", "Jordan": "ho", "OutputRecurrent": "ho"}.items():
        rows.append({"key": cell, "cell": cell, "length": 20, "seed": 0})
        for state in states:
            lag = np.arange(20)
            frame = pd.DataFrame({"key": cell, "step": 0, "lag": lag, "value": -0.2 * lag})
            frames.setdefault(f"profile/{state}_initial", []).append(frame)
    results = Planted(pd.DataFrame(rows).set_index("key"), {name: pd.concat(each) for name, each in frames.items()})
    figure = figures.gradient_by_lag(results, states=("h", "o")).figure
    together = figures.gradient_of_cells(results, states=("h", "o"))
    assert [axis.get_title() for axis in together.figure.axes] == ["state h, T = 20", "state o, T = 20"]
    assert [len(axis.lines) for axis in together.figure.axes] == [3, 2]
    assert len(together.data) == 5 * 20
    assert len(figure.axes) == 5
    assert figure.get_figwidth() < 15
    assert figure.axes[3].get_ylabel() == figure.axes[0].get_ylabel()
    figure.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)


def test_state_and_gradient_draws_each_run_and_the_running_median_of_its_signal() -> None:
    runs = pd.DataFrame({"cell": ["Elman", "Elman", "LSTM"]}, index=pd.Index(["a", "b", "c"], name="key"))
    steps = np.arange(30)
    spiked = np.where(steps == 12, 50.0, 0.1 * steps)
    frames = {
        f"{name}_initial": pd.concat([pd.DataFrame({"key": k, "step": 0, axis: steps, "value": spiked}) for k in "abc"])
        for name, axis in (
            ("profile/h", "lag"), ("signal/W_xh_to_noise", "lag"), ("decoded/h", "age"), ("distance/h_relative", "age"),
        )
    }  # fmt: skip
    frames["profile/h_initial_normalised"] = frames.pop("profile/h_initial")
    sides = {"c": "gated", "a": "one", "b": "one"}
    picture = figures.state_and_gradient(Planted(runs, frames), sides)
    data = picture.data.set_index(["panel", "side", "key", "steps"])["value"].sort_index()
    assert len(data) == 4 * 3 * 30
    assert data.loc["does the gradient arrive?", "one", "b"].tolist() == spiked.tolist()
    # Nine neighbours hide one spike and keep a slope; at the border there are fewer of them.
    signal = data.loc["is it a signal?", "gated", "c"]
    assert signal[[0, 20, 29]].tolist() == pytest.approx([0.2, 2.0, 2.7])
    assert signal[12] == pytest.approx(1.3)
    drawn = [len([line for line in axis.lines if len(line.get_xdata()) == 30]) for axis in picture.figure.axes]
    assert drawn == [3, 3 + 2, 3, 3], "three runs, and for the signal the medians of the two sides"


def test_candidates_of_a_search_have_no_cells_colours_and_logarithmic_axes_say_so() -> None:
    trials = pd.DataFrame(
        {
            "study": "toy/one", "trial": range(6), "state": "complete", "value": np.linspace(0.5, 0.1, 6),
            "keys": "a", "fresh": "", "learning_rate": np.geomspace(1e-4, 1e-1, 6), "gain": np.linspace(1, 2, 6),
        }
    )  # fmt: skip
    colours = {cell.colour for cell in figures.STYLES.values()}
    history = figures.optimisation_history(trials, value="error").figure
    slices = figures.slices(trials, value="error", logarithmic=("learning_rate",)).figure
    for figure in (history, slices):
        assert not colours & {line.get_color() for axis in figure.axes for line in axis.lines}
    assert [axis.get_xlabel() for axis in slices.axes] == ["learning rate\n(logarithmic)", "gain"]
    assert [axis.get_xscale() for axis in slices.axes] == ["log", "linear"]
    assert [text.get_text() for text in slices.axes[0].get_xticklabels()] == ["0.0001", "0.001", "0.01", "0.1"]


def test_a_parameter_in_words_has_places_and_a_study_without_a_parameter_no_panel_for_it() -> None:
    trials = pd.DataFrame(
        {
            "study": ["toy/gated"] * 4 + ["toy/vanilla"] * 4, "trial": [0, 1, 2, 3] * 2, "state": "complete",
            "value": [4.0, 3.0, 2.0, 1.0, 8.0, 7.0, 6.0, 5.0], "keys": "a", "fresh": "",
            "start": ["orthogonal", "as drawn"] * 2 + ["identity", "orthogonal"] * 2,
            "forget_bias": [-1.0, 0.0, 1.0, 5.0] + [np.nan] * 4,
        }
    )  # fmt: skip
    axes = figures.slices(trials, value="updates").figure.axes
    assert [axis.get_visible() for axis in axes] == [True, True, True, False]
    assert [text.get_text() for text in axes[2].get_xticklabels()] == ["as drawn", "identity", "orthogonal"]
    points, winner = axes[2].lines
    assert list(points.get_xdata()) == [1, 2, 1, 2]
    assert list(points.get_ydata()) == [8, 7, 6, 5]
    assert (winner.get_xdata()[0], winner.get_ydata()[0]) == (2, 5)
    assert axes[1].get_xlabel() == "forget bias", "under the lowest panel that has one"
    assert axes[2].get_xlabel() == "start"


@pytest.mark.parametrize("count", [1, 2, 5, 11, 23])
def test_a_legend_of_many_entries_stays_within_its_figure(count: int) -> None:
    figure, _ = panels(3)
    words = ["RNN, as drawn", "GRU, forget bias 1, wide", "LSTM, chrono"]
    legend_below(figure, [line_entry(words[number % 3], color="black") for number in range(count)])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
    assert len(figure.legends[0].get_texts()) == count


def test_panels_are_as_high_above_a_long_legend_as_above_a_short_one() -> None:
    heights = []
    for count in (2, 11):
        figure, [axis] = panels(1, height=3.6)
        legend_below(figure, [line_entry("GRU, forget bias 1, wide", color="black") for _ in range(count)])
        figure.draw_without_rendering()
        heights.append(axis.get_window_extent().height / figure.dpi)
    assert heights[1] > 0.85 * heights[0]
