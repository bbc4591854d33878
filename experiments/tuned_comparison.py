"""How do the cells compare when each is searched for its own best settings, and against settings nobody searched for?

Hypothesis: a vanilla RNN that fails may only be badly tuned. When each cell has a search of its own at each length,
over learning rate, clipping threshold, start of the matrices and, where it has one, bias of the forget gate, (1) each
cell solves more often than at usual settings, and (2) the gated cells still lead the vanilla RNN at the longer length.

One study for each cell and length, all of as many candidates, seeds and updates. The objective is the number of updates
until the task is solved, the median over seeds that are the same in all studies; candidates that do not solve it are
told apart by their validation error. The best candidate is trained again on fresh seeds, and only these results are
reported. Beside each search stands one of a single candidate: what a user would write who searches for nothing (a rate
of 0.001, clipping at norm 1, matrices as PyTorch draws them, forget bias 1), trained on the same fresh seeds.
"""

from functools import partial

from optuna import Trial
from optuna.pruners import MedianPruner

from rnnstudy.cells import GRU, LSTM, Cell, Elman
from rnnstudy.cells.initialisation import ForgetBias, Identity, Initialisation, Orthogonal, PyTorchDefault
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.search import Search
from rnnstudy.sweep import Scale
from rnnstudy.tasks import TemporalOrder

STARTS: dict[str, type[Initialisation]] = {"as drawn": PyTorchDefault, "orthogonal": Orthogonal, "identity": Identity}


def run(scale: Scale, cell: Cell, length: int, initialisation: Initialisation, rate: float, threshold: float) -> Run:
    return Run(
        task=TemporalOrder(length=length),
        cell=cell,
        initialisation=initialisation,
        training=Training(
            steps=scale.pick(smoke=20, desk=3000, paper=10_000),
            batch=20,
            learning_rate=rate,
            clip=ClipNorm(threshold=threshold),
            check_every=scale.pick(smoke=10, desk=100, paper=100),
            validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
            test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
        ),
        probes=(ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=10, desk=500, paper=500))),
    )


def searched(trial: Trial, scale: Scale, *, cell: Cell, length: int) -> Run:
    """The search space. An identity is left out for gated cells, whose own start is their forget gate's bias."""
    rate = trial.suggest_float("learning_rate", 1e-4, 3e-1, log=True)
    threshold = trial.suggest_float("clip_threshold", 0.1, 10.0, log=True)
    gated = not isinstance(cell, Elman)
    start = trial.suggest_categorical("start", list(STARTS)[:2] if gated else list(STARTS))
    bias = ForgetBias(value=trial.suggest_float("forget_bias", -1.0, 5.0)) if gated else None
    return run(scale, cell, length, STARTS[start](gate_bias=bias), rate, threshold)


def usual(trial: Trial, scale: Scale, *, cell: Cell, length: int) -> Run:
    bias = None if isinstance(cell, Elman) else ForgetBias(value=1.0)
    return run(scale, cell, length, PyTorchDefault(gate_bias=bias), rate=1e-3, threshold=1.0)


def searches(scale: Scale) -> list[Search]:
    width = scale.pick(smoke=4, desk=32, paper=50)
    cells: dict[str, Cell] = {"RNN": Elman(width=width), "GRU": GRU(width=width), "LSTM": LSTM(width=width)}
    base = Search(
        objective="steps_then_error",
        trials=scale.pick(smoke=4, desk=40, paper=64),
        together=scale.pick(smoke=4, desk=8, paper=16),
        seeds=scale.pick(smoke=(0, 1), desk=(0, 1, 2), paper=(0, 1, 2, 3, 4)),
        fresh_seeds=tuple(range(100, scale.pick(smoke=102, desk=120, paper=130))),
        pruner=MedianPruner(n_startup_trials=10, n_warmup_steps=scale.pick(smoke=0, desk=1000, paper=3000)),
    )
    all_searches = []
    for length in scale.pick(smoke=(10,), desk=(50, 100), paper=(50, 100, 200)):
        for words, cell in cells.items():
            name = f"{words}, T = {length}"
            all_searches += [
                base.replace(name=name, sample=partial(searched, cell=cell, length=length)),
                base.replace(
                    name=f"{name}, usual settings",
                    sample=partial(usual, cell=cell, length=length),
                    trials=1,
                    together=1,
                ),
            ]
    return all_searches
