"""Figures show the numbers that were put in, the same bytes every time, with units on their axes."""

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rnnstudy import figures
from rnnstudy.figures.picture import Picture, rendered_gif
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.report.figure_files import save
from rnnstudy.spec import RequestError
from rnnstudy.training.atomic import write_all

RATES = (0.001, 0.003, 0.01)
BEST = {"Elman": 0.001, "LSTM": 0.01}
SLOPE = {"Elman": -0.15, "LSTM": -0.01}
CHANCE = 0.75


@dataclass(frozen=True)
class Planted:
    """Results whose numbers are known: gradients decay by `SLOPE` decades per step, `BEST` rates solve."""

    runs: pd.DataFrame
    frames: dict[str, pd.DataFrame]

    def readings(self, name: str, *, quantile: float | None = None, keys: Iterable[str] | None = None) -> pd.DataFrame:
        if name not in self.frames:
            raise RequestError(f"no reading is called '{name}'")
        frame = self.frames[name]
        frame = frame if keys is None else frame[frame["key"].isin(list(keys))]
        return frame if quantile is None else frame[frame["quantile"] == quantile].drop(columns="quantile")


def key(cell: str, length: int, rate: float, seed: int) -> str:
    return f"{cell}-{length}-{rate}-{seed}"


def solves(cell: str, length: int, rate: float, seed: int) -> bool:
    return rate == BEST[cell] and (cell == "LSTM" or length == 50 or (length == 100 and seed < 2))


def planted(lengths=(50, 100, 200), seeds=5, rates=RATES) -> Planted:
    """Results of both cells at every length, rate and seed; the seeds' gradients differ by a constant."""
    rows, errors, lags, times = [], [], [], []
    for cell, length, rate, seed in product(BEST, lengths, rates, range(seeds)):
        noise = np.random.default_rng([length, seed, int(1e4 * rate)])
        name, solved = key(cell, length, rate, seed), solves(cell, length, rate, seed)
        stop = 400 + 100 * seed if solved else 1500
        diverged = cell == "Elman" and rate == 0.01 and seed == 0
        rows.append(
            {
                "key": name, "cell": cell, "length": length, "learning_rate": rate, "seed": seed, "step": stop,
                "status": "diverged" if diverged else "finished", "solved": None if diverged else solved,
                "steps_to_solve": float(stop) if solved else np.nan,
                "error": 0.002 if solved else np.nan if diverged else 0.55 + 0.04 * seed,
            }
        )  # fmt: skip
        steps = np.arange(0, stop + 1, 100)
        flat = CHANCE - 0.03 * seed - 0.02 * noise.random(len(steps))
        curve = CHANCE * np.exp(-steps / (stop / 6)) if solved else flat
        errors.append(pd.DataFrame({"key": name, "step": steps, "value": curve}))
        lag = np.arange(length)
        for number, quantile in enumerate(QUANTILES):
            value = -2 + SLOPE[cell] * (1 + 0.1 * (seed - 2)) * lag + 0.3 * (number - 2) + 0.1 * seed
            lags.append(pd.DataFrame({"key": name, "step": 0, "quantile": quantile, "lag": lag, "value": value}))
            for step in steps if rate == BEST[cell] else ():
                across = -2 + SLOPE[cell] * (length - 1 - lag) * (1 - 0.5 * step / 1500) + 0.3 * (number - 2)
                frame = {"key": name, "step": step, "quantile": quantile, "time": lag + 1, "value": across}
                times.append(pd.DataFrame(frame))
    profiles = pd.concat(lags, ignore_index=True)
    states = {"profile/h_initial": profiles, "profile/h_final_normalised": profiles.assign(step=1500)}
    states["profile/c_initial"] = profiles[profiles["key"].str.startswith("LSTM")]
    states["through_time/h"] = pd.concat(times, ignore_index=True)
    return Planted(
        pd.DataFrame(rows).set_index("key"), states | {"learning/error": pd.concat(errors, ignore_index=True)}
    )


@pytest.fixture(scope="module")
def results() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def pictures(results: Planted) -> dict[str, Picture]:
    best = figures.best_by_validation(results)
    return {
        "lag": figures.gradient_by_lag(results, states=("h", "c"), keys=best),
        "normalised": figures.gradient_by_lag(results, stage="final", normalised=True, keys=best),
        "heat": figures.gradient_heat_map(results, keys=best),
        "success": figures.success(results, chance=CHANCE, error="share misclassified", keys=best),
        "curves": figures.learning_curves(results, chance=CHANCE, error="share misclassified", keys=best),
    }


PROVENANCE = {"experiments": ["experiments/planted.py"], "command": "rnnstudy report planted", "commit": None}


def words(picture: Picture) -> str:
    """Everything written on a figure."""
    svg = figures.rendered(picture.figure, "svg").decode()
    return svg.replace("&lt;", "<")


@given(trials=st.integers(1, 60), data=st.data())
def test_wilson_interval_equals_the_closed_formula(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    z, share = 1.959963984540054, successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    assert figures.wilson(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_best_by_validation_finds_the_planted_rates(results: Planted) -> None:
    expected = [key(cell, length, BEST[cell], seed) for cell in BEST for length in (50, 100) for seed in range(5)]
    expected += [key("LSTM", 200, BEST["LSTM"], seed) for seed in range(5)]
    chosen = figures.best_by_validation(results)
    assert set(expected) <= set(chosen)
    # At 200 no rate of the Elman cell solves: the lowest final error decides, and a diverged run's is infinite.
    unsolved = results.readings("learning/error")
    unsolved = unsolved[unsolved["key"].str.startswith("Elman-200")].groupby("key")["value"].last()
    median = {
        rate: np.median([np.inf if (rate, s) == (0.01, 0) else unsolved[key("Elman", 200, rate, s)] for s in range(5)])
        for rate in RATES
    }
    best = min(RATES, key=lambda rate: median[rate])
    assert set(chosen) - set(expected) == {key("Elman", 200, best, seed) for seed in range(5)}


def test_best_by_validation_ignores_the_test_outcome(results: Planted) -> None:
    flipped = replace(results, runs=results.runs.assign(solved=~results.runs["solved"].eq(True), error=0.0))
    assert figures.best_by_validation(flipped) == figures.best_by_validation(results)


def test_a_rate_that_diverges_is_not_best_whatever_it_reached_before(results: Planted) -> None:
    wild = [key("Elman", 200, 0.01, seed) for seed in range(5)]
    readings = results.readings("learning/error")
    low = readings.assign(value=readings["value"].mask(readings["key"].isin(wild), 0.02))
    promising = replace(results, frames=results.frames | {"learning/error": low})
    assert set(wild) <= set(figures.best_by_validation(promising))
    runs = promising.runs.copy()
    runs.loc[wild, "status"] = "diverged"
    assert not set(wild) & set(figures.best_by_validation(replace(promising, runs=runs)))


def test_validation_table_has_every_setting_and_one_choice_each(results: Planted) -> None:
    table = figures.validation_table(results)
    assert len(table) == 2 * 3 * len(RATES)
    assert (table["runs"] == 5).all()
    assert (table.groupby(["cell", "length"])["chosen"].sum() == 1).all()
    row = table[(table["cell"] == "Elman") & (table["length"] == 100) & (table["learning_rate"] == 0.001)].iloc[0]
    assert row["solved_in_validation"] == 2
    assert row["steps_to_solve"] == 450


def test_gradient_by_lag_shows_the_median_and_the_range_of_the_runs(pictures: dict[str, Picture]) -> None:
    data = pictures["lag"].data
    assert list(data[["state", "cell"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("h", "Elman"),
        ("h", "LSTM"),
        ("c", "LSTM"),
    ]
    chosen = data[(data["state"] == "h") & (data["cell"] == "Elman") & (data["length"] == 100)]
    lag = chosen["lag"].to_numpy()
    # The seeds' lines are -2 + s·lag·(1 + 0.1(seed - 2)) + 0.1·seed with s = -0.15, for seeds 0 to 4.
    lines = np.array([-2 - 0.15 * (1 + 0.1 * (seed - 2)) * lag + 0.1 * seed for seed in range(5)])
    assert lag.tolist() == list(range(100))
    np.testing.assert_allclose(chosen["median"], np.median(lines, axis=0), atol=1e-12)
    np.testing.assert_allclose(chosen["low"], lines.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(chosen["high"], lines.max(axis=0), atol=1e-12)
    drawn = [line for line in pictures["lag"].figure.axes[0].lines if len(line.get_xdata()) == 100]
    np.testing.assert_allclose(drawn[0].get_ydata(), chosen["median"])
    assert "range of the runs" in words(pictures["lag"])


def test_ten_runs_get_a_bootstrap_interval_inside_their_range() -> None:
    many = planted(lengths=(20,), seeds=12, rates=(0.01,))
    picture = figures.gradient_by_lag(many)
    data = picture.data[picture.data["cell"] == "LSTM"]
    at_zero = data[data["lag"] == 0].iloc[0]
    # At lag 0 the runs lie at -2, -1.9, …, -0.9.
    assert at_zero["median"] == pytest.approx(-1.45)
    assert -2 < at_zero["low"] < -1.45 < at_zero["high"] < -0.9
    assert "95 % bootstrap interval" in words(picture)


def test_a_lag_where_most_runs_have_no_value_is_not_drawn(results: Planted) -> None:
    profile = results.readings("profile/h_initial")
    seed = profile["key"].str.rpartition("-")[2].astype(int)
    absent = profile.assign(value=profile["value"].where((profile["lag"] < 30) | (seed < 2)))
    absent.loc[(absent["lag"] < 30) & (absent["lag"] >= 20) & (seed == 4), "value"] = np.nan
    holes = replace(results, frames=results.frames | {"profile/h_initial": absent})
    data = figures.gradient_by_lag(holes, keys=figures.best_by_validation(results)).data
    data = data[(data["cell"] == "LSTM") & (data["length"] == 50)]
    assert data["lag"].max() == 29
    assert data["runs"].tolist() == [5] * 20 + [4] * 10


def test_heat_map_shows_one_run_of_each_cell_with_absent_values_named(results: Planted) -> None:
    through_time = results.readings("through_time/h")
    zero = (through_time["time"] < 10) & through_time["key"].str.startswith("Elman")
    absent = through_time.assign(value=through_time["value"].mask(zero))
    holes = replace(results, frames=results.frames | {"through_time/h": absent})
    solving = [key(cell, 100, BEST[cell], seed) for cell in BEST for seed in (3, 1)]
    picture = figures.gradient_heat_map(holes, keys=solving)
    assert picture.keys == (key("Elman", 100, 0.001, 1), key("LSTM", 100, 0.01, 1))
    assert picture.data["value"].isna().sum() == 9 * 6
    chosen = picture.data[(picture.data["cell"] == "LSTM") & (picture.data["step"] == 0)]
    np.testing.assert_allclose(chosen["value"], -2 - 0.01 * (99 - np.arange(100)), atol=1e-12)
    meshes = [axis.collections[0] for axis in picture.figure.axes[:2]]
    assert meshes[0].get_clim() == meshes[1].get_clim()
    assert "exactly zero, or not finite" in words(picture)
    assert "exactly zero, or not finite" not in words(figures.gradient_heat_map(results))


def early(results: Planted) -> Planted:
    """The same runs, with what was read at three training steps."""
    frame = results.frames["through_time/h"]
    return replace(results, frames={"through_time/h": frame[frame["step"].isin([0, 100, 200])]})


def test_a_heat_map_that_moves_shows_each_moment_and_what_came_before(results: Planted) -> None:
    keys = [key(cell, 50, BEST[cell], 0) for cell in BEST]
    picture = figures.gradient_heat_map(early(results), marks=((5, 9),), moving=True, keys=keys)
    moving = picture.moving
    assert moving is not None
    assert moving.moments == 3
    profiles, maps = moving.figure.axes[:2], moving.figure.axes[2:4]
    for moment, step in enumerate((0, 100, 200)):
        moving.draw(moment)
        for cell, profile, tiles in zip(BEST, profiles, maps, strict=True):
            now = picture.data[(picture.data["cell"] == cell) & (picture.data["step"] == step)]
            np.testing.assert_allclose(profile.lines[0].get_xdata(), now["time"])
            np.testing.assert_allclose(profile.lines[0].get_ydata(), now["value"])
            drawn = np.ma.getmaskarray(tiles.collections[0].get_array())
            assert drawn.shape == (3, 50)
            assert [bool(row.all()) for row in drawn] == [number > moment for number in range(3)]
            assert ("solved" in profile.get_title()) == (moment == 2)
    assert figures.gradient_heat_map(early(results), keys=keys).moving is None


def test_a_run_that_has_ended_keeps_its_last_profile(results: Planted) -> None:
    keys = [key(cell, 50, BEST[cell], 0) for cell in BEST]
    frame = early(results).frames["through_time/h"]
    shorter = frame[(frame["key"] == keys[0]) | (frame["step"] < 200)]
    picture = figures.gradient_heat_map(replace(results, frames={"through_time/h": shorter}), moving=True, keys=keys)
    assert picture.moving is not None
    picture.moving.draw(2)
    last = picture.data[(picture.data["cell"] == "LSTM") & (picture.data["step"] == 100)]
    line = picture.moving.figure.axes[1].lines[0]
    np.testing.assert_allclose(line.get_ydata(), last["value"])
    assert line.get_color() == "0.6"


def test_a_moving_picture_is_saved_as_a_gif_of_equal_bytes(results: Planted, tmp_path: Path) -> None:
    keys = [key(cell, 50, BEST[cell], 0) for cell in BEST]
    one, other = (figures.gradient_heat_map(early(results), moving=True, keys=keys) for _ in range(2))
    written = save(one, tmp_path, "heat", PROVENANCE)
    assert [path.suffix for path in written] == [".png", ".svg", ".csv", ".json", ".gif"]
    assert other.moving is not None
    assert written[-1].read_bytes() == rendered_gif(other.moving)
    with Image.open(written[-1]) as gif:
        frames = [(gif.seek(number), gif.info["duration"], np.asarray(gif.convert("RGB")))[1:] for number in range(3)]
        assert gif.n_frames == 3
        assert gif.info["loop"] == 0
    assert [duration for duration, _ in frames] == [140, 140, 3000]
    assert all((frame[0, 0] == 255).all() for _, frame in frames)
    assert all((one != other).any() for (_, one), (_, other) in combinations(frames, 2))


def test_success_shows_counts_intervals_and_chance(pictures: dict[str, Picture]) -> None:
    data = pictures["success"].data.set_index(["cell", "length"])
    assert data["solved"].to_dict() == {
        ("Elman", 50): 5, ("Elman", 100): 2, ("Elman", 200): 0, ("LSTM", 50): 5, ("LSTM", 100): 5, ("LSTM", 200): 5,
    }  # fmt: skip
    row = data.loc[("Elman", 100)]
    assert (row["wilson_low"], row["wilson_high"]) == figures.wilson(2, 5)
    assert row["median_error"] == pytest.approx(0.63)
    shown = words(pictures["success"])
    for text in ("2/5", "0/5", "5/5", "(0.75)", "chance", "length T (steps, logarithmic)"):
        assert f">{text}<" in shown


def test_diverged_runs_count_as_unsolved_and_failed_ones_not_at_all(results: Planted) -> None:
    runs = results.runs.copy()
    runs.loc[key("LSTM", 50, 0.01, 0), "status"] = "failed"
    runs.loc[key("LSTM", 50, 0.01, 1), ["status", "solved"]] = ["diverged", None]
    keys = [key("LSTM", 50, 0.01, seed) for seed in range(5)]
    picture = figures.success(replace(results, runs=runs), chance=CHANCE, keys=keys)
    assert picture.data[["solved", "runs"]].to_numpy().tolist() == [[3, 4]]


def test_an_error_interval_counts_diverged_runs_with_the_error_of_chance(results: Planted) -> None:
    runs = results.runs.copy()
    keys = [key("LSTM", 50, 0.01, seed) for seed in range(5)]
    runs["error"] = runs["error"].mask(runs.index.isin(keys), [0.1] * len(runs))
    runs.loc[keys[:3], ["status", "solved", "error"]] = ["diverged", None, np.nan]
    diverging = replace(results, runs=runs)
    picture = figures.success(diverging, chance=CHANCE, error_interval=True, keys=keys)
    row = picture.data.iloc[0]
    assert row[["solved", "runs", "median_error", "error_low", "error_high"]].tolist() == [2, 5, CHANCE, 0.1, CHANCE]
    assert "a diverged run counts with the error of chance" in picture.caption
    dots = figures.success(diverging, chance=CHANCE, keys=keys).data
    assert dots["median_error"].tolist() == [0.1]
    assert "error_low" not in dots


def test_learning_curves_hold_every_reading(results: Planted, pictures: dict[str, Picture]) -> None:
    data = pictures["curves"].data
    best = figures.best_by_validation(results)
    readings = results.readings("learning/error")
    expected = readings[readings["key"].isin(best)].sort_values(["key", "step"])
    shown = data.sort_values(["key", "step"])
    assert shown["error"].tolist() == expected["value"].tolist()
    assert ">(0.75)<" in words(pictures["curves"])


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("lag", ["lag τ − t (steps)", "log₁₀ ‖∂L/∂sₜ‖, s = h or c", "RNN (Elman), state h", "LSTM, state c"]),
        ("normalised", ["lag τ − t (steps)", "log₁₀ ‖∂L/∂hₜ‖,", "relative to lag 0 (decades)"]),
        ("heat", ["time step t (of 200)", "training step (updates made)", "log₁₀ ‖∂L/∂hₜ‖", "LSTM, seed 0: solved"]),
        ("success", ["share of runs that solved the task", "share misclassified", "RNN (Elman)", "LSTM"]),
        ("curves", ["training step (updates made)", "share misclassified", "RNN (Elman)", "LSTM", "T = 50"]),
    ],
)
def test_axes_and_legends_carry_names_and_units(pictures: dict[str, Picture], name: str, texts: list[str]) -> None:
    shown = words(pictures[name])
    for text in texts:
        assert f">{text}<" in shown


def test_a_notebook_shows_the_picture_and_reads_its_caption(pictures: dict[str, Picture]) -> None:
    png, described = pictures["heat"]._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert described == {"alt": pictures["heat"].caption}
    assert repr(pictures["heat"]).startswith("Picture of 2 runs. Gradient of the loss")


def test_a_cell_looks_the_same_whatever_it_is_drawn_with() -> None:
    looks = [figures.style(cell) for cell in ("Elman", "Jordan", "GRU", "LSTM")]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 4
    further = figures.style("ClockworkRNN")
    assert further == figures.style("ClockworkRNN")
    assert further.colour not in {look.colour for look in looks}


def test_the_same_results_in_another_order_give_the_same_bytes(results: Planted, tmp_path: Path) -> None:
    best = figures.best_by_validation(results)
    shuffled = Planted(
        results.runs.sample(frac=1, random_state=1),
        {name: frame.sample(frac=1, random_state=2) for name, frame in results.frames.items()},
    )
    for folder, source, keys in (("one", results, best), ("two", shuffled, best[::-1])):
        pictures = {
            "lag": figures.gradient_by_lag(source, keys=keys),
            "heat": figures.gradient_heat_map(source, keys=keys),
            "success": figures.success(source, chance=CHANCE, keys=keys),
            "curves": figures.learning_curves(source, chance=CHANCE, keys=keys),
        }
        for name, picture in pictures.items():
            save(picture, tmp_path / folder, name, PROVENANCE)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 4 * 4
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_saved_table_and_provenance_say_what_was_drawn(pictures: dict[str, Picture], tmp_path: Path) -> None:
    written = save(pictures["success"], tmp_path, "success", PROVENANCE)
    assert [path.name for path in written] == ["success.png", "success.svg", "success.csv", "success.json"]
    table = pd.read_csv(tmp_path / "success.csv")
    np.testing.assert_allclose(table["wilson_low"], pictures["success"].data["wilson_low"], rtol=1e-8)
    described = json.loads((tmp_path / "success.json").read_text(encoding="utf-8"))
    assert described["runs"] == sorted(described["runs"]) == list(pictures["success"].keys)
    assert len(described["runs"]) == 30
    assert described["commit"] is None
    assert described["command"] == "rnnstudy report planted"
    assert described["versions"]["pandas"] == pd.__version__


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        write_all({tmp_path / "b.txt": b"new", tmp_path / "a.txt": b"new"})
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


FILES = [Path(figures.__file__).parent / f"{info.name}.py" for info in pkgutil.iter_modules(figures.__path__)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_figure_is_one_file_with_one_public_function_that_returns_a_picture(file: Path) -> None:
    """Files with `__all__` hold helpers; all others are figures."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    module = importlib.import_module(f"rnnstudy.figures.{file.stem}")
    helpers = getattr(module, "__all__", None)
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    exported = [file.stem] if helpers is None else helpers
    for name in exported:
        assert getattr(figures, name) is getattr(module, name)
        assert name in figures.__all__
    if helpers is None:
        public = [node for node in defined if not node.name.startswith("_")]
        assert [node.name for node in public] == [file.stem]
        assert isinstance(public[0], ast.FunctionDef)
        assert ast.unparse(public[0].returns or ast.Constant(None)) == "Picture"


def test_an_unknown_figure_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="did you mean 'gradient_by_lag'"):
        figures.gradient_by_lags(None)


def test_missing_readings_are_named(results: Planted) -> None:
    with pytest.raises(RequestError, match="no run has a reading profile/z_initial; add the probe GradientThroughTime"):
        figures.gradient_by_lag(results, states=("z",))
    with pytest.raises(RequestError, match="no run has length 70; the lengths here: 50, 100, 200"):
        figures.gradient_heat_map(results, length=70)
    with pytest.raises(RequestError, match="did you mean 'learning_rate'"):
        figures.validation_table(results, over="learning_rates")
