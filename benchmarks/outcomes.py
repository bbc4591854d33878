"""Whether both engines find the same: outcomes of the same runs by the reference and the compiled engine, over seeds.

One step agrees within rounding (the tests hold that); rounding grows in training, so that only statistics can agree
afterwards: the share solved, and an exact McNemar test on pairs of the same seed.
"""

from typing import Any

import numpy as np

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines import EngineName
from rnnstudy.figures.statistics import mcnemar, wilson
from rnnstudy.run import Run, Training
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.loop import train

ENGINES: tuple[EngineName, EngineName] = ("reference", "compiled")
TRAINING = Training(
    steps=600, batch=20, learning_rate=0.01, check_every=50, validation_sequences=500, test_sequences=2000
)


def agree(cell: Cell, length: int, seeds: int, training: Training = TRAINING) -> dict[str, Any]:
    """Share solved by either engine with its interval, and the chance of so many unlike pairs were there no difference.

    The intervals are Wilson's at 95 %.
    """
    runs = [Run(task=TemporalOrder(length=length), cell=cell, training=training, seed=seed) for seed in range(seeds)]
    solved = {
        engine: {one.key: bool(one.outcome.solved) for one in train(runs, engine=engine, device="cpu") if one.outcome}
        for engine in ENGINES
    }
    *only, p = mcnemar(*(np.array([solved[engine][run.key] for run in runs]) for engine in ENGINES))
    return {
        "cell": type(cell).__name__,
        "length": length,
        "seeds": seeds,
        "solved": {engine: _share(sum(found.values()), seeds) for engine, found in solved.items()},
        "solved_by_one_alone": dict(zip(ENGINES, only, strict=True)),
        "mcnemar_p": p,
    }


def all_cells(seeds: int = 32) -> list[dict[str, Any]]:
    return [agree(cell, length, seeds) for cell, length in ((Elman(width=50), 20), (LSTM(width=50), 50))]


def _share(solved: int, seeds: int) -> dict[str, float]:
    low, high = wilson(solved, seeds)
    return {"share": solved / seeds, "low": low, "high": high}
