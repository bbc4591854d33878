"""The figures of the family of recurrences show the numbers that were put in."""

import numpy as np
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.figures.curse_of_memory import sensitivity_to_factor
from rnnstudy.spec import RequestError
from tests.test_study_figures import Planted, words

SIDES = {f"{side}{seed}": side for side in ("slow", "fast") for seed in range(3)}
STATES = {"slow": "h", "fast": "s_layer1"}


def planted() -> Planted:
    """Three runs of each of two sides, whose gradient loses 0.1 or 0.5 decades a step, a little more in each run."""
    frames = {}
    for side, state in STATES.items():
        for stage in ("initial", "final"):
            slope, own = (0.1 if side == "slow" else 0.5), [key for key, name in SIDES.items() if name == side]
            rows = [
                {"key": key, "step": 0, "lag": lag, "value": -slope * lag - 0.01 * int(key[-1])}
                for key in own
                for lag in range(8)
            ]
            frames[f"profile/{state}_{stage}_normalised"] = pd.DataFrame(rows)
    runs = pd.DataFrame({"key": list(SIDES), "cell": "LSTM", "length": 8, "seed": [int(key[-1]) for key in SIDES]})
    return Planted(runs.set_index("key"), frames)


def test_the_rows_hold_the_median_of_the_runs_of_each_side():
    picture = figures.gradient_of_sides(planted(), SIDES, STATES)
    last = picture.data[picture.data["lag"] == 7].set_index(["side", "stage"])
    for stage in ("initial", "final"):
        assert last.loc[("slow", stage), "median"] == pytest.approx(-0.71)
        row = last.loc[("fast", stage)]
        assert (row["lowest"], row["median"], row["highest"]) == pytest.approx((-3.52, -3.51, -3.5))
        assert row["runs"] == row["of_runs"] == 3
    assert list(dict.fromkeys(picture.data["side"])) == ["slow", "fast"]
    assert picture.keys == tuple(sorted(SIDES))
    for text in ("slow: h", "fast: s", "before training", "after training"):
        assert f">{text}<" in words(picture)


def test_a_gradient_that_no_run_has_is_named():
    bare = Planted(planted().runs, {})
    with pytest.raises(RequestError, match="GradientThroughTime"):
        figures.gradient_of_sides(bare, SIDES, STATES)


def test_a_gradient_that_is_missing_in_most_runs_is_absent():
    results = planted()
    frame = results.frames["profile/h_initial_normalised"]
    frame.loc[(frame["key"] != "slow0") & (frame["lag"] == 7), "value"] = np.nan
    picture = figures.gradient_of_sides(results, SIDES, STATES)
    row = picture.data.set_index(["side", "stage", "lag"]).loc[("slow", "initial", 7)]
    assert np.isnan(row["median"])
    assert (row["runs"], row["of_runs"]) == (1, 3)
    assert ">no value<" in words(picture)


def test_the_dots_are_the_runs_and_absent_values_are_counted():
    measured = pd.DataFrame({"error": [0.1, 0.2, 0.6, 0.5, np.nan, 0.7]}, index=list(SIDES))
    panels = [figures.DotPanel("error", "how wrong?", "share wrong", chance=0.5)]
    picture = figures.dots_by_side(measured, SIDES, panels)
    slow, fast = picture.data.to_dict("records")
    assert (slow["side"], slow["lowest"], slow["median"], slow["highest"]) == ("slow", 0.1, 0.2, 0.6)
    assert (slow["runs"], fast["runs"]) == (3, 2)
    assert fast["median"] == pytest.approx(0.6)
    for text in ("slow", "how wrong?", "share wrong", "guessing", "median"):
        assert f">{text}<" in words(picture)
    with pytest.raises(RequestError, match="no run to draw"):
        figures.dots_by_side(measured, {"other": "slow"}, panels)


def test_each_group_of_sides_has_its_colour_of_dots():
    measured = pd.DataFrame({"error": [0.1, 0.2, 0.6, 0.5, 0.4, 0.7]}, index=list(SIDES))
    picture = figures.dots_by_side(
        measured, SIDES, [figures.DotPanel("error", "how wrong?", "share wrong")], {"slow": "gated", "fast": "linear"}
    )
    assert ">gated<" in words(picture)
    assert ">linear<" in words(picture)
    dots = [line for line in picture.figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert len({line.get_color() for line in dots}) == len(dots) == 2


def test_the_closed_form_of_the_curse_is_the_series():
    for factor in (0.2, 0.6, 0.9):
        k = np.arange(1, 2000)
        by_factor = np.sum((k * factor ** (k - 1.0)) ** 2)

        def scaled_state(nu):
            """γ λᵏ, the weights of x_{T−k} in the last state."""
            own = np.exp(-np.exp(nu))
            return np.sqrt(1 - own**2) * own ** np.arange(2000)

        nu = np.log(-np.log(factor))
        by_nu = np.sum(((scaled_state(nu + 1e-6) - scaled_state(nu - 1e-6)) / 2e-6) ** 2)
        slope = (factor * np.log(factor)) ** 2
        expected = {
            (False, False): by_factor,
            (False, True): by_factor * slope,
            (True, False): by_factor * (1 - factor**2),
            (True, True): by_nu,
        }
        for (scaled, reparametrised), square in expected.items():
            found = sensitivity_to_factor(np.array(factor), scaled=scaled, reparametrised=reparametrised)
            assert found**2 == pytest.approx(square, rel=1e-6)


def test_the_picture_of_the_curse_has_the_measured_beside_the_closed_form():
    factor = np.array([0.5, 0.9, 0.99])
    value = np.log10(sensitivity_to_factor(factor, scaled=False, reparametrised=False)) + 0.05
    case = {"case": "γ = 1, by λ", "scaled": False, "reparametrised": False}
    picture = figures.curse_of_memory(pd.DataFrame({**case, "factor": factor, "log10_sensitivity": value}))
    np.testing.assert_allclose(picture.data["log10_sensitivity"] - picture.data["log10_closed_form"], 0.05)
    np.testing.assert_allclose(picture.data["memory"], [2, 10, 100])
    assert ">γ = 1, by λ<" in words(picture)
    assert picture.keys == ()
