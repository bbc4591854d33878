"""What do the cells reach without a search, at settings that are common in the literature?

Hypothesis: a search gains most for the vanilla RNN; an LSTM or GRU with forget bias 1 and Adam's default learning rate
does about as well as the winner of its search.

The baseline of `tuned_comparison.py`: same task, widths, updates and fresh seeds; learning rate 1e-3 (Adam's default),
clipping at norm 1, recurrent matrices as PyTorch draws them, and a forget bias of 1. The vanilla RNN starts from an
orthogonal matrix and from the identity too. These two were added when the results of the others and of the searches had
been seen: PyTorch's start is one from which no rate had solved the task, so that it alone is no baseline.
"""

from rnnstudy.cells import GRU, LSTM, Cell, Elman, ForgetBias, Identity, Initialisation, Orthogonal, PyTorchDefault
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks import TemporalOrder

FRESH_SEEDS = {Scale.SMOKE: range(100, 102), Scale.DESK: range(100, 120), Scale.PAPER: range(100, 130)}
"""Those of `tuned_comparison.py`; a test compares the two."""


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=4, desk=32, paper=50)
    training = Training(
        steps=scale.pick(smoke=20, desk=1500, paper=10_000),
        batch=20,
        learning_rate=1e-3,
        clip=ClipNorm(threshold=1.0),
        check_every=scale.pick(smoke=10, desk=50, paper=100),
        validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
    )
    probes = (ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=10, desk=100, paper=500)))
    forget = PyTorchDefault(gate_bias=ForgetBias(value=1.0))
    starts: list[tuple[Cell, Initialisation]] = [
        *((Elman(width=width), start) for start in (PyTorchDefault(), Orthogonal(), Identity())),
        (LSTM(width=width), forget),
        (GRU(width=width), forget),
    ]
    return [
        run
        for length in scale.pick(smoke=(10,), desk=(50, 100), paper=(50, 100, 200))
        for cell, start in starts
        for run in grid(
            Run(task=TemporalOrder(length=length), cell=cell, initialisation=start, training=training, probes=probes),
            {},
            seeds=FRESH_SEEDS[scale],
        )
    ]
