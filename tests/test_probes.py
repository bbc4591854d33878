"""What probes read: norms per sequence, then quantiles; alignment by lag; absent values; unchanged training."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import rnnstudy.probes  # noqa: F401  (its probes are found below)
from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.cell import layer_label
from rnnstudy.engines.engine import Trajectory
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.probes.gradient_through_time import aligned_by_lag, theil_sen
from rnnstudy.probes.probe import BackwardPass, Moment, Probe, batch_quantiles
from rnnstudy.probes.reading import MEDIAN, QUANTILES
from rnnstudy.run import Run, Training
from rnnstudy.spec import concrete
from rnnstudy.tasks import Adding, TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

PROBES = [cls() for cls in concrete(Probe) if cls.__module__.startswith("rnnstudy.")]
QUICK = Training(steps=23, batch=4, check_every=10, validation_sequences=20, test_sequences=20)


def quantiles(rows):
    """`batch_quantiles` of one position and replica, as numbers."""
    values = torch.tensor(rows, dtype=torch.float64).view(1, 1, -1)
    return batch_quantiles(values, torch.ones_like(values, dtype=torch.bool))[0, :, 0].tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-300, 300), min_size=1, max_size=40))
def test_quantiles_equal_numpy(rows):
    assert quantiles(rows) == pytest.approx(np.quantile(rows, QUANTILES).tolist(), rel=1e-12, abs=1e-10)


def test_quantiles_take_the_measured_entries_of_each_position_and_replica():
    noise = torch.Generator().manual_seed(0)
    values = torch.randn(6, 2, 15, generator=noise, dtype=torch.float64)
    measured = torch.rand(6, 2, 15, generator=noise) < 0.6
    measured[2, 1] = False
    found = batch_quantiles(values, measured)
    assert found.shape == (2, len(QUANTILES), 6)
    for position, replica in itertools.product(range(6), range(2)):
        left = values[position, replica][measured[position, replica]].numpy()
        expected = np.quantile(left, QUANTILES) if len(left) else np.full(len(QUANTILES), np.nan)
        np.testing.assert_allclose(found[replica, :, position].numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("odd", [math.inf, math.nan])
def test_non_finite_values_rank_highest_and_are_absent(odd):
    # Of eleven values the quantiles are the 2nd, between 3rd and 4th, the 6th, between 8th and 9th, and the 10th.
    finite = [float(value) for value in range(11)]
    assert quantiles(finite) == [1.0, 2.5, 5.0, 7.5, 9.0]
    assert quantiles([*finite[:10], odd]) == [1.0, 2.5, 5.0, 7.5, 9.0]
    found = quantiles([*finite[:8], odd, odd, odd])
    assert found[:3] == [1.0, 2.5, 5.0]
    assert np.isnan(found[3:]).all(), "one quantile lies between a finite and a non-finite value"


def test_exact_zeros_rank_lowest_and_are_absent():
    finite = [float(value) for value in range(11)]
    zero = -math.inf
    assert quantiles([zero, *finite[1:]]) == [1.0, 2.5, 5.0, 7.5, 9.0]
    found = quantiles([zero] * 3 + finite[3:])
    assert np.isnan(found[:2]).all()
    assert found[2:] == [5.0, 7.5, 9.0]
    assert np.isnan(quantiles([zero] * 11)).all()


def test_alignment_by_lag_equals_a_plain_loop():
    noise = torch.Generator().manual_seed(0)
    log_norms = torch.randn(9, 2, 5, generator=noise, dtype=torch.float64)
    last = torch.randint(0, 9, (2, 5), generator=noise)
    by_lag, measured = aligned_by_lag(log_norms, last)
    for lag, r, b in itertools.product(range(9), range(2), range(5)):
        step = int(last[r, b]) - lag
        assert bool(measured[lag, r, b]) == (step >= 0)
        if step >= 0:
            assert by_lag[lag, r, b] == log_norms[step, r, b]


def test_theil_sen_is_the_median_of_all_slopes():
    noise = np.random.default_rng(0)
    curve = -0.3 * np.arange(30) + noise.normal(size=30)
    curve[[4, 17]] = np.nan
    points = [(i, y) for i, y in enumerate(curve) if np.isfinite(y)]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2)]
    assert theil_sen(curve) == pytest.approx(np.median(slopes), rel=1e-12)
    assert math.isnan(theil_sen(np.array([np.nan, 1.0, np.nan])))
    assert theil_sen(np.array([np.nan, 1.0, np.nan, 5.0])) == 2.0


def test_theil_sen_of_a_long_curve_uses_evenly_spaced_lags():
    curve = -0.01 * np.arange(5000.0)
    curve[::7] += 3.0  # outliers on one side: the median of slopes does not follow them
    assert theil_sen(curve) == pytest.approx(-0.01, abs=1e-4)


class Planted(Trajectory):
    """A trajectory whose log-norms are given."""

    def __init__(self, log_norms):
        self._log_norms = log_norms

    def log_norms(self, state):
        return self._log_norms[state]


def planted_pass(states=("c", "h"), layers=1, scale=1.0, replicas=2, batch=6, time=8):
    noise = torch.Generator().manual_seed(3)
    trajectories = [
        Planted({s: torch.randn(time, replicas, batch, generator=noise, dtype=torch.float64) - 3 for s in states})
        for _ in range(layers)
    ]
    last = torch.randint(time // 3, time, (replicas, batch), generator=noise)
    last[0, 0] = time - 1
    return BackwardPass(trajectories, states, last, scale)


def moment(stage, through_time=None):
    return Moment(stage, 0, {}, {}, {}, through_time, lambda _: through_time)


def values_of(readings):
    return {reading.name: reading.values.numpy() for reading in readings}


def test_readings_by_time_are_norms_per_sequence_up_to_the_last_supervised_step():
    gradients = planted_pass(scale=20.0)
    found = values_of(GradientThroughTime().read(moment("training", gradients)))
    for state, t, r in itertools.product(("c", "h"), range(8), range(2)):
        log_norms = gradients.trajectories[0].log_norms(state)
        among = [math.log10(20.0 * 10 ** log_norms[t, r, b].item()) for b in range(6) if t <= gradients.last[r, b]]
        expected = np.quantile(among, QUANTILES) if among else np.full(5, np.nan)
        np.testing.assert_allclose(found[f"through_time/{state}"][r, :, t], expected, atol=1e-10)


def test_readings_by_lag_normalised_readings_and_their_summaries():
    gradients = planted_pass()
    found = values_of(GradientThroughTime().read(moment("initial", gradients)))
    for state, suffix in (("h", "initial"), ("c", "initial_c")):
        log_norms, last = gradients.trajectories[0].log_norms(state).numpy(), gradients.last.numpy()
        for r in range(2):
            medians = []
            for lag in range(8):
                rows = [b for b in range(6) if last[r, b] >= lag]
                values = [log_norms[last[r, b] - lag, r, b] for b in rows]
                normalised = [v - log_norms[last[r, b], r, b] for v, b in zip(values, rows, strict=True)]
                absent = np.full(5, np.nan)
                expected = (
                    (np.quantile(values, QUANTILES), np.quantile(normalised, QUANTILES)) if rows else (absent, absent)
                )
                np.testing.assert_allclose(found[f"profile/{state}_initial"][r, :, lag], expected[0], atol=1e-10)
                np.testing.assert_allclose(
                    found[f"profile/{state}_initial_normalised"][r, :, lag], expected[1], atol=1e-10
                )
                medians.append(expected[1][MEDIAN])
            ratio = np.median([log_norms[0, r, b] - log_norms[last[r, b], r, b] for b in range(6)])
            assert found[f"summary/log10_ratio_{suffix}"][r] == pytest.approx(ratio)
            points = [(lag, m) for lag, m in enumerate(medians) if np.isfinite(m)]
            slope = stats.theilslopes([m for _, m in points], [lag for lag, _ in points]).slope
            assert found[f"summary/rate_{suffix}"][r] == pytest.approx(slope)
            half_life = found[f"summary/half_life_{suffix}"][r]
            assert math.isnan(half_life) if slope >= 0 else half_life == pytest.approx(math.log10(2) / -slope)


def test_zeros_and_non_finite_values_are_counted():
    gradients = planted_pass(states=("h",), replicas=1, batch=4, time=3)
    log_norms = gradients.trajectories[0].log_norms("h")
    gradients.last[:] = torch.tensor([2, 2, 2, 1])
    log_norms[0] = torch.tensor([-math.inf, -math.inf, math.nan, 1.0])
    log_norms[2] = torch.tensor([math.inf, 1.0, 1.0, -math.inf])  # the last entry is after the end of its sequence
    found = values_of(GradientThroughTime().read(moment("training", gradients)))
    assert found["through_time/h_zeros"].tolist() == [[0.5, 0.0, 0.0]]
    np.testing.assert_allclose(found["through_time/h_nonfinite"], [[0.25, 0.0, 1 / 3]])


def test_labels_contain_the_layer_in_a_network_of_several_layers():
    assert (layer_label("h", 0, 1), layer_label("h", 0, 2), layer_label("W_hh", 1, 2)) == (
        "h",
        "h_layer1",
        "W_hh_layer2",
    )
    names = set(values_of(GradientThroughTime().read(moment("training", planted_pass(layers=2)))))
    assert {"through_time/h_layer1", "through_time/c_layer2", "through_time/c_layer2_zeros"} <= names
    assert "through_time/h" not in names


def test_parameter_gradients_are_norms_before_and_after_clipping():
    noise = torch.Generator().manual_seed(0)
    before = {"W": torch.randn(2, 3, 4, generator=noise), "b": torch.randn(2, 4, generator=noise)}
    after = {name: 0.1 * value for name, value in before.items()}
    readings = ParameterGradients().read(Moment("training", 5, {}, before, after, None))
    found = values_of(readings)
    assert set(found) == {f"gradient/{name}" for name in ("W_before", "b_before", "global_before", "global_after")}
    for r in range(2):
        flat = np.concatenate([before["W"][r].flatten().numpy(), before["b"][r].numpy()])
        assert 10 ** found["gradient/W_before"][r] == pytest.approx(np.linalg.norm(before["W"][r].numpy()), rel=1e-6)
        assert 10 ** found["gradient/global_before"][r] == pytest.approx(np.linalg.norm(flat), rel=1e-6)
        assert 10 ** found["gradient/global_after"][r] == pytest.approx(0.1 * np.linalg.norm(flat), rel=1e-6)
    assert ParameterGradients().read(moment("initial")) == []


def ended(runs):
    return {record.key: record for record in train(runs, device="cpu") if record.outcome is not None}


@pytest.mark.parametrize("cell", [Elman(width=5), LSTM(width=5)], ids=repr)
def test_probes_do_not_change_the_weights(cell):
    """Bit for bit, with no probe, each probe alone, and all of them at every step."""
    kept = []
    for probes in [(), *((probe,) for probe in PROBES), tuple(probe.replace(every=1) for probe in PROBES)]:
        runs = [
            Run(
                task=TemporalOrder(length=12), cell=cell, layers=2, seed=seed, probes=probes,
                training=QUICK.replace(steps=5),
            )
            for seed in range(2)
        ]  # fmt: skip
        kept.append({key: record.weights for key, record in ended(runs).items()})
    for other in kept[1:]:
        assert other.keys() == kept[0].keys()
        for key, weights in kept[0].items():
            for name, value in weights.items():
                assert torch.equal(torch.from_numpy(value), torch.from_numpy(other[key][name])), name


def test_readings_follow_their_schedule_and_declare_their_axes():
    run = Run(task=TemporalOrder(length=12), cell=LSTM(width=5), training=QUICK)
    [last] = ended(run).values()
    series = last.series
    assert series["gradient/W_hh_before"].steps.tolist() == list(range(23))
    assert series["learning/loss"].steps.tolist() == list(range(23))
    assert series["learning/error"].steps.tolist() == [10, 20, 23]
    assert series["through_time/c"].steps.tolist() == [0, 10, 20]
    assert series["through_time/c"].values.shape == (3, len(QUANTILES), 12)
    assert series["through_time/c"].axes == ("quantile", "time")
    assert series["profile/h_initial"].steps.tolist() == [0]
    assert series["profile/h_final"].steps.tolist() == [23]
    assert series["profile/h_final"].values.shape == (1, len(QUANTILES), 12)
    assert (series["through_time/h"].spacing, series["profile/h_final"].spacing) == (10, 0)
    for name, readings in series.items():
        assert readings.values.ndim == 1 + len(readings.axes), name
        assert len(readings.steps) == len(readings.values), name


def test_readings_by_time_do_not_depend_on_the_batch_size():
    """The loss is a mean over the batch, the reading is per sequence: doubling all sequences changes nothing."""

    class Twice(Adding):
        """Every sequence appears twice."""

        def sample(self, batch, generator):
            drawn = super().sample(batch // 2, generator)
            order = torch.arange(batch) // 2
            return type(drawn)(
                inputs=drawn.inputs[:, order], targets=drawn.targets[:, order], mask=drawn.mask[:, order],
                lengths=drawn.lengths[order], informative=drawn.informative[:, order],
            )  # fmt: skip

    medians = []
    for task, batch in ((Adding(length=12), 11), (Twice(length=12), 22)):
        training = Training(steps=1, batch=batch, validation_sequences=2, test_sequences=2)
        [last] = ended(Run(task=task, cell=Elman(width=5), training=training)).values()
        medians.append(last.series["through_time/h"].values[0, MEDIAN])
    np.testing.assert_allclose(medians[0], medians[1], atol=1e-5)


def test_a_probe_that_is_not_due_is_not_read():
    probes = (GradientThroughTime(every=100), ParameterGradients(every=7))
    [last] = ended(Run(task=TemporalOrder(length=12), cell=Elman(width=4), training=QUICK, probes=probes)).values()
    assert last.series["through_time/h"].steps.tolist() == [0]
    assert last.series["gradient/global_before"].steps.tolist() == [0, 7, 14, 21]


def test_a_moment_without_side_batch_raises():
    population = Population((Run(task=TemporalOrder(length=12), cell=Elman(width=4)),))
    gradients = Moment("training", 0, population.initial_parameters(), {}, {}, None)
    with pytest.raises(RuntimeError, match="has no side batch"):
        gradients.side_batch(4)
