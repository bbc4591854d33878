"""How many replicas a device holds: an estimate of what training a run keeps in memory, and the room there is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.run import Run
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population

SHARE_OF_CPU, SHARE_OF_CUDA = 0.5, 0.8
"""Of the free memory: on a CPU other programs want some too."""

MOST_ON_CPU, MOST_ON_CUDA = 64, 2048
"""Replicas in a population, however small: those that have stopped are carried along until the last one stops."""

SHARED_BYTES = 700e6
"""Whatever the number of replicas: evaluation's parts, arrays kept to be used again, torch itself."""

COPIES_OF_PARAMETERS = 8
"""Value, gradient, clipped gradient, update, two moments of the optimiser, and two side by side."""

COPIES_OF_STATES = 5
"""Of each state and gate at each step: what the reference engine keeps in float32; the compiled one keeps fewer."""


MOST_NUMBERS_LOOKED_AT = 2**24
"""Bound on the states and gates of a side batch, held in float64: memory, not results, depends on it."""

COPIES_OF_LOOKED_AT = 4
"""Of each of those numbers, in the scaled engine: itself, its gradient, and what each step's graph keeps."""


def bytes_per_replica(run: Run) -> float:
    """What each replica of such a run takes: parameters, states kept for the backward pass, data and readings."""
    model, task, training = Model.of(run.task, run.cell, run.layers), run.task, run.training
    parameters = [one for layer in range(run.layers) for one in model.layer_parameters(layer).values()]
    numbers = sum(math.prod(one.shape) for one in [*parameters, *model.readout_parameters.values()])
    states = _states_and_gates(run)
    steps = task.steps * training.batch
    # An input number takes 4 bytes; a step's target, mask and mark 10. Drawn ahead, and once more for each replica.
    of_data = 4 * task.features + 10
    drawn = 64 * steps * min(1.0, 2**24 / (64 * steps * task.features))
    data = of_data * (drawn + 2 * steps + training.validation_sequences * task.steps)
    curves = sum(probe.due(step) for probe in run.probes if probe.observes for step in range(training.steps))
    profile = task.steps * len(QUANTILES) * len(run.cell.states) * run.layers
    # Once in the history and once more in the last record.
    readings = 2 * 4 * (curves * profile + 10 * training.steps)
    return 4 * (COPIES_OF_PARAMETERS * numbers + COPIES_OF_STATES * steps * states) + data + readings


def replicas_that_fit(run: Run, room: float) -> int:
    """The largest population of such runs in `room` bytes; at least one."""
    # Shared bytes have room for a part of `MOST_NUMBERS_LOOKED_AT`; a single long run may need more.
    beyond = max(0, _numbers_looked_at(run) - MOST_NUMBERS_LOOKED_AT)
    shared = SHARED_BYTES + 8 * COPIES_OF_LOOKED_AT * beyond
    return max(1, int(max(room - shared, room / 4) / bytes_per_replica(run)))


def replicas_looked_at_together(run: Run, device: torch.device) -> int:
    """In how large parts a population of such runs is read by its probes before and after training."""
    # On a GPU small parts would be slow, and the share that is left free has room for larger ones.
    most = 4 * MOST_NUMBERS_LOOKED_AT if device.type == "cuda" else MOST_NUMBERS_LOOKED_AT
    return max(1, most // max(1, _numbers_looked_at(run)))


def _numbers_looked_at(run: Run) -> int:
    """States and gates, of all layers, on the side batch of the probe that asks for most sequences."""
    sequences = max((getattr(probe, "sequences", 0) for probe in run.probes), default=0)
    return run.task.steps * sequences * _states_and_gates(run)


def _states_and_gates(run: Run) -> int:
    """Numbers that a step of one sequence makes, in all layers."""
    blocks = (len(one.blocks) for one in run.cell.parameters(1, 1).values() if one.role == "recurrent")
    return run.layers * (len(run.cell.states) + max(blocks, default=1)) * run.cell.width


def population_bounds(device: torch.device, workers: int = 1) -> tuple[int, float]:
    """Most replicas in a population, and the bytes that each of so many workers may fill with it."""
    if device.type == "cuda":
        return MOST_ON_CUDA, SHARE_OF_CUDA * torch.cuda.mem_get_info(device)[0] / workers
    import psutil

    return MOST_ON_CPU, SHARE_OF_CPU * psutil.virtual_memory().available / workers


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


def total_cost(populations: Sequence[Population]) -> Cost:
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
