"""rnnstudy: a laboratory for gradients through time.

    import rnnstudy
    from rnnstudy.cells import LSTM, Elman
    from rnnstudy.tasks import TemporalOrder

    runs = [rnnstudy.Run(task=TemporalOrder(length=50), cell=cell, seed=0) for cell in (Elman(), LSTM())]
    for record in rnnstudy.train(runs):
        print(record.key, record.step, record.outcome)

Names are imported when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from rnnstudy.spec import RnnstudyError, SpecError, lazy_names

if TYPE_CHECKING:
    from rnnstudy.results.trained import load_network as load
    from rnnstudy.run import Run, Training
    from rnnstudy.sweep import Scale, grid
    from rnnstudy.training.grouping import populations
    from rnnstudy.training.loop import train
    from rnnstudy.training.population import Population
    from rnnstudy.watching.own import states
    from rnnstudy.watching.watch import watch

__all__ = [
    "Population",
    "RnnstudyError",
    "Run",
    "Scale",
    "SpecError",
    "Training",
    "grid",
    "load",
    "populations",
    "states",
    "train",
    "watch",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Population": "training.population",
        "Run": "run",
        "Scale": "sweep.grids",
        "Training": "run",
        "grid": "sweep.grids",
        "load": "results.trained:load_network",
        "populations": "training.grouping",
        "states": "watching.own",
        "train": "training.loop",
        "watch": "watching.watch",
    },
)
