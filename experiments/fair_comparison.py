"""At equal width, parameters and tuning: is it the gate that decides, or what the forget gate is given at the start?

Hypothesis: (1) an LSTM or GRU with biases as PyTorch draws them fails at the lengths at which the vanilla RNN fails;
with forget bias 1, which knows nothing of the length, both solve them; a chrono bias, which knows it, adds little.
(2) This holds for temporal order, adding, copy memory and sequential digits alike. (3) An orthogonal or identity start
helps the vanilla RNN, and more parameters do not.

Every side has the same width (32), sequences, optimiser (Adam), clipping (norm 1) and budget; two more sides, *wide*,
have as many parameters as the LSTM. Each side has a grid of five (vanilla) or seven (gated) learning rates. The rate is
chosen, for each side, task and length, on the selection seeds; what is reported comes from other seeds, at that rate.

The rates in `CHOSEN` were chosen by `rnnstudy.results.selection.selection_table` from the selection runs of this file
at scale desk; a test chooses them again from the committed data.
"""

import functools

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import Chrono, ForgetBias, Identity, Initialisation, Orthogonal, PyTorchDefault
from rnnstudy.cells.lstm import LSTM
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.adding import Adding
from rnnstudy.tasks.copy_memory import CopyMemory
from rnnstudy.tasks.sequential_digits import SequentialDigits
from rnnstudy.tasks.task import Task
from rnnstudy.tasks.temporal_order import TemporalOrder

SELECTION_SEEDS = {Scale.SMOKE: range(1), Scale.DESK: range(5), Scale.PAPER: range(10)}
REPORT_SEEDS = {Scale.SMOKE: range(10, 11), Scale.DESK: range(10, 30), Scale.PAPER: range(10, 30)}

VANILLA_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
GATED_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""So wide because runs with four rates chose rates at their edges."""

CHOSEN: dict[tuple[str, int, str], float] = {
    ("TemporalOrder", 50, "RNN, as drawn"): 0.003,
    ("TemporalOrder", 50, "RNN, identity"): 0.001,
    ("TemporalOrder", 50, "RNN, orthogonal"): 0.003,
    ("TemporalOrder", 50, "RNN, orthogonal, wide"): 0.001,
    ("TemporalOrder", 50, "GRU, as drawn"): 0.1,
    ("TemporalOrder", 50, "GRU, forget bias 1"): 0.03,
    ("TemporalOrder", 50, "GRU, forget bias 1, wide"): 0.03,
    ("TemporalOrder", 50, "GRU, chrono"): 0.1,
    ("TemporalOrder", 50, "LSTM, as drawn"): 0.001,
    ("TemporalOrder", 50, "LSTM, forget bias 1"): 0.003,
    ("TemporalOrder", 50, "LSTM, chrono"): 0.1,
    ("TemporalOrder", 100, "RNN, as drawn"): 0.01,
    ("TemporalOrder", 100, "RNN, identity"): 0.001,
    ("TemporalOrder", 100, "RNN, orthogonal"): 0.001,
    ("TemporalOrder", 100, "RNN, orthogonal, wide"): 0.0003,
    ("TemporalOrder", 100, "GRU, as drawn"): 0.1,
    ("TemporalOrder", 100, "GRU, forget bias 1"): 0.1,
    ("TemporalOrder", 100, "GRU, forget bias 1, wide"): 0.1,
    ("TemporalOrder", 100, "GRU, chrono"): 0.03,
    ("TemporalOrder", 100, "LSTM, as drawn"): 0.1,
    ("TemporalOrder", 100, "LSTM, forget bias 1"): 0.001,
    ("TemporalOrder", 100, "LSTM, chrono"): 0.1,
    ("TemporalOrder", 200, "RNN, as drawn"): 0.001,
    ("TemporalOrder", 200, "RNN, identity"): 0.0003,
    ("TemporalOrder", 200, "RNN, orthogonal"): 0.0003,
    ("TemporalOrder", 200, "RNN, orthogonal, wide"): 0.003,
    ("TemporalOrder", 200, "GRU, as drawn"): 0.1,
    ("TemporalOrder", 200, "GRU, forget bias 1"): 0.1,
    ("TemporalOrder", 200, "GRU, forget bias 1, wide"): 0.03,
    ("TemporalOrder", 200, "GRU, chrono"): 0.1,
    ("TemporalOrder", 200, "LSTM, as drawn"): 0.0003,
    ("TemporalOrder", 200, "LSTM, forget bias 1"): 0.3,
    ("TemporalOrder", 200, "LSTM, chrono"): 0.1,
    ("Adding", 50, "RNN, as drawn"): 0.0003,
    ("Adding", 50, "RNN, identity"): 0.0001,
    ("Adding", 50, "RNN, orthogonal"): 0.001,
    ("Adding", 50, "RNN, orthogonal, wide"): 0.0001,
    ("Adding", 50, "GRU, as drawn"): 0.03,
    ("Adding", 50, "GRU, forget bias 1"): 0.1,
    ("Adding", 50, "GRU, forget bias 1, wide"): 0.03,
    ("Adding", 50, "GRU, chrono"): 0.1,
    ("Adding", 50, "LSTM, as drawn"): 0.1,
    ("Adding", 50, "LSTM, forget bias 1"): 0.03,
    ("Adding", 50, "LSTM, chrono"): 0.1,
    ("Adding", 100, "RNN, as drawn"): 0.0003,
    ("Adding", 100, "RNN, identity"): 0.0001,
    ("Adding", 100, "RNN, orthogonal"): 0.0003,
    ("Adding", 100, "RNN, orthogonal, wide"): 0.0001,
    ("Adding", 100, "GRU, as drawn"): 0.1,
    ("Adding", 100, "GRU, forget bias 1"): 0.03,
    ("Adding", 100, "GRU, forget bias 1, wide"): 0.03,
    ("Adding", 100, "GRU, chrono"): 0.03,
    ("Adding", 100, "LSTM, as drawn"): 0.1,
    ("Adding", 100, "LSTM, forget bias 1"): 0.1,
    ("Adding", 100, "LSTM, chrono"): 0.1,
    ("Adding", 200, "RNN, as drawn"): 0.0001,
    ("Adding", 200, "RNN, identity"): 0.0001,
    ("Adding", 200, "RNN, orthogonal"): 0.01,
    ("Adding", 200, "RNN, orthogonal, wide"): 0.0001,
    ("Adding", 200, "GRU, as drawn"): 0.1,
    ("Adding", 200, "GRU, forget bias 1"): 0.03,
    ("Adding", 200, "GRU, forget bias 1, wide"): 0.03,
    ("Adding", 200, "GRU, chrono"): 0.1,
    ("Adding", 200, "LSTM, as drawn"): 0.1,
    ("Adding", 200, "LSTM, forget bias 1"): 0.1,
    ("Adding", 200, "LSTM, chrono"): 0.1,
    ("CopyMemory", 10, "RNN, as drawn"): 0.0003,
    ("CopyMemory", 10, "RNN, identity"): 0.01,
    ("CopyMemory", 10, "RNN, orthogonal"): 0.01,
    ("CopyMemory", 10, "RNN, orthogonal, wide"): 0.001,
    ("CopyMemory", 10, "GRU, as drawn"): 0.03,
    ("CopyMemory", 10, "GRU, forget bias 1"): 0.03,
    ("CopyMemory", 10, "GRU, forget bias 1, wide"): 0.03,
    ("CopyMemory", 10, "GRU, chrono"): 0.03,
    ("CopyMemory", 10, "LSTM, as drawn"): 0.03,
    ("CopyMemory", 10, "LSTM, forget bias 1"): 0.01,
    ("CopyMemory", 10, "LSTM, chrono"): 0.03,
    ("CopyMemory", 30, "RNN, as drawn"): 0.01,
    ("CopyMemory", 30, "RNN, identity"): 0.003,
    ("CopyMemory", 30, "RNN, orthogonal"): 0.003,
    ("CopyMemory", 30, "RNN, orthogonal, wide"): 0.001,
    ("CopyMemory", 30, "GRU, as drawn"): 0.03,
    ("CopyMemory", 30, "GRU, forget bias 1"): 0.03,
    ("CopyMemory", 30, "GRU, forget bias 1, wide"): 0.03,
    ("CopyMemory", 30, "GRU, chrono"): 0.03,
    ("CopyMemory", 30, "LSTM, as drawn"): 0.003,
    ("CopyMemory", 30, "LSTM, forget bias 1"): 0.03,
    ("CopyMemory", 30, "LSTM, chrono"): 0.03,
    ("SequentialDigits", 64, "RNN, as drawn"): 0.003,
    ("SequentialDigits", 64, "RNN, identity"): 0.003,
    ("SequentialDigits", 64, "RNN, orthogonal"): 0.001,
    ("SequentialDigits", 64, "RNN, orthogonal, wide"): 0.001,
    ("SequentialDigits", 64, "GRU, as drawn"): 0.01,
    ("SequentialDigits", 64, "GRU, forget bias 1"): 0.01,
    ("SequentialDigits", 64, "GRU, forget bias 1, wide"): 0.03,
    ("SequentialDigits", 64, "GRU, chrono"): 0.03,
    ("SequentialDigits", 64, "LSTM, as drawn"): 0.01,
    ("SequentialDigits", 64, "LSTM, forget bias 1"): 0.03,
    ("SequentialDigits", 64, "LSTM, chrono"): 0.03,
}
"""Task, length and side to learning rate, at scale desk."""


def tasks(scale: Scale) -> list[Task]:
    marked = scale.pick(smoke=(10,), desk=(50, 100, 200), paper=(50, 100, 200, 400))
    copied = scale.pick(smoke=(), desk=(10, 30), paper=(30, 100, 300))
    read = scale.pick(smoke=(), desk=(64,), paper=(64, 128, 256))
    return [
        *(TemporalOrder(length=length) for length in marked),
        *(Adding(length=length) for length in marked),
        *(CopyMemory(length=length) for length in copied),
        *(SequentialDigits(length=length) for length in read),
    ]


def sides(task: Task, width: int) -> dict[str, tuple[Cell, Initialisation]]:
    """Name to cell and initialisation. The matrices of gated cells are as PyTorch draws them; only biases differ."""
    as_large = parameters(LSTM(width=width), task)
    lstm, gru, elman = LSTM(width=width), GRU(width=width), Elman(width=width)
    wide_elman = with_parameters(elman, as_large, task)
    wide_gru = with_parameters(gru, as_large, task)
    forget, chrono = ForgetBias(value=1.0), Chrono(longest=task.steps)
    return {
        "RNN, as drawn": (elman, PyTorchDefault()),
        "RNN, identity": (elman, Identity()),
        "RNN, orthogonal": (elman, Orthogonal()),
        "RNN, orthogonal, wide": (wide_elman, Orthogonal()),
        "GRU, as drawn": (gru, PyTorchDefault()),
        "GRU, forget bias 1": (gru, PyTorchDefault(gate_bias=forget)),
        "GRU, forget bias 1, wide": (wide_gru, PyTorchDefault(gate_bias=forget)),
        "GRU, chrono": (gru, PyTorchDefault(gate_bias=chrono)),
        "LSTM, as drawn": (lstm, PyTorchDefault()),
        "LSTM, forget bias 1": (lstm, PyTorchDefault(gate_bias=forget)),
        "LSTM, chrono": (lstm, PyTorchDefault(gate_bias=chrono)),
    }


def rates(side: str, scale: Scale) -> tuple[float, ...]:
    grid_of_side = VANILLA_RATES if side.startswith("RNN") else GATED_RATES
    return grid_of_side[1:3] if scale is Scale.SMOKE else grid_of_side


def parameters(cell: Cell, task: Task) -> int:
    """Number of recurrent parameters, the readout's left out."""
    shapes = (parameter.shape for parameter in cell.parameters(task.features, task.outputs).values())
    return sum(shape[0] * shape[-1] if len(shape) > 1 else shape[0] for shape in shapes)


def with_parameters(cell: Cell, count: int, task: Task) -> Cell:
    """The cell at the width at which its number of parameters is nearest to `count`."""
    widths = (cell.replace(width=width) for width in range(1, 4 * cell.width))
    return min(widths, key=lambda wider: abs(parameters(wider, task) - count))


def runs(scale: Scale) -> list[Run]:
    return [run for of_side in runs_by_side(scale).values() for run in of_side]


def side_of_keys(scale: Scale) -> dict[str, str]:
    """Key of a run to the name of its side."""
    return {run.key: side for (_, _, side), of_side in runs_by_side(scale).items() for run in of_side}


@functools.cache
def runs_by_side(scale: Scale) -> dict[tuple[str, int, str], list[Run]]:
    """Task, length and side to the runs of selection, followed by those that are reported."""
    training = Training(
        steps=scale.pick(smoke=20, desk=3000, paper=20_000),
        check_every=scale.pick(smoke=10, desk=100, paper=100),
        validation_sequences=scale.pick(smoke=50, desk=1000, paper=1000),
        test_sequences=scale.pick(smoke=100, desk=10_000, paper=10_000),
    )
    probes = (ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=5, desk=100, paper=500)))
    width = scale.pick(smoke=4, desk=32, paper=128)
    by_side = {}
    for task in tasks(scale):
        for side, (cell, initialisation) in sides(task, width).items():
            base = Run(task=task, cell=cell, initialisation=initialisation, training=training, probes=probes)
            setting = (type(task).__name__, task.length, side)
            reported = rates(side, scale) if scale is not Scale.DESK else [CHOSEN[setting]] if setting in CHOSEN else []
            by_side[setting] = [
                *grid(base, {"training.learning_rate": rates(side, scale)}, seeds=SELECTION_SEEDS[scale]),
                *grid(base, {"training.learning_rate": reported}, seeds=REPORT_SEEDS[scale]),
            ]
    return by_side
