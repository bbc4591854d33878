"""Diagonal recurrences by the scan, the traced and the reference engine, in seconds of one core.

Forward, backward and log norms of one layer. The time is the process's own, so that other work on the machine counts
little; the engines take turns.
"""

import time
from typing import Any

import torch

from rnnstudy.cells import LRU, RGLRU, S4D, S6, SRU, MinGRU, MinLSTM, Published
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.traced import TracedEngine
from rnnstudy.training.randomness import generator

CELLS: tuple[DiagonalCell, ...] = (MinGRU(), MinLSTM(), LRU(), RGLRU(), SRU(), S4D(state_size=4), S6(state_size=4))
LENGTH, BATCH, FEATURES, ROUNDS = 1000, 20, 6, 3


def seconds(engine: Engine, cell: DiagonalCell, length: int, replicas: int) -> float:
    """Processor time of one step, the loss read at the last output."""
    drawn = [Published().draw(cell.parameters(FEATURES, 4), cell.width, generator(r, "x")) for r in range(replicas)]
    parameters = {name: torch.stack([one[name] for one in drawn]).requires_grad_() for name in drawn[0]}
    inputs = torch.randn(length, replicas, BATCH, FEATURES)
    widths = {state: cell.state_width(state, 4) for state in cell.states}
    began = time.process_time()
    trajectory = engine.unroll(cell, parameters, inputs, widths=widths, observed=True, steps=(length - 1,))
    trajectory.outputs.sum().backward()
    for state in cell.states:
        trajectory.log_norms(state)
    return time.process_time() - began


def measure() -> list[dict[str, Any]]:
    """Each cell at T = 1,000, with one and with eight replicas: the best of a few rounds, and the ratios."""
    found = []
    for replicas in (1, 8):
        for cell in CELLS:
            for engine in (ScanEngine(), TracedEngine()):
                seconds(engine, cell, 10, replicas)
            rounds = [
                [
                    seconds(engine, cell, LENGTH, replicas)
                    for engine in (ScanEngine(), TracedEngine(), ReferenceEngine())
                ]
                for _ in range(ROUNDS)
            ]
            scan, traced, reference = (min(times) for times in zip(*rounds, strict=True))
            row = {"cell": repr(cell), "length": LENGTH, "batch": BATCH, "replicas": replicas}
            row |= {"scan": scan, "traced": traced, "reference": reference}
            found.append(row | {"times_faster": {"scan": reference / scan, "traced": reference / traced}})
            print(found[-1], flush=True)
    return found
