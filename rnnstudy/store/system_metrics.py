"""How busy the machine is while runs train: one sampler for a launcher, however many runs it trains.

MLflow's own monitor runs a thread for each run, and each writes to the store by itself; here the launcher reads the
same sensors now and then, and the one writer gives what they say to every run that is open.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rnnstudy.store.decimation import Point, milliseconds

SECONDS_BETWEEN_SAMPLES = 10.0

PREFIX = "system/"
"""What begins so stands on the page *System metrics* of a run, and nowhere else in MLflow's pages."""

Sample = Mapping[str, float]
"""Sensor (as MLflow names it) to reading: utilisation and memory in per cent, memory in MB, power in W."""


class Machine:
    """The sensors of this machine: CPU and memory, and each GPU where the package `nvidia-ml-py` and a GPU are there.

    Readings are of the whole machine, so runs that train at the same time have the same.
    """

    def __init__(self, seconds: float = SECONDS_BETWEEN_SAMPLES) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._seconds = seconds
        self._monitors: list[CPUMonitor | GPUMonitor] = [CPUMonitor()]
        # Where there is no GPU of NVIDIA's, or nothing to ask it with, that is one sensor less.
        with contextlib.suppress(ImportError, RuntimeError):
            self._monitors.append(GPUMonitor())
        # The use of the CPU is counted from one reading to the next: the first has nothing to count from.
        self._read()
        self._last = time.monotonic()

    def sample(self) -> Sample:
        """What the sensors say, if the last time is long enough ago; otherwise nothing."""
        if time.monotonic() - self._last < self._seconds:
            return {}
        self._last = time.monotonic()
        return self._read()

    def _read(self) -> Sample:
        readings: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            readings |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return readings


def points_of_sample(sample: Sample, number: int, seconds: float) -> Iterator[Point]:
    """The points of a run's sample with this number, taken at `seconds` since 1970; MLflow's step is the number.

    The first hundred samples are kept, then every 10th, from a thousand on every 100th: with a sample every 10 s, the
    points that a curve may have last for five hours.
    """
    if number % 10 ** max(0, len(str(number)) - 2) == 0:
        for name, value in sample.items():
            yield Point(PREFIX + name, number, float(value), milliseconds(seconds))


def samples_in(sent: Mapping[str, set[int]]) -> int:
    """The number of the next sample of a run that has these steps of its metrics already."""
    return 1 + max((max(steps) for name, steps in sent.items() if name.startswith(PREFIX) and steps), default=-1)
