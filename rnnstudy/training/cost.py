"""Estimates before training: how many replicas fit into a device's memory, and what a population costs."""

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rnnstudy.engines.choice import Load
from rnnstudy.errors import RequestError
from rnnstudy.probes.probe import Probe
from rnnstudy.probes.reading import QUANTILES
from rnnstudy.run import Run
from rnnstudy.training.batches import BLOCK, MOST_NUMBERS_DRAWN
from rnnstudy.training.population import Population

SHARE_OF_CPU, SHARE_OF_CUDA = 0.5, 0.8
"""Share of the free memory that training may use: on a CPU other programs want some too."""

MOST_ON_CPU, MOST_ON_CUDA = 64, 2048
"""Replicas in a population, however small: those that have stopped still take part until the last one stops."""

SHARED_BYTES = 700e6
"""Used whatever the number of replicas: batches of the evaluation, reused buffers, torch itself."""

COPIES_OF_PARAMETERS = 8
"""Value, gradient, clipped gradient, update, two moments of the optimiser, and two side by side."""

COPIES_OF_STATES = 5
"""Of each state and gate at each step: what the reference engine keeps in float32; the compiled one keeps fewer."""

MOST_NUMBERS_PROBED = 2**24
"""Bound on the states and gates of a side batch, in float64. Memory, not results, depends on it."""

MOST_NUMBERS_OF_JACOBIANS = 2**26
"""Bound on the numbers that a probe of Jacobians holds at once, unless those of one replica are more."""

COPIES_OF_JACOBIANS = 18
"""Of each number of a step's Jacobians, in float64: the rows that they are read from, and products of them. Measured
with a matrix LSTM of 625 numbers: 13 for Lyapunov exponents, 16 for singular values."""

COPIES_OF_PROBED = 4
"""Of each of those numbers, in the scaled engine: itself, its gradient, and what each step's graph keeps."""

# Measured with the reference engine on one thread of a 2-core server: right in the order of magnitude.
SECONDS_PER_STATE_STEP = 70e-6
OPERATIONS_PER_SECOND = 2.0e10
SECONDS_PER_PROBED_STEP = 1e-3
"""For each time step and replica: reading the gradients before and after training, in float64."""
MOST_STEPS_ASKED = 10_000
"""At so many steps of a long run a probe is asked whether it is due; the number of its readings follows from those."""

OUT_OF_REACH = 500
"""A run that needs so many times the memory there is will not train, however rough the estimate is."""

SECONDS_PER_STORED_RUN = 0.2
"""Writing a run's weights, readings and documents into the store."""

POINTS_PER_CURVE, BYTES_PER_POINT = 100, 300
"""What a store's database keeps of a curve at most, its indices included (measured: 297 bytes a point)."""

BYTES_PER_RUN = 80_000
"""The rest: documents, parameters, tags, the beginnings of files."""


def population_bounds(device: torch.device, workers: int = 1) -> tuple[int, float]:
    """Most replicas in a population, and the bytes of memory that each of `workers` processes may use for one."""
    if device.type == "cuda":
        return MOST_ON_CUDA, SHARE_OF_CUDA * torch.cuda.mem_get_info(device)[0] / workers
    import psutil

    return MOST_ON_CPU, SHARE_OF_CPU * psutil.virtual_memory().available / workers


def replicas_that_fit(run: Run, room: float) -> int:
    """The largest population of such runs in `room` bytes; at least one.

    Raises `RequestError` for a run that is far too large for this machine, or one of whose probes is.
    """
    require_room_for_jacobians(run, run.probes, lambda: room)
    needed = bytes_per_replica(run)
    if needed > OUT_OF_REACH * max(room, SHARED_BYTES):
        raise RequestError(
            f"{run.name} would need about {needed / 1e9:.3g} GB of memory, and there are {room / 1e9:.3g} GB for it; "
            "a smaller batch, width, length or number of layers would fit"
        )
    # `SHARED_BYTES` includes a side batch of `MOST_NUMBERS_PROBED`; a single long run may need more.
    beyond = max(0, _numbers_probed(run) - MOST_NUMBERS_PROBED)
    shared = SHARED_BYTES + 8 * COPIES_OF_PROBED * beyond
    return max(1, int(max(room - shared, room / 4) / needed))


def require_room_for_jacobians(run: Run, probes: Sequence[Probe], room: Callable[[], float]) -> None:
    """Raises `RequestError` when a probe needs Jacobians of such a run's states that `room()` bytes do not hold.

    `SHARED_BYTES` always count as available, so that the memory of the machine is asked for large Jacobians alone.
    """
    size = _joint_state(run)
    for probe in probes:
        needed = 8 * _numbers_in_jacobians(run, probe)
        if needed > SHARED_BYTES and needed > (available := room()):
            raise RequestError(
                f"{type(probe).__name__} of {run.cell!r} needs Jacobians of {size} × {size} numbers, about "
                f"{needed / 1e9:.3g} GB, and there are {available / 1e9:.3g} GB for it; a smaller width or fewer "
                "sequences would fit, or leave the probe out"
            )


def _joint_state(run: Run) -> int:
    """Units of all states of a layer side by side."""
    return sum(run.cell.state_width(state, run.task.outputs) for state in run.cell.states)


def _numbers_in_jacobians(run: Run, probe: Probe) -> int:
    """Numbers that a probe of one replica holds at once to read the Jacobians of a step."""
    sequences: int = getattr(probe, "sequences", 1)
    return COPIES_OF_JACOBIANS * sequences * _joint_state(run) ** 2 if probe.needs_jacobians else 0


def replicas_probed_together(run: Run, device: torch.device) -> int:
    """How many replicas of a population of such runs the probes read at once before and after training."""
    # On a GPU small parts would be slow, and the share of memory that is left free has room for larger ones.
    most = 4 * MOST_NUMBERS_PROBED if device.type == "cuda" else MOST_NUMBERS_PROBED
    jacobians = max((_numbers_in_jacobians(run, probe) for probe in run.probes), default=0)
    return max(1, min(most // max(1, _numbers_probed(run)), MOST_NUMBERS_OF_JACOBIANS // max(1, jacobians)))


def bytes_per_replica(run: Run) -> float:
    """Memory of one replica of such a run: parameters, states kept for the backward pass, data and readings."""
    task, training = run.task, run.training
    numbers = sum(math.prod(shape) for shape in _parameter_shapes(run, readout=True))
    steps = task.steps * training.batch
    # An input number or symbol takes 4 bytes; a step's target, mask and mark 10. Drawn ahead, and once more for each
    # replica.
    bytes_per_step = 4 * (1 if task.inputs_are_symbols else task.features) + 10
    drawn = BLOCK * steps * min(1.0, MOST_NUMBERS_DRAWN / (BLOCK * steps * task.features))
    data = bytes_per_step * (drawn + 2 * steps + training.validation_sequences * task.steps)
    # Once in the history and once more in the last record.
    readings = 2 * 4 * _numbers_read(run)
    return 4 * (COPIES_OF_PARAMETERS * numbers + COPIES_OF_STATES * steps * _states_and_gates(run)) + data + readings


@dataclass(frozen=True)
class Cost:
    """Upper estimates: seconds on one CPU thread if no run stops early, and bytes in the store."""

    seconds: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)


def seconds_of_updates(run: Run, replicas: int = 1) -> float:
    """What all updates and tests of so many runs like `run` take the reference engine on one CPU thread, together."""
    training, steps = run.training, run.training.steps
    evaluated = training.validation_sequences * (steps // training.check_every) + training.test_sequences
    per_step = _multiplied(run) * 2 * run.task.steps * replicas
    # A backward pass costs about twice a forward pass.
    operations = per_step * (3 * training.batch * steps + evaluated)
    loops = steps * run.task.steps * len(run.cell.states) * _recurrences(run)
    return loops * SECONDS_PER_STATE_STEP + operations / OPERATIONS_PER_SECOND


def load_of(run: Run) -> Load:
    """By what `auto` chooses the engine of such a run."""
    numbers = run.task.steps * run.training.batch * _joint_state(run) * _recurrences(run)
    return Load(seconds_of_updates(run), numbers)


def cost(population: Population) -> Cost:
    """What it costs to train `population`, all replicas together."""
    run, replicas = population.runs[0], len(population.runs)
    probed = 2 * population.task.steps * _recurrences(run) * replicas if run.probes else 0
    seconds = seconds_of_updates(run, replicas)
    return Cost(
        seconds=seconds + probed * SECONDS_PER_PROBED_STEP + replicas * SECONDS_PER_STORED_RUN,
        bytes=sum(_bytes_stored(run) for run in population.runs),
    )


def _bytes_stored(run: Run) -> float:
    """Upper estimate of what the store keeps of a run: its array files, and points of its curves in MLflow's database.

    With each reading are kept the shares of its missing values, its training steps and its description.
    """
    curves = len(_parameter_shapes(run, readout=True)) + 3 + 6 * len(run.cell.states) * _recurrences(run)
    points = (curves if run.probes else 3) * min(POINTS_PER_CURVE, max(run.training.steps, run.task.steps))
    return 4 * (1.75 * _numbers_read(run) + 1.25 * _weights(run)) + BYTES_PER_POINT * points + BYTES_PER_RUN


def _parameter_shapes(run: Run, readout: bool) -> list[tuple[int, ...]]:
    """The shapes of one replica's parameters, with or without those of the model's readout."""
    model = Population((run,)).model
    groups = [model.embedding_parameters]
    groups += [model.layer_parameters(layer) for layer in range(run.layers) for _ in model.directions]
    groups += [model.stream_parameters, *map(model.block_parameters, range(run.layers))]
    groups += [model.readout_parameters] if readout else []
    return [parameter.shape for group in groups for parameter in group.values()]


def _recurrences(run: Run) -> int:
    """Cells in all layers and directions."""
    return run.layers * (2 if run.bidirectional else 1)


def _weights(run: Run) -> int:
    """Numbers in the weight matrices of all layers."""
    return sum(shape[0] * shape[-1] for shape in _parameter_shapes(run, readout=False) if len(shape) == 2)


def _multiplied(run: Run) -> int:
    """Numbers of those matrices that a step multiplies by: of a matrix that reads symbols, one row."""
    if not run.task.inputs_are_symbols:
        return _weights(run)
    model = Population((run,)).model
    single = model.embedding_parameters or model.stream_parameters
    lowest = list(single.values()) or [*model.layer_parameters(0).values()] * len(model.directions)
    reading = [one for one in lowest if one.role in ("embedding", "input") and one.shape[0] == model.features]
    return _weights(run) - (model.features - 1) * sum(one.shape[-1] for one in reading)


def _states_and_gates(run: Run) -> int:
    """Numbers that a step of one sequence computes, in all layers."""
    parameters = run.cell.parameters(1, 1).values()
    gates = max((len(parameter.blocks) for parameter in parameters if parameter.role == "recurrent"), default=1)
    states = sum(run.cell.state_width(state, run.task.outputs) for state in run.cell.states if state != "o")
    # Around a recurrence: the stream, normalised and mixed.
    block = 0 if run.block is None else (4 + run.block.expansion) * run.cell.width
    return _recurrences(run) * (states + gates * run.cell.width + block)


def _numbers_probed(run: Run) -> int:
    """States and gates, of all layers, on the side batch of the probe that asks for most sequences."""
    sequences = max((getattr(probe, "sequences", 0) for probe in run.probes), default=0)
    return run.task.steps * sequences * _states_and_gates(run)


def _numbers_read(run: Run) -> int:
    """Numbers in the readings that one run makes in training."""
    curves = sum(_times_due(probe, run.training.steps) for probe in run.probes if probe.observes)
    profile = run.task.steps * len(QUANTILES) * len(run.cell.states) * _recurrences(run)
    return curves * profile + 10 * run.training.steps


@functools.lru_cache(maxsize=256)
def _times_due(probe: Probe, updates: int) -> int:
    """How often a probe reads in so many updates, of which many more than `MOST_STEPS_ASKED` are sampled."""
    steps, weight = range(updates), 1.0
    if updates > MOST_STEPS_ASKED:
        steps, weight = random.Random(0).sample(steps, MOST_STEPS_ASKED), updates / MOST_STEPS_ASKED
    return math.ceil(weight * sum(probe.due(step) for step in steps))
