"""Does a vanilla RNN fail because its gradient vanishes? Restore the gradient, or remove it, and see who learns.

Hypothesis: (1) at a length at which the vanilla RNN fails, it learns when the norm of its gradient is restored at each
step back (`ConstantNorm`), or held by Omega; likewise an LSTM with biases as PyTorch draws them, also by h-detach.
(2) A gated network that learns stops learning when the gradient is cut before it reaches the marks (`Truncation`), and
not when the cut comes just behind them. This network is a GRU with forget bias 1: an LSTM with forget bias 1 was tried
first, and did not learn at these rates and within this budget even with its gradient as it is.

Temporal order at T = 100, where the first mark lies 81 to 90 steps before the end and the second 41 to 50: a window of
35 steps reaches no mark, 45 some of the second marks and no first one, 75 all second marks and no first one, 95 both.
The window of 35 was added after the others had been seen: the network had learned with each of them.
All with the same width, sequences, optimiser, clipping and budget, at three learning rates.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import ForgetBias, Orthogonal, PyTorchDefault
from rnnstudy.cells.lstm import LSTM
from rnnstudy.optimisers.constant_norm import ConstantNorm
from rnnstudy.optimisers.h_detach import HDetach
from rnnstudy.optimisers.omega import Omega
from rnnstudy.optimisers.truncation import Truncation
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    length = scale.pick(smoke=20, desk=100, paper=200)
    width = scale.pick(smoke=4, desk=32, paper=50)
    base = Run(
        task=TemporalOrder(length=length),
        cell=Elman(width=width),
        initialisation=Orthogonal(),
        training=Training(
            steps=scale.pick(smoke=20, desk=2000, paper=20_000),
            check_every=scale.pick(smoke=10, desk=100, paper=100),
            validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
            test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
        ),
        probes=(ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=5, desk=100, paper=500))),
    )
    drawn = (LSTM(width=width), PyTorchDefault())
    forget = (GRU(width=width), PyTorchDefault(gate_bias=ForgetBias(value=1.0)))
    windows = [Truncation(window=round(share * length)) for share in (0.35, 0.45, 0.75, 0.95)]
    rates = {
        "vanilla": scale.pick(smoke=(1e-3,), desk=(1e-4, 3e-4, 1e-3), paper=(1e-4, 3e-4, 1e-3)),
        "gated": scale.pick(smoke=(1e-2,), desk=(1e-3, 3e-3, 1e-2), paper=(1e-3, 3e-3, 1e-2)),
    }
    seeds = range(scale.pick(smoke=2, desk=10, paper=20))
    methods = ("training.constant_norm", "training.omega", "training.h_detach", "training.truncation")
    none = (None, None, None, None)
    restored = [none, (ConstantNorm(), None, None, None)]
    vanilla = [*restored, *((None, Omega(strength=strength), None, None) for strength in (0.5, 2.0))]
    gated = [*restored, (None, None, HDetach(probability=0.5), None)]
    removed = [none, *((None, None, None, window) for window in windows)]
    all_runs = grid(base, {methods: vanilla, "training.learning_rate": rates["vanilla"]}, seeds=seeds)
    for cell, of_methods in ((drawn, gated), (forget, removed)):
        vary = {("cell", "initialisation"): [cell], methods: of_methods, "training.learning_rate": rates["gated"]}
        all_runs += grid(base, vary, seeds=seeds)
    return all_runs
