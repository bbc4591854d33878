"""What a run will cost, roughly, before it starts: time on one CPU thread, and disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from rnnstudy.model import Model
from rnnstudy.population import Population
from rnnstudy.records import QUANTILES
from rnnstudy.run import Run

# Measured with the reference engine on one thread of a 2-core server; they give the order of magnitude.
SECONDS_PER_STATE_STEP = 70e-6
OPERATIONS_PER_SECOND = 2.0e10
SECONDS_TO_LOOK = 1e-3
"""For each time step and replica: reading the gradients before and after training, in float64."""
SECONDS_TO_KEEP = 0.2
"""For each run: its weights, readings and description go into the store."""


@dataclass(frozen=True)
class Cost:
    """Upper estimates: seconds on one CPU thread if no run stops early, and bytes in the store."""

    seconds: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)


def cost(population: Population) -> Cost:
    """What training `population` will cost, all replicas together."""
    run, training = population.runs[0], population.training
    steps = training.steps
    judged = training.validation_sequences * (steps // training.check_every) + training.test_sequences
    per_step = _parameters(run) * 2 * population.task.steps * len(population.runs)
    # A backward pass costs about twice a forward pass.
    operations = per_step * (3 * training.batch * steps + judged)
    loops = steps * population.task.steps * len(run.cell.states) * run.layers
    looks = 2 * population.task.steps * run.layers * len(population.runs) if run.probes else 0
    seconds = loops * SECONDS_PER_STATE_STEP + operations / OPERATIONS_PER_SECOND
    return Cost(
        seconds=seconds + looks * SECONDS_TO_LOOK + len(population.runs) * SECONDS_TO_KEEP,
        bytes=sum(_bytes(one) for one in population.runs),
    )


def total(populations: Sequence[Population]) -> Cost:
    return sum((cost(population) for population in populations), Cost(0.0, 0.0))


def _parameters(run: Run) -> int:
    model = Model.of(run.task, run.cell, run.layers)
    shapes = [one.shape for layer in range(run.layers) for one in model.layer_parameters(layer).values()]
    return sum(shape[0] * shape[-1] for shape in shapes if len(shape) == 2)


def _bytes(run: Run) -> float:
    curves = sum(probe.due(step) for probe in run.probes if probe.observes for step in range(run.training.steps))
    profile = run.task.steps * len(QUANTILES) * len(run.cell.states) * run.layers
    # Arrays compress to about two thirds; MLflow keeps at most 200 points of some ten curves at 244 bytes each.
    return 0.65 * 4 * (curves * profile + 10 * run.training.steps + _parameters(run)) + 10 * 200 * 244
