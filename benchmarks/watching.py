"""What `rnnstudy.watch` costs: steps of torch.nn with and without a watch, in turn, on one core.

A step is the forward and backward pass of nn.RNN, nn.LSTM or nn.GRU from 8 features, T = 200, with a loss on the last
output. Watched, it also computes ‖dL/dh_t‖ (for an LSTM ‖dL/dc_t‖ too) of every sequence at every step.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.training_step import spread
from rnnstudy.watching.watch import watch

LENGTH, FEATURES = 200, 8
CASES = ((20, 50, 1, 1, 60), (20, 50, 100, 100, 5), (128, 128, 1, 1, 10))
"""Batch, width, watched every so many steps, steps in a timing, timings."""

LIMITS = {("RNN", 1): 1.3, ("LSTM", 1): 1.6, ("GRU", 1): 1.6}
"""The ratios that are aimed at; on a schedule 1.01."""


def measure() -> list[dict[str, Any]]:
    """The ratio of the time of steps with a watch to that of steps without."""
    return [row(cls, *case) for case in CASES for cls in (nn.RNN, nn.LSTM, nn.GRU)]


def row(cls: type[nn.RNNBase], batch: int, width: int, every: int, steps: int, timings: int) -> dict[str, Any]:
    torch.manual_seed(0)
    module, inputs = cls(FEATURES, width), torch.randn(LENGTH, batch, FEATURES)

    def train() -> None:
        for _ in range(steps):
            module(inputs)[0][-1].square().sum().backward()
            module.zero_grad()

    def watched() -> None:
        with watch(module, every=every):
            train()

    # Compiles the kernels.
    watched()
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(timings):
        seconds["without"].append(timed(train))
        seconds["with"].append(timed(watched))
    medians = {name: statistics.median(values) / steps for name, values in seconds.items()}
    return {
        "module": cls.__name__,
        "batch": batch,
        "width": width,
        "length": LENGTH,
        "every": every,
        "milliseconds": {name: 1000 * value for name, value in medians.items()},
        "ratio": medians["with"] / medians["without"],
        "pairs": spread(b / a for a, b in zip(seconds["without"], seconds["with"], strict=True)),
        "limit": LIMITS.get((cls.__name__, every), 1.01),
    }


def timed(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
