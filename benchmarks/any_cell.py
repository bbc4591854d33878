"""The traced engine against the reference engine, on a user's own cell and on cells of the package without kernels.

Forward, backward and log norms of one layer whose loss reads the last output, in the process's own time on one core, so
that other work on the machine counts little; the two engines take turns. Also told: what tracing and compiling cost a
process that finds no program on disk, and one that does.
"""

import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import Leaky
from rnnstudy.cells import CIFG, JANET, LEM, MGU, CoRNN, PeepholeLSTM, Published
from rnnstudy.cells.cell import Cell
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.step_compiler import library as step_library
from rnnstudy.engines.traced import TracedEngine
from rnnstudy.training.randomness import generator

CELLS: tuple[Cell, ...] = (Leaky(), MGU(), JANET(), CIFG(), PeepholeLSTM(), CoRNN(), LEM())
LENGTH, BATCH, FEATURES, OUTPUTS, ROUNDS = 200, 20, 6, 4, 7


class Network:
    """One layer of a cell, for so many replicas."""

    def __init__(self, cell: Cell, length: int, replicas: int) -> None:
        declared = cell.parameters(FEATURES, OUTPUTS)
        drawn = [Published().draw(declared, cell.width, generator(r, "x")) for r in range(replicas)]
        self.cell = cell
        self.parameters = {name: torch.stack([one[name] for one in drawn]).requires_grad_() for name in drawn[0]}
        self.inputs = torch.randn(length, replicas, BATCH, FEATURES)
        self.widths = {state: cell.state_width(state, OUTPUTS) for state in cell.states}

    def seconds(self, engine: Engine) -> float:
        """Processor time of one step, with that of the programs it starts."""
        began = processor_time()
        options = {"widths": self.widths, "observed": True, "steps": (len(self.inputs) - 1,)}
        trajectory = engine.unroll(self.cell, self.parameters, self.inputs, **options)
        trajectory.outputs.sum().backward()
        for state in self.cell.states:
            trajectory.log_norms(state)
        return processor_time() - began


def processor_time() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def measure(cells: tuple[Cell, ...] = CELLS, length: int = LENGTH, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Each cell with one and with eight replicas: medians and ranges; and seconds to make its program ready."""
    # The first step also imports what tracing needs, whatever the cell.
    importing = Network(Leaky(width=3), 4, 1).seconds(TracedEngine())
    found = []
    for cell in cells:
        with tempfile.TemporaryDirectory() as folder:
            kept, step_library._folder = step_library._folder, lambda folder=folder: Path(folder)
            try:
                ready = Network(cell, 4, 1).seconds(TracedEngine())
            finally:
                step_library._folder = kept
        for replicas in (1, 8):
            network = Network(cell, length, replicas)
            network.seconds(TracedEngine())
            pairs = [(network.seconds(TracedEngine()), network.seconds(ReferenceEngine())) for _ in range(rounds)]
            traced, reference = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratios = sorted(slow / fast for fast, slow in pairs)
            row = {"cell": repr(cell), "length": length, "batch": BATCH, "width": cell.width, "replicas": replicas}
            row |= {"traced": traced, "reference": reference, "ready": ready, "importing": importing}
            spread = {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
            found.append(row | {"times_faster": spread})
            print(found[-1], flush=True)
    return found
