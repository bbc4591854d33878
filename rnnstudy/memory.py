"""How many replicas a device holds: an estimate of what training a run keeps in memory, and the room there is."""

import math

import torch

from rnnstudy.model import Model
from rnnstudy.records import QUANTILES
from rnnstudy.run import Run

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


def bytes_of(run: Run) -> float:
    """What each replica of such a run takes: parameters, states kept for the backward pass, data and readings."""
    model, task, training = Model.of(run.task, run.cell, run.layers), run.task, run.training
    parameters = [one for layer in range(run.layers) for one in model.layer_parameters(layer).values()]
    numbers = sum(math.prod(one.shape) for one in [*parameters, *model.readout_parameters.values()])
    gates = max((len(one.blocks) for one in parameters if one.role == "recurrent"), default=1)
    states = run.layers * (len(run.cell.states) + gates) * run.cell.width
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
    return max(1, int(max(room - SHARED_BYTES, room / 4) / bytes_of(run)))


def bounds(device: torch.device, workers: int = 1) -> tuple[int, float]:
    """Most replicas in a population, and the bytes that each of so many workers may fill with it."""
    if device.type == "cuda":
        return MOST_ON_CUDA, SHARE_OF_CUDA * torch.cuda.mem_get_info(device)[0] / workers
    import psutil

    return MOST_ON_CPU, SHARE_OF_CPU * psutil.virtual_memory().available / workers
