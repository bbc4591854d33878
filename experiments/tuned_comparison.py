"""How do the cells compare when each has its own best learning rate, clipping threshold and start?

Hypothesis: a vanilla RNN with settings chosen for another cell may only be badly tuned; when each cell is tuned
separately at each length, the RNN improves, and the gated cells still lead at the longer length.

One study for each cell and length, each with as many candidates, updates and seeds, and a sampler seed of its own. A
third of the candidates is drawn at random, the rest by the estimator. The objective is the number of updates to solve
the task, the median over three seeds that are the same in all studies; of candidates that do not solve it, the one with
the lower validation error is better. Nothing is pruned: the error stays at chance until it falls at once, so that a
pruner would have nothing to go by; runs that have solved the task stop. The winner is trained again on twenty fresh
seeds, and only these results are reported, beside the untuned runs of `untuned_comparison.py` on the same seeds.
"""

from functools import partial

from optuna import Trial

from rnnstudy.cells import GRU, LSTM, Cell, Elman, ForgetBias, Identity, Initialisation, Orthogonal, PyTorchDefault
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.search import Search
from rnnstudy.sweep import Scale
from rnnstudy.tasks import TemporalOrder

FRESH_SEEDS = {Scale.SMOKE: range(100, 102), Scale.DESK: range(100, 120), Scale.PAPER: range(100, 130)}


def start(trial: Trial, cell: Cell) -> Initialisation:
    """Where the weights begin: the recurrent matrix for every cell, and for a gated one the forget gate's bias."""
    gate_bias = ForgetBias(value=trial.suggest_float("forget_bias", 0.0, 6.0)) if not isinstance(cell, Elman) else None
    starts = ("as drawn", "identity", "orthogonal") if gate_bias is None else ("as drawn", "orthogonal")
    match trial.suggest_categorical("start", starts):
        case "orthogonal":
            return Orthogonal(gain=trial.suggest_float("gain", 0.5, 1.5), gate_bias=gate_bias)
        case "identity":
            return Identity()
        case _:
            return PyTorchDefault(gate_bias=gate_bias)


def sample(trial: Trial, scale: Scale, *, cell: Cell, length: int) -> Run:
    rate = trial.suggest_float("learning_rate", 1e-4, 3e-1, log=True)
    threshold = trial.suggest_float("clip_threshold", 0.1, 10.0, log=True)
    return Run(
        task=TemporalOrder(length=length),
        cell=cell,
        initialisation=start(trial, cell),
        training=Training(
            steps=scale.pick(smoke=20, desk=1500, paper=10_000),
            batch=20,
            learning_rate=rate,
            clip=ClipNorm(threshold=threshold),
            check_every=scale.pick(smoke=10, desk=50, paper=100),
            validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
            test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
        ),
        probes=(ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=10, desk=100, paper=500))),
    )


def searches(scale: Scale) -> list[Search]:
    width = scale.pick(smoke=4, desk=32, paper=50)
    cells: list[Cell] = [Elman(width=width), LSTM(width=width), GRU(width=width)]
    return [
        Search(
            name=f"{cell.label()}-T{length}",
            sample=partial(sample, cell=cell, length=length),
            objective="steps_then_error",
            trials=scale.pick(smoke=4, desk=30, paper=100),
            together=scale.pick(smoke=4, desk=5, paper=10),
            seeds=scale.pick(smoke=(0, 1), desk=(0, 1, 2), paper=(0, 1, 2, 3, 4)),
            fresh_seeds=tuple(FRESH_SEEDS[scale]),
        )
        for length in scale.pick(smoke=(10,), desk=(50, 100), paper=(50, 100, 200))
        for cell in cells
    ]
