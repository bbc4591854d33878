"""Which network learns a lag better? The window of learnability before training, against what is learned.

Livi 2025 derives for a recurrence the sequences N(ℓ) from which the gradient of lag ℓ can be told from its noise, and
the window H_N, the longest lag with N(ℓ) ≤ N. N grows as the envelope f(ℓ) of the effective learning rates, products
of gates over ℓ steps, falls; heavy tails make it grow faster, with the exponent κ = α/(α − 1). The published code reads
both from trained networks. Read before training, do they predict?

Hypothesis: (1) Before training, N(ℓ) orders the sides by how well they learn lag ℓ: the smaller it is, the better. (2)
The envelope f(ℓ) orders them worse than N(ℓ): it leaves out what passes between units, and so is next to zero for a
plain RNN at every lag, which nevertheless learns lag 4. (3) The tails are not heavy in the sense of the theory: α by
quantiles is below 2, yet means over sequences concentrate as a square root, nearer to n^(−1/2) than to n^(−(1 − 1/α)).

The rule. What is learned of lag ℓ is 1 − (1 − g)², with g the mean gain of the lag on the test sequences: the share of
its variance that the output explains. For each seed and each lag of the task, the rank correlation over the sides
between what is learned and −log N(ℓ), or log f(ℓ), before training; then its mean over the lags. An absent N is the
largest, an absent f the smallest. The unit is a seed; the interval is that of the mean over seeds by bootstrap, 95 %.
(1) holds when the interval for N lies above 0.5, and is refuted when it lies below 0.5. (2) holds when the interval of
the difference, N minus f paired by seed, lies above 0, and is refuted when it lies below. That the RNN learns lag 4
means that it explains at least half of it in every run, with f(4) below 1/1000 in every run; one part without the other
is neither. (3) holds when the interval of |c − (1 − 1/α)| − |c − 1/2| lies above 0, with c the measured exponent, all
three means over sides and the task's lags before training; it is refuted when it lies below 0. Everything else is
cannot tell.

All lags have the same coefficient, so that they differ in nothing but the lag (published: 0.6 down to 0.26). No lag is
longer than the width: who answers lag ℓ at every step holds ℓ numbers, whatever its gates. Every side has the same
sequences, width, updates, Adam at one rate, and clipping at norm 1; nothing was tuned. The chrono biases are told the
longest lag; the same cell without them stands beside. The two higher rates were added when the results at the first one
had been read, to see whether the order of the sides is that of the rate; the rule speaks of the first one.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import Chrono, ForgetBias, Orthogonal, Published, PyTorchDefault
from rnnstudy.cells.lru import LRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.cells.min_gru import MinGRU
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.learnability_window import LearnabilityWindow
from rnnstudy.probes.learning_rate_envelope import LearningRateEnvelope
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.multi_lag_regression import MultiLagRegression

RATES = (3e-3, 1e-2, 3e-2)
"""The first is that of the rule."""


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=4, desk=32, paper=256)
    lags = scale.pick(smoke=(1, 3), desk=(2, 4, 8, 16, 24), paper=(32, 64, 128, 192, 256))
    task = MultiLagRegression(
        length=scale.pick(smoke=10, desk=64, paper=1024),
        channels=scale.pick(smoke=2, desk=4, paper=16),
        lags=lags,
        coefficients=(0.5,) * len(lags),
    )
    read = scale.pick(
        smoke=(1, 2, 3, 6),
        desk=(1, 2, 3, 4, 6, 8, 11, 16, 20, 24, 32, 40),
        paper=(1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384),
    )
    probes = (
        LearningRateEnvelope(lags=read, sequences=scale.pick(smoke=4, desk=16, paper=16)),
        LearnabilityWindow(lags=read, sequences=scale.pick(smoke=128, desk=256, paper=2048)),
        GradientThroughTime(every=StartAndEnd()),
    )
    training = Training(
        steps=scale.pick(smoke=10, desk=600, paper=12_000),
        batch=scale.pick(smoke=8, desk=32, paper=128),
        check_every=scale.pick(smoke=5, desk=200, paper=1000),
        stop_when_solved=False,
        validation_sequences=scale.pick(smoke=20, desk=200, paper=1000),
        test_sequences=scale.pick(smoke=40, desk=2000, paper=4000),
    )
    one = ForgetBias(value=1.0)
    sides = [
        (Elman(width=width), Orthogonal()),
        (GRU(width=width), PyTorchDefault()),
        (LSTM(width=width), PyTorchDefault()),
        (LSTM(width=width), PyTorchDefault(gate_bias=one)),
        (LSTM(width=width), PyTorchDefault(gate_bias=Chrono(longest=max(lags)))),
        (MinGRU(width=width), Published()),
        (LRU(width=width), Published()),
    ]
    base = Run(task=task, cell=Elman(width=width), training=training, probes=probes)
    rates = RATES[:1] if scale is Scale.SMOKE else RATES
    return grid(
        base,
        {("cell", "initialisation"): sides, "training.learning_rate": rates},
        seeds=range(scale.pick(smoke=2, desk=10, paper=10)),
    )
