"""The load of the machine while runs train: one set of sensors for a launcher, however many runs it trains.

MLflow's own monitor starts a thread for each run, and each thread writes to the store; here the launcher reads the same
sensors at intervals, and the one writer stores each reading in every open run.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rnnstudy.store.decimation import Point, milliseconds

SECONDS_BETWEEN_SAMPLES = 10.0

PREFIX = "system/"
"""MLflow's pages show metrics with this prefix under *System metrics* alone."""

Sample = Mapping[str, float]
"""Sensor (as MLflow names it) to reading: utilisation and memory in per cent, memory in MB, power in W."""


class Machine:
    """The sensors of this machine: CPU and memory, and each NVIDIA GPU where the package `nvidia-ml-py` is installed.

    Readings are of the whole machine: runs that train at the same time have the same.
    """

    def __init__(self, seconds: float = SECONDS_BETWEEN_SAMPLES) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._seconds = seconds
        self._monitors: list[CPUMonitor | GPUMonitor] = [CPUMonitor()]
        # Raised where there is no NVIDIA GPU, or the package is not installed.
        with contextlib.suppress(ImportError, RuntimeError):
            self._monitors.append(GPUMonitor())
        # The CPU's utilisation is measured between two readings, so the first one is read here and not used.
        self._read()
        self._last = time.monotonic()

    def sample(self) -> Sample:
        """A reading of the sensors, if the previous one is at least `seconds` ago; otherwise empty."""
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
    """The points of a run's sample with this number, read at `seconds` since 1970; MLflow's step is the number.

    The first hundred samples are stored, then every 10th, from a thousand on every 100th: with a sample every 10 s, the
    200 points of a curve last for five hours.
    """
    if number % 10 ** max(0, len(str(number)) - 2) == 0:
        for name, value in sample.items():
            yield Point(PREFIX + name, number, float(value), milliseconds(seconds))


def samples_in(sent: Mapping[str, set[int]]) -> int:
    """The number of the next sample of a run, from the steps per metric that were sent already."""
    return 1 + max((max(steps) for name, steps in sent.items() if name.startswith(PREFIX) and steps), default=-1)
