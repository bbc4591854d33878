"""How do the cells compare when each has its own best learning rate, clipping threshold and initialisation gain?

Hypothesis: a vanilla RNN with settings chosen for another cell may only be badly tuned; when each cell is tuned
separately at each length, the RNN improves, and the gated cells still lead at the longer length.

One study for each cell and length. The objective is the validation error, the median over three seeds that are the same
in all studies; the best candidate is trained again on ten fresh seeds, and only these results are reported.
"""

from functools import partial

from optuna import Trial
from optuna.pruners import MedianPruner

from rnnstudy.cells import GRU, LSTM, Cell, Elman, Orthogonal
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.search import Search
from rnnstudy.sweep import Scale
from rnnstudy.tasks import TemporalOrder


def sample(trial: Trial, scale: Scale, *, cell: Cell, length: int) -> Run:
    """The search space: three numbers that may differ between the runs of one population."""
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    threshold = trial.suggest_float("clip_threshold", 0.1, 10.0, log=True)
    gain = trial.suggest_float("gain", 0.5, 2.0)
    return Run(
        task=TemporalOrder(length=length),
        cell=cell,
        initialisation=Orthogonal(gain=gain),
        training=Training(
            steps=scale.pick(smoke=20, desk=600, paper=10_000),
            batch=20,
            learning_rate=rate,
            clip=ClipNorm(threshold=threshold),
            check_every=scale.pick(smoke=10, desk=100, paper=500),
            validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
            test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
        ),
        probes=(ParameterGradients(every=20), GradientThroughTime(every=scale.pick(smoke=10, desk=100, paper=500))),
    )


def searches(scale: Scale) -> list[Search]:
    width = scale.pick(smoke=4, desk=32, paper=50)
    cells: list[Cell] = [Elman(width=width), LSTM(width=width), GRU(width=width)]
    return [
        Search(
            name=f"{cell.label()}-T{length}",
            sample=partial(sample, cell=cell, length=length),
            objective="error",
            trials=scale.pick(smoke=4, desk=12, paper=64),
            together=scale.pick(smoke=4, desk=6, paper=16),
            seeds=scale.pick(smoke=(0, 1), desk=(0, 1, 2), paper=(0, 1, 2, 3, 4)),
            fresh_seeds=tuple(range(100, scale.pick(smoke=102, desk=110, paper=130))),
            pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=scale.pick(smoke=0, desk=200, paper=2000)),
        )
        for length in scale.pick(smoke=(10,), desk=(50, 100), paper=(50, 100, 200))
        for cell in cells
    ]
