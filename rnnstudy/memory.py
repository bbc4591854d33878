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


MOST_NUMBERS_LOOKED_AT = 2**24
"""Bound on the states and gates of a side batch, held in float64: memory, not results, depends on it."""

COPIES_OF_LOOKED_AT = 4
"""Of each of those numbers, in the scaled engine: itself, its gradient, and what each step's graph keeps."""


def bytes_of(run: Run) -> float:
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
    return max(1, int(max(room - shared, room / 4) / bytes_of(run)))


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


def bounds(device: torch.device, workers: int = 1) -> tuple[int, float]:
    """Most replicas in a population, and the bytes that each of so many workers may fill with it."""
    if device.type == "cuda":
        return MOST_ON_CUDA, SHARE_OF_CUDA * torch.cuda.mem_get_info(device)[0] / workers
    import psutil

    return MOST_ON_CPU, SHARE_OF_CPU * psutil.virtual_memory().available / workers
