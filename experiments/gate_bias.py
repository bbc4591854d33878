"""The bias of the forget gate determines how long an LSTM remembers before it has learned anything.

Hypothesis: if the forget gate were constant, f = σ(b), the gradient along the cell state would decrease by the factor f
at each step, and halve every log 2/(−log σ(b)) steps: 1 step at b = 0, 2 at b = 1, 14 at b = 3, 100 at b = 5. The
measured half-life should follow that curve where the cell path dominates, and be longer where the gradient that returns
to the cell through h adds to it. The task of T = 100 should be learned within few updates only where the half-life
comes close to the lag of the earlier mark (80 steps). Chrono initialisation draws biases log u, so that half-lives are
distributed over the sequence, closes the input gates accordingly, and needs no choice of a bias.
"""

from rnnstudy.cells.initialisation import Chrono, ForgetBias, GateBias, PyTorchDefault
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    length = scale.pick(smoke=10, desk=100, paper=200)
    biases = scale.pick(
        smoke=(0.0, 3.0), desk=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), paper=tuple(map(float, range(-2, 9)))
    )
    training = Training(
        steps=scale.pick(smoke=10, desk=600, paper=10_000),
        check_every=scale.pick(smoke=5, desk=50, paper=100),
        validation_sequences=scale.pick(smoke=20, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=40, desk=10_000, paper=10_000),
    )
    base = Run(
        task=TemporalOrder(length=length),
        cell=LSTM(width=scale.pick(smoke=6, desk=50, paper=50)),
        training=training,
        probes=(GradientThroughTime(every=StartAndEnd()),),
    )
    rules: list[GateBias] = [ForgetBias(value=value) for value in biases]
    rules.append(Chrono(longest=length))
    return grid(
        base,
        {"initialisation": [PyTorchDefault(gate_bias=rule) for rule in rules]},
        seeds=range(scale.pick(smoke=2, desk=10, paper=20)),
    )
