"""Truncated backpropagation does not learn what lies beyond its window.

Hypothesis: if the gradient is cut every k steps, counted back from the end of the sequence, a network learns a mark of
temporal order only if the window reaches it. At T = 50 the later mark lies 20 to 24 steps before the answer and the
earlier one 40 to 44, so there should be three levels: chance (3/4 wrong) for short windows, one mark known (1/2 wrong)
for medium windows, and solved for windows that reach both. An LSTM, whose state keeps the marks even without training,
may need a shorter window.

The longest window is the whole sequence: full backpropagation, by the same engine. Weights and sequences are the same
for all windows of a seed, so windows are compared pairwise.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import Chrono, Orthogonal
from rnnstudy.cells.lstm import LSTM
from rnnstudy.optimisers.truncation import Truncation
from rnnstudy.probes.gradient_by_lag import GradientByLag
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    length = scale.pick(smoke=10, desk=50, paper=100)
    width = scale.pick(smoke=6, desk=50, paper=50)
    windows = scale.pick(
        smoke=(4, 10), desk=(5, 10, 20, 30, 40, 50), paper=(5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    )
    training = Training(
        steps=scale.pick(smoke=10, desk=800, paper=10_000),
        check_every=scale.pick(smoke=5, desk=100, paper=100),
        validation_sequences=scale.pick(smoke=20, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=40, desk=10_000, paper=10_000),
    )
    base = Run(task=TemporalOrder(length=length), cell=Elman(width=width), training=training, probes=(GradientByLag(),))
    cells = [(Elman(width=width), Orthogonal()), (LSTM(width=width), Orthogonal(gate_bias=Chrono(longest=length)))]
    return grid(
        base,
        {("cell", "initialisation"): cells, "training.truncation": [Truncation(window=window) for window in windows]},
        seeds=range(scale.pick(smoke=2, desk=10, paper=20)),
    )
