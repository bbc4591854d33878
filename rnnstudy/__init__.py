"""rnnstudy: a laboratory for gradients through time.

    import rnnstudy
    from rnnstudy.cells import LSTM, Elman
    from rnnstudy.tasks import TemporalOrder

    runs = [rnnstudy.Run(task=TemporalOrder(length=50), cell=cell, seed=0) for cell in (Elman(), LSTM())]
    for record in rnnstudy.train(runs):
        print(record.key, record.step, record.outcome)

Names are imported when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnstudy.loop import train
    from rnnstudy.population import Population, populations
    from rnnstudy.run import Run, Training
    from rnnstudy.spec import SpecError
    from rnnstudy.sweep import Scale, grid
    from rnnstudy.trained import load

_HOMES = {
    "Population": "population",
    "Run": "run",
    "Scale": "sweep",
    "SpecError": "spec",
    "Training": "run",
    "grid": "sweep",
    "load": "trained",
    "populations": "population",
    "train": "loop",
}

__all__ = [
    "Population",
    "Run",
    "Scale",
    "SpecError",
    "Training",
    "grid",
    "load",
    "populations",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"rnnstudy.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rnnstudy' has no attribute '{name}'")
