"""Memory needs a wide path: output recurrence is a bottleneck, and more layers do not extend memory.

Hypothesis: a vanilla RNN can feed back its hidden layer (Elman, W_hh) or its output, into the hidden layer (Jordan,
W_oh) or into the output itself (W_oo). With four outputs, the last two pass all memory through four numbers that the
loss also acts on: their gradient through time has at most four directions, and they should fail on lengths that the
Elman network solves. A second and a third layer add paths within a step, but none through time, and should not reach
further back.
"""

from rnnstudy.cells.elman import Elman
from rnnstudy.cells.initialisation import Orthogonal
from rnnstudy.cells.jordan import Jordan
from rnnstudy.cells.output_recurrent import OutputRecurrent
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.probes.singular_values import SingularValues
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.temporal_order import TemporalOrder


def runs(scale: Scale) -> list[Run]:
    width = scale.pick(smoke=6, desk=50, paper=50)
    training = Training(
        steps=scale.pick(smoke=10, desk=800, paper=10_000),
        check_every=scale.pick(smoke=5, desk=100, paper=100),
        validation_sequences=scale.pick(smoke=20, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=40, desk=10_000, paper=10_000),
    )
    base = Run(
        task=TemporalOrder(length=10),
        cell=Elman(width=width),
        initialisation=Orthogonal(),
        training=training,
        probes=(GradientThroughTime(every=StartAndEnd()), SingularValues()),
    )
    return grid(
        base,
        {
            "task.length": scale.pick(smoke=(10,), desk=(10, 20, 40), paper=(10, 20, 50, 100)),
            "cell": [Elman(width=width), Jordan(width=width), OutputRecurrent(width=width)],
            "layers": scale.pick(smoke=(1, 2), desk=(1, 2, 3), paper=(1, 2, 3)),
        },
        seeds=range(scale.pick(smoke=2, desk=10, paper=20)),
    )
