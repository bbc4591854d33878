"""What `rnnstudy.watch` costs: steps of torch.nn with and without a watch, in turn, on one core.

A step is the forward and backward pass of nn.RNN, nn.LSTM or nn.GRU from 8 features, T = 200, with a loss on the last
output; with accumulated gradients, several such passes. Watched, it also computes ‖dL/dh_t‖ (for an LSTM ‖dL/dc_t‖ too)
of every sequence at every step. What is counted is the processor's time of this process, which other processes disturb
less than a clock.
"""

import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.training_step import spread
from rnnstudy.watching.watch import watch

LENGTH, FEATURES = 200, 8
CASES = ((20, 50, 1, 1, 1, 60), (20, 50, 1, 4, 1, 15), (20, 50, 100, 1, 100, 9), (128, 128, 1, 1, 1, 10))
"""Batch, width, watched every so many passes, passes in a step, steps in a timing, timings."""

LIMITS = {("RNN", 1): 1.3, ("LSTM", 1): 1.6, ("GRU", 1): 1.6}
"""The ratios that are aimed at; on a schedule 1.01."""

IMPORT_SECONDS = 0.3
"""The longest time that `import rnnstudy` may take beyond importing torch."""


def measure() -> list[dict[str, Any]]:
    """The ratio of the time of steps with a watch to that of steps without; and what importing the package takes."""
    imported = {"module": "import", "seconds": import_seconds(), "limit": IMPORT_SECONDS}
    return [*(row(cls, *case) for case in CASES for cls in (nn.RNN, nn.LSTM, nn.GRU)), imported]


def row(
    cls: type[nn.RNNBase], batch: int, width: int, every: int, parts: int, steps: int, timings: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    plain, inputs = cls(FEATURES, width), torch.randn(LENGTH, batch, FEATURES)
    watched = copy.deepcopy(plain)

    def step(module: nn.RNNBase) -> None:
        for _ in range(parts):
            module(inputs)[0][-1].square().sum().backward()
        module.zero_grad()

    seconds: dict[str, list[float]] = {"without": [], "with": []}
    with watch(watched, every=every):
        # Compiles the kernels.
        for _ in range(every):
            step(watched)
        for _ in range(timings):
            # Step by step in turn, so that what slows the machine down meets both.
            pairs = [(timed(lambda: step(plain)), timed(lambda: step(watched))) for _ in range(steps)]
            for name, values in zip(seconds, zip(*pairs, strict=True), strict=True):
                seconds[name].append(sum(values))
    medians = {name: statistics.median(values) / steps for name, values in seconds.items()}
    return {
        "module": cls.__name__,
        "batch": batch,
        "width": width,
        "length": LENGTH,
        "every": every,
        "parts": parts,
        "milliseconds": {name: 1000 * value for name, value in medians.items()},
        "ratio": medians["with"] / medians["without"],
        "pairs": spread(b / a for a, b in zip(seconds["without"], seconds["with"], strict=True)),
        "limit": LIMITS.get((cls.__name__, every), 1.01),
    }


def timed(function: Callable[[], None]) -> float:
    """Seconds of this process on the processor."""
    began = time.process_time()
    function()
    return time.process_time() - began


def import_seconds(times: int = 5) -> float:
    """The median time of `import rnnstudy` in a new process that has imported torch."""
    script = "import time, torch; began = time.process_time(); import rnnstudy; print(time.process_time() - began)"
    command = [sys.executable, "-c", script]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(times)
    )
