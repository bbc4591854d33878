"""The longer the sequence, the fewer vanilla RNNs solve temporal order; LSTMs and GRUs solve it at all lengths.

Hypothesis: in a tanh RNN, the gradient that reaches the first mark decreases exponentially with its lag, so that the
share of solved runs falls to chance between T = 50 and T = 100; gates whose biases distribute their forgetting times
over the sequence (chrono initialisation) preserve the gradient, so that LSTM and GRU solve every length, and sooner.

All three cells have the same width, batches, learning rates, optimiser (Adam), clipping (norm 1) and orthogonal
recurrent matrices: at the beginning, every singular value of W_hh of the vanilla RNN is 1, the best possible start.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import Chrono, Orthogonal
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.probes.recurrent_spectrum import RecurrentSpectrum
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    lengths = scale.pick(smoke=(10, 20), desk=(20, 50, 100, 200), paper=(50, 100, 150, 200, 300, 500))
    width = scale.pick(smoke=6, desk=50, paper=50)
    training = Training(
        steps=scale.pick(smoke=20, desk=1500, paper=10_000),
        batch=20,
        check_every=scale.pick(smoke=10, desk=50, paper=100),
        validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
    )
    probes = (
        ParameterGradients(every=10),
        GradientThroughTime(every=scale.pick(smoke=5, desk=25, paper=100)),
        RecurrentSpectrum(every=StartAndEnd()),
    )
    all_runs = []
    for length in lengths:
        base = Run(task=TemporalOrder(length=length), cell=Elman(width=width), training=training, probes=probes)
        chrono = Orthogonal(gate_bias=Chrono(longest=length))
        cells = [(Elman(width=width), Orthogonal()), (GRU(width=width), chrono), (LSTM(width=width), chrono)]
        rates = scale.pick(smoke=(1e-3,), desk=(1e-3, 3e-3), paper=(3e-4, 1e-3, 3e-3, 1e-2))
        all_runs += grid(
            base,
            {("cell", "initialisation"): cells, "training.learning_rate": rates},
            seeds=range(scale.pick(smoke=2, desk=10, paper=10)),
        )
    return all_runs
