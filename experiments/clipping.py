"""Exploding gradients are rare spikes, and clipping the norm lets training continue after them.

Hypothesis: an IRNN (relu, W_hh = I, zero biases) on the adding problem, trained by plain gradient descent, is close to
exploding: most gradients are small, but at a few updates the gradient is larger by many powers of ten. Without
clipping, such an update moves the weights so far that the loss becomes infinite or NaN, or that nothing more is
learned; with the norm clipped at 1, the same spikes do no harm. The larger the learning rate, the earlier a run without
clipping diverges.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import Identity
from rnnstudy.optimisers.clipping import ClipNorm
from rnnstudy.optimisers.sgd import SGD
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.adding import Adding


def runs(scale: Scale) -> list[Run]:
    training = Training(
        steps=scale.pick(smoke=30, desk=1000, paper=100_000),
        batch=20,
        optimiser=SGD(),
        check_every=scale.pick(smoke=10, desk=100, paper=1000),
        validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
    )
    base = Run(
        task=Adding(length=scale.pick(smoke=20, desk=100, paper=200)),
        cell=Elman(width=scale.pick(smoke=6, desk=50, paper=100), activation="relu"),
        initialisation=Identity(),
        training=training,
        probes=(ParameterGradients(every=1), GradientThroughTime(every=scale.pick(smoke=10, desk=100, paper=1000))),
    )
    return grid(
        base,
        {
            "training.clip": [None, ClipNorm(threshold=1.0)],
            "training.learning_rate": scale.pick(
                smoke=(0.01, 0.1), desk=(0.003, 0.01, 0.03), paper=(0.001, 0.003, 0.01, 0.03)
            ),
        },
        seeds=range(scale.pick(smoke=2, desk=10, paper=20)),
    )
