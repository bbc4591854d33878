"""How many replicas train together, by the memory there is."""

import subprocess
import sys

import pytest

from rnnstudy.cells import LSTM, Elman
from rnnstudy.memory import SHARED_BYTES, bytes_of, replicas_that_fit
from rnnstudy.population import populations
from rnnstudy.run import Run, Training
from rnnstudy.tasks import TemporalOrder

RUN = Run(task=TemporalOrder(length=100), cell=LSTM(width=50), training=Training(batch=20, steps=500))


def test_a_population_fits_the_room_it_is_given():
    runs = [RUN.replace(seed=seed) for seed in range(300)]
    room = SHARED_BYTES + 40.5 * bytes_of(RUN)
    sizes = [len(group.runs) for group in populations(runs, most=2048, room=room)]
    assert sizes == [40] * 7 + [20]
    assert [run.seed for group in populations(runs, most=2048, room=room) for run in group.runs] == list(range(300))
    assert {len(group.runs) for group in populations(runs[:64], most=32, room=1e15)} == {32}
    assert [len(group.runs) for group in populations(runs, most=2048, room=1e15)] == [300]


def test_a_device_that_holds_not_even_one_trains_one_at_a_time():
    assert replicas_that_fit(RUN, room=0.0) == 1
    assert replicas_that_fit(RUN.replace(task=TemporalOrder(length=10**6)), room=1e9) == 1


def test_the_estimate_grows_with_what_is_kept():
    longer = RUN.replace(task=TemporalOrder(length=200))
    assert 1.8 < bytes_of(longer) / bytes_of(RUN) < 2.1
    assert bytes_of(RUN) > bytes_of(RUN.replace(cell=Elman(width=50)))
    assert bytes_of(RUN.replace(layers=2)) > bytes_of(RUN)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("cell", ["Elman(width=100)", "LSTM(width=100)"])
def test_training_stays_within_the_estimate(engine, cell):
    """The peak above that of a single small run, in processes of their own."""
    program = (
        "import resource\nfrom rnnstudy.cells import LSTM, Elman\nfrom rnnstudy.loop import train\n"
        "from rnnstudy.memory import bytes_of\nfrom rnnstudy.run import Run, Training\n"
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
