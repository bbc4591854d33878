"""From vanishing to exploding gradients by changing one number: the recurrent gain.

Hypothesis: with recurrent matrices that are g times orthogonal, the gradient of an untrained network decreases or grows
exponentially with the lag. In a tanh RNN it vanishes for every g up to 1 (σ_max(W_hh)·max φ′ ≤ 1 is the sufficient
condition of Pascanu, Mikolov & Bengio) and, because its units saturate, also for some g above 1; in a relu RNN half of
the units are inactive, so the gradient turns from vanishing to exploding near g = √2; in an LSTM, whose cell path does
not pass through W_hh, it stays between the two over a wide range.

Nothing is learned here: the gradient is measured before the first update.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import ForgetBias, Orthogonal
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.recurrent_spectrum import RecurrentSpectrum
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=6, desk=50, paper=100)
    gains = scale.pick(
        smoke=(0.5, 1.0, 2.0),
        desk=(0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.41, 1.6, 2.0, 2.5, 3.0),
        paper=tuple(round(0.5 + 0.05 * number, 2) for number in range(51)),
    )
    base = Run(
        task=TemporalOrder(length=scale.pick(smoke=12, desk=100, paper=500)),
        cell=Elman(width=width),
        training=Training(steps=1, batch=4, check_every=1, validation_sequences=4, test_sequences=4),
        probes=(GradientThroughTime(), RecurrentSpectrum(every=StartAndEnd())),
    )
    all_runs = []
    for cell, bias in (
        (Elman(width=width), None),
        (Elman(width=width, activation="relu"), None),
        (LSTM(width=width), 1),
    ):
        gate_bias = None if bias is None else ForgetBias(value=bias)
        initialisations = [Orthogonal(gain=gain, gate_bias=gate_bias) for gain in gains]
        seeds = range(scale.pick(smoke=2, desk=10, paper=20))
        all_runs += grid(base.replace(cell=cell), {"initialisation": initialisations}, seeds=seeds)
    return all_runs
