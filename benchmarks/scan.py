"""Diagonal recurrences by the scan, the traced and the reference engine, in seconds of one core.

Forward, backward and log norms of one layer. The time is the process's own, so that other work on the machine counts
little; the engines take turns.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnnstudy.cells import LRU, RGLRU, S4D, S6, SRU, MinGRU, MinLSTM, Published
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.traced import TracedEngine
from rnnstudy.training.randomness import generator

CELLS: tuple[DiagonalCell, ...] = (MinGRU(), MinLSTM(), LRU(), RGLRU(), SRU(), S4D(state_size=4), S6(state_size=4))
LENGTH, BATCH, FEATURES, ROUNDS = 1000, 20, 6, 3


Drawn = tuple[dict[str, Tensor], Tensor]
Step = Callable[[], dict[str, Any]]
"""One forward and backward pass; returns the gradients of the weights."""


def drawn(cell: DiagonalCell, length: int, batch: int, replicas: int) -> Drawn:
    """Weights (replica, …) and inputs (time, replica, batch, features)."""
    values = [Published().draw(cell.parameters(FEATURES, 4), cell.width, generator(r, "x")) for r in range(replicas)]
    parameters = {name: torch.stack([one[name] for one in values]) for name in values[0]}
    return parameters, torch.randn(length, replicas, batch, FEATURES, generator=generator(0, "inputs"))


def recorded(engine: Engine, cell: DiagonalCell, given: Drawn) -> Step:
    """With log10 of the gradient's norm of every state at every step and sequence."""
    parameters, inputs = given
    length, widths = len(inputs), {state: cell.state_width(state, 4) for state in cell.states}

    def step() -> dict[str, Any]:
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        trajectory = engine.unroll(cell, leaves, inputs, widths=widths, observed=True, steps=(length - 1,))
        trajectory.outputs.sum().backward()
        for state in cell.states:
            trajectory.log_norms(state)
        return {name: leaf.grad for name, leaf in leaves.items()}

    return step


def seconds(step: Step) -> float:
    """Processor time of one pass, the loss read at the last output."""
    began = time.process_time()
    step()
    return time.process_time() - began


def measure() -> list[dict[str, Any]]:
    """Each cell at T = 1,000, with one and with eight replicas: the best of a few rounds, and the ratios."""
    found = []
    for replicas in (1, 8):
        for cell in CELLS:
            for engine in (ScanEngine(), TracedEngine()):
                recorded(engine, cell, drawn(cell, 10, BATCH, replicas))()
            given = drawn(cell, LENGTH, BATCH, replicas)
            steps = [recorded(engine, cell, given) for engine in (ScanEngine(), TracedEngine(), ReferenceEngine())]
            rounds = [[seconds(step) for step in steps] for _ in range(ROUNDS)]
            scan, traced, reference = (min(times) for times in zip(*rounds, strict=True))
            row = {"cell": repr(cell), "length": LENGTH, "batch": BATCH, "replicas": replicas}
            row |= {"scan": scan, "traced": traced, "reference": reference}
            found.append(row | {"times_faster": {"scan": reference / scan, "traced": reference / traced}})
            print(found[-1], flush=True)
    return found
