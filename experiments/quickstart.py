"""An LSTM solves temporal order at lengths where a vanilla RNN, under the same conditions, does not.

Hypothesis: at equal width, with the same small grid of learning rates for both, the gradient of a tanh RNN decreases
with the lag, so that it finds the two marks at T = 50 but not at T = 200, while an LSTM whose biases distribute its
forgetting times over the sequence (chrono initialisation) solves all lengths.

Both cells have orthogonal recurrent matrices, Adam, and gradient clipping at norm 1.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import Chrono, Orthogonal
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    lengths = scale.pick(smoke=(10, 12), desk=(50, 100, 200), paper=(50, 100, 150, 200, 300, 500))
    width = scale.pick(smoke=6, desk=50, paper=50)
    training = Training(
        steps=scale.pick(smoke=20, desk=800, paper=10_000),
        batch=20,
        check_every=scale.pick(smoke=10, desk=100, paper=100),
        validation_sequences=scale.pick(smoke=50, desk=500, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=2000, paper=10_000),
    )
    probes = (ParameterGradients(), GradientThroughTime(every=scale.pick(smoke=5, desk=20, paper=100)))
    all_runs = []
    for length in lengths:
        base = Run(task=TemporalOrder(length=length), cell=Elman(width=width), training=training, probes=probes)
        chrono = Orthogonal(gate_bias=Chrono(longest=length))
        all_runs += grid(
            base,
            {
                ("cell", "initialisation"): [(Elman(width=width), Orthogonal()), (LSTM(width=width), chrono)],
                "training.learning_rate": scale.pick(
                    smoke=(1e-3, 1e-2), desk=(1e-3, 1e-2), paper=(3e-4, 1e-3, 3e-3, 1e-2)
                ),
            },
            seeds=range(scale.pick(smoke=2, desk=5, paper=10)),
        )
    return all_runs
