"""Film reviews read as symbols, against the same reviews read as dense one-hot vectors: whole trainings.

Two runs of one population, with the default probes, validation and test, on data/movie_reviews.csv by word: 2,000
symbols and one for all others, 40 steps, 32 reviews in a batch, width 64. The time is the process's own, so that other
work on the machine counts little; the two take turns. Both learn the same networks, to the bit.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.one_hot import OneHot
from rnnstudy.run import Run, Training
from rnnstudy.tasks import LabelledText
from rnnstudy.tasks.task import Batch
from rnnstudy.training.batches import TrainingBatches
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

CELLS: tuple[Cell, ...] = (Elman(width=64), LSTM(width=64), GRU(width=64))
RUNS, ROUNDS = 2, 3
TRAINING = Training(steps=40, batch=32, validation_sequences=200, test_sequences=200, stop_when_solved=False)
PATH = Path(__file__).parent.parent / "data" / "movie_reviews.csv"


class DenseText(LabelledText):
    """The same texts; a batch holds their one-hot vectors."""

    @property
    def inputs_are_symbols(self) -> bool:
        return False

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        drawn = super().sample(batch, generator)
        inputs = OneHot.of(drawn.inputs.squeeze(-1), self.features, torch.float32).dense()
        return Batch(**{**vars(drawn), "inputs": inputs})


def runs_of(task: LabelledText, cell: Cell, training: Training) -> list[Run]:
    return [Run(task=task, cell=cell, training=training, seed=seed) for seed in range(RUNS)]


def trained(runs: list[Run]) -> tuple[float, list[Tensor]]:
    """Processor seconds of the whole training, and the final weights of all runs."""
    began = time.process_time()
    last = [record for record in train(runs, device="cpu", engine="compiled") if record.outcome]
    seconds = time.process_time() - began
    return seconds, [torch.from_numpy(value) for record in last for value in (record.weights or {}).values()]


def batch_bytes(runs: list[Run]) -> int:
    """Bytes of what one run reads in an update."""
    inputs = next(TrainingBatches(Population(tuple(runs)), 0, torch.device("cpu"))).inputs
    return inputs.nbytes // len(runs)


def measure(training: Training = TRAINING, path: Path = PATH, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """For each cell: seconds with symbols and with dense vectors, median and range, and how often faster."""
    options = {"path": str(path), "unit": "word", "symbols": 2000, "length": 40}
    tasks = (LabelledText(**options), DenseText(**options))
    found = []
    for cell in CELLS:
        symbols, dense = (runs_of(task, cell, training) for task in tasks)
        for runs in (symbols, dense):
            trained([run.replace(training=training.replace(steps=1, test_sequences=1)) for run in runs])
        pairs = []
        for _ in range(rounds):
            (fast, weights), (slow, expected) = trained(symbols), trained(dense)
            if not all(map(torch.equal, weights, expected)):
                raise RuntimeError(f"{cell!r} learns something else from symbols than from one-hot vectors")
            pairs.append((fast, slow))
        row = {"cell": repr(cell), "runs": RUNS, "updates": training.steps, "features": tasks[0].features}
        row |= {"batch_bytes": {"symbols": batch_bytes(symbols), "dense": batch_bytes(dense)}}
        row |= {"seconds": {"symbols": _spread([one for one, _ in pairs]), "dense": _spread([one for _, one in pairs])}}
        found.append(row | {"times_faster": _spread([slow / fast for fast, slow in pairs])})
        print(found[-1], flush=True)
    return found


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
