"""A vanilla RNN forgets in every direction; an LSTM preserves some directions of its state, along the cell path.

Hypothesis: the product of Jacobians ∂s_τ/∂s_t of a tanh RNN shrinks in all directions, so that all singular values
decrease with the lag, whereas the joint state (c, h) of the LSTM has a few singular values that stay near 1, those of
the cell path diag(f_t), while its hidden path, which resembles a tanh RNN, decays much faster. Training changes only a
few of the directions: those that the task needs.

Lyapunov exponents show the same in the limit of long times: zero separates remembering from forgetting.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import Chrono, Orthogonal
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.lyapunov import LyapunovExponents
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.probes.singular_values import SingularValues
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=4, desk=50, paper=50)
    training = Training(
        steps=scale.pick(smoke=10, desk=1000, paper=10_000),
        check_every=scale.pick(smoke=5, desk=100, paper=100),
        validation_sequences=scale.pick(smoke=20, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=40, desk=10_000, paper=10_000),
    )
    sequences = scale.pick(smoke=2, desk=4, paper=16)
    probes = (
        SingularValues(sequences=sequences),
        LyapunovExponents(sequences=sequences),
        GradientThroughTime(every=StartAndEnd()),
    )
    all_runs = []
    for length in scale.pick(smoke=(10,), desk=(50, 100), paper=(50, 100, 200)):
        base = Run(task=TemporalOrder(length=length), cell=Elman(width=width), training=training, probes=probes)
        cells = [(Elman(width=width), Orthogonal()), (LSTM(width=width), Orthogonal(gate_bias=Chrono(longest=length)))]
        seeds = range(scale.pick(smoke=2, desk=10, paper=20))
        all_runs += grid(base, {("cell", "initialisation"): cells}, seeds=seeds)
    return all_runs
