"""How many replicas train together in the available memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rnnstudy.cells import LSTM, MLSTM, Elman
from rnnstudy.probes import GradientByLag, GradientThroughTime, LyapunovExponents, SingularValues
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import LengthRange, TemporalOrder
from rnnstudy.training import cost, evaluation
from rnnstudy.training.cost import SHARED_BYTES, bytes_per_replica, replicas_probed_together, replicas_that_fit
from rnnstudy.training.grouping import populations
from rnnstudy.training.loop import train

RUN = Run(task=TemporalOrder(length=100), cell=LSTM(width=50), training=Training(batch=20, steps=500))


def test_a_population_fits_the_room_it_is_given():
    runs = [RUN.replace(seed=seed) for seed in range(300)]
    room = SHARED_BYTES + 40.5 * bytes_per_replica(RUN)
    sizes = [len(group.runs) for group in populations(runs, most=2048, room=room)]
    assert sizes == [40] * 7 + [20]
    assert [run.seed for group in populations(runs, most=2048, room=room) for run in group.runs] == list(range(300))
    assert {len(group.runs) for group in populations(runs[:64], most=32, room=1e15)} == {32}
    assert [len(group.runs) for group in populations(runs, most=2048, room=1e15)] == [300]


def test_a_device_too_small_for_one_replica_trains_one_at_a_time():
    assert replicas_that_fit(RUN, room=0.0) == 1
    assert replicas_that_fit(RUN.replace(task=TemporalOrder(length=10**6)), room=1e9) == 1


def test_the_estimate_grows_with_length_gates_and_layers():
    longer = RUN.replace(task=TemporalOrder(length=200))
    assert 1.8 < bytes_per_replica(longer) / bytes_per_replica(RUN) < 2.1
    assert bytes_per_replica(RUN) > bytes_per_replica(RUN.replace(cell=Elman(width=50)))
    assert bytes_per_replica(RUN.replace(layers=2)) > bytes_per_replica(RUN)


@pytest.mark.parametrize("probe", [LyapunovExponents(), SingularValues()], ids=lambda probe: type(probe).__name__)
def test_jacobians_that_no_memory_holds_are_refused_before_anything_is_computed(probe, monkeypatch):
    """The state of a matrix LSTM has width² numbers, its Jacobian width⁴: at a width of 300, 90,601² of them."""
    wide = RUN.replace(cell=MLSTM(width=300), probes=(GradientThroughTime(), probe))
    refusal = (
        rf"^{type(probe).__name__} of MLSTM\(width=300\) needs Jacobians of 90601 × 90601 numbers, about 4.73e\+03 GB"
    )
    with pytest.raises(RequestError, match=refusal) as caught:
        populations([wide], most=8, room=64e9)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(evaluation, "side_batch", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(RequestError, match=refusal):
        next(train(wide.replace(training=Training(steps=1, validation_sequences=1, test_sequences=1))))
    # Without the probe, or narrow, such a run is as any other.
    assert replicas_that_fit(wide.replace(probes=(GradientThroughTime(),)), room=64e9) >= 1
    assert replicas_that_fit(wide.replace(cell=MLSTM(width=10)), room=64e9) > 1


def test_wide_jacobians_are_read_a_replica_at_a_time():
    narrow, wide = (RUN.replace(cell=MLSTM(width=width), probes=(LyapunovExponents(),)) for width in (5, 40))
    assert replicas_probed_together(narrow, torch.device("cpu")) > 1
    assert replicas_probed_together(wide, torch.device("cpu")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("cell", ["Elman(width=100)", "LSTM(width=100)"])
def test_training_stays_within_the_estimate(engine, cell):
    """The peak above that of a single small run, in processes of their own."""
    program = (
        "import resource\nfrom rnnstudy.cells import LSTM, Elman\nfrom rnnstudy.training.loop import train\n"
        "from rnnstudy.training.cost import bytes_per_replica as bytes_of\nfrom rnnstudy.run import Run, Training\n"
        "from rnnstudy.tasks import TemporalOrder\n"
        "training = Training(batch=40, steps=20, check_every=10, validation_sequences=200, test_sequences=200)\n"
        f"runs = [Run(task=TemporalOrder(length=200), cell={cell}, training=training, seed=s) for s in range(24)]\n"
        "small = [Run(task=TemporalOrder(length=10), cell=runs[0].cell, training=training)]\n"
        f"list(train(small, engine='{engine}', device='cpu'))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"list(train(runs, engine='{engine}', device='cpu'))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(1024 * (after - before), 24 * bytes_of(runs[0]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    peak, estimate = map(float, ran.stdout.split())
    assert 0.1 * estimate < peak < estimate + SHARED_BYTES


@pytest.mark.parametrize("task", [TemporalOrder(length=12), LengthRange(task=TemporalOrder(length=10), length=14)])
def test_probes_read_a_population_in_parts_as_they_read_it_whole(monkeypatch, task):
    probes = (GradientThroughTime(sequences=4), GradientByLag(sequences=6), LyapunovExponents(sequences=2))
    training = Training(steps=4, batch=3, check_every=2, validation_sequences=5, test_sequences=5)
    runs = [Run(task=task, cell=LSTM(width=4), training=training, probes=probes, seed=seed) for seed in range(5)]
    sizes = []
    monkeypatch.setattr(evaluation, "side_batch", counting(evaluation.side_batch, sizes))
    whole = last_records(runs)
    assert set(sizes) == {5}
    sizes.clear()
    monkeypatch.setattr(cost, "MOST_NUMBERS_PROBED", 2 * 6 * runs[0].task.steps * 6 * 4)
    in_parts = last_records(runs)
    assert set(sizes) == {2, 1}
    for expected, record in zip(whole, in_parts, strict=True):
        assert expected.series.keys() == record.series.keys()
        assert any(name.startswith("by_lag/") for name in expected.series)
        for name, series in expected.series.items():
            np.testing.assert_allclose(
                measured(record.series[name]), measured(series), rtol=1e-5, atol=1e-9, err_msg=name
            )
        assert expected.outcome.summary == pytest.approx(record.outcome.summary, rel=1e-5, nan_ok=True)


def last_records(runs):
    return [record for record in train(runs, device="cpu", engine="reference") if record.outcome is not None]


def measured(series):
    """The values of a reading, without trailing positions where nothing was measured."""
    values = np.asarray(series.values)
    return values[..., : np.flatnonzero(np.isfinite(values).reshape(-1, values.shape[-1]).any(0)).max(initial=-1) + 1]


def counting(function, sizes):
    def counted(population, *arguments, **named):
        sizes.append(len(population.runs))
        return function(population, *arguments, **named)

    return counted
