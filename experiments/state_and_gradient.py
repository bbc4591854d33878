"""A gradient that arrives is not yet a signal, and a state that forgets is not a gradient that vanishes: measure both.

Hypothesis: a vanilla RNN that does not learn temporal order at T = 100 fails for want of signal, not for want of
gradient: its gradient reaches the marks (orthogonal start), but points elsewhere in every sequence, and its state has
lost the mark long before the end. An LSTM with forget bias 1 has both, the mark in its state and a gradient with
signal at the marks, before it has learned anything; with biases as PyTorch draws them it has neither.

Read before, half-way through and after training: the gradient by lag, its signal against its noise, a linear decoder of
the first mark from the state by the steps since, the distance of states that differ in one mark, and what each step
back takes.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import ForgetBias, Identity, Orthogonal, PyTorchDefault
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.backward_gain import BackwardGain
from rnnstudy.probes.gradient_signal import GradientSignal
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.state_decoder import StateDecoder
from rnnstudy.probes.state_distance import StateDistance
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.adding import Adding
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=4, desk=32, paper=50)
    every = scale.pick(smoke=10, desk=500, paper=500)
    sequences = scale.pick(smoke=16, desk=512, paper=1024)
    probes = (
        GradientThroughTime(every=scale.pick(smoke=5, desk=50, paper=100)),
        GradientSignal(every=every, sequences=sequences),
        StateDecoder(every=every, sequences=sequences),
        StateDistance(every=every, sequences=sequences),
        BackwardGain(every=every, sequences=sequences),
    )
    training = Training(
        steps=scale.pick(smoke=20, desk=1000, paper=5000),
        check_every=scale.pick(smoke=10, desk=100, paper=100),
        stop_when_solved=False,
        validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
    )
    forget = PyTorchDefault(gate_bias=ForgetBias(value=1.0))
    sides = [
        (Elman(width=width), PyTorchDefault(), 1e-3),
        (Elman(width=width), Orthogonal(), 3e-4),
        (Elman(width=width), Identity(), 3e-4),
        (LSTM(width=width), PyTorchDefault(), 1e-2),
        (LSTM(width=width), forget, 1e-2),
    ]
    all_runs = []
    for length in scale.pick(smoke=(12,), desk=(100,), paper=(100, 200)):
        for task in (TemporalOrder(length=length), Adding(length=length)):
            base = Run(task=task, cell=Elman(width=width), training=training, probes=probes)
            vary = {("cell", "initialisation", "training.learning_rate"): sides}
            all_runs += grid(base, vary, seeds=range(scale.pick(smoke=2, desk=5, paper=10)))
    return all_runs
