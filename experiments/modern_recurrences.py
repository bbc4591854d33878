"""What do the recurrences of today gain, and what do they give up? The family at equal parameters and equal tuning.

Hypothesis: (1) Selective copying is solved where the recurrence depends on its input (LSTM, GRU, minGRU, minLSTM, SRU,
RG-LRU, S6), and not by the LRU, whose factors are fixed; of associative recall S6, with the most numbers in its state,
solves the most of all linear recurrences. (2) Linear recurrences fail at parity and at composing permutations for want
of expressivity, not of gradient: minGRU, minLSTM, SRU, RG-LRU, LRU and S6 are lost at four times the length they were
trained at, although the gradient of RG-LRU, LRU and S6 before training reaches the first step better than the LSTM's;
GRU and LSTM solve both; S6 with factors between −1 and 1 solves parity, not the permutations. (3) At temporal order
with T = 100 the LSTM with forget bias 1 fails for want of gradient: LRU and RG-LRU solve it, and so does the same LSTM
with a chrono bias, which tells it the length; minGRU, which at its published start forgets half at each step, fails as
the LSTM does.

The rule: a side *solves* a setting when the Wilson 95 % interval of its share of solved runs lies above one half, and
*fails* when it lies below. At another length it *stays right* when the error of every run is nearer to 0 than to
chance, and *is lost* when every run is nearer to chance. Its gradient *reaches further* than another side's when every
run's does. Everything else is *cannot tell*. A part of the hypothesis is refuted by one opposite verdict.

Every side has the same number of parameters within a few per cent, counting all that is trained, the same sequences,
optimiser (Adam), clipping (norm 1), updates and learning rates to choose from. The rate is chosen for each side and
setting on the selection seeds; what is reported comes from other seeds, at that rate. Sizes and updates were set with a
few runs of seed 101, in which GRU and LSTM solved parity, permutations and selective copying, and minGRU none of them.
When the first selection runs had shown what training takes, and before any of their results was read, some sides were
left to scale paper: minLSTM, which resembles minGRU, S4D, which resembles the LRU, three sides of permutations, the
linear recurrences at temporal order, and associative recall; with them what the hypothesis says of these. minLSTM at
selective copying and parity, S4D, which trains slowest, at selective copying alone, associative recall, and then five
linear recurrences at temporal order were added when the others' results had been read; the hypothesis and the rule are
those of before. Recall has the size and the updates at which GRU, LSTM and SRU solved it in single runs of seed 101,
after longer ones (T = 16) had not been solved. Parity was first trained as `Parity`, whose input is one number, 0 or 1:
a gated block without biases returns nothing where it reads 0, whatever its recurrence knows, so that its error is at
least (1 − 1/T)/4, as two sides showed. Those runs are not used; parity is now the composition of permutations of two
items, whose inputs are one-hot.

The rates in `CHOSEN` were chosen by `rnnstudy.results.selection.selection_table` from the selection runs of this file
at scale desk; a test chooses them again from the committed data.
"""

import bisect
import functools
import math
from typing import ClassVar, NamedTuple

from torch import Tensor

from rnnstudy.cells.block import Block
from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import Chrono, ForgetBias, Initialisation, Orthogonal, Published, PyTorchDefault
from rnnstudy.cells.lru import LRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.cells.min_gru import MinGRU
from rnnstudy.cells.min_lstm import MinLSTM
from rnnstudy.cells.rg_lru import RGLRU
from rnnstudy.cells.s4d import S4D
from rnnstudy.cells.s6 import S6
from rnnstudy.cells.sru import SRU
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.associative_recall import AssociativeRecall
from rnnstudy.tasks.permutation_composition import PermutationComposition
from rnnstudy.tasks.selective_copying import SelectiveCopying
from rnnstudy.tasks.task import Task
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.model import Model

SELECTION_SEEDS = {Scale.SMOKE: range(1), Scale.DESK: range(2), Scale.PAPER: range(5)}
REPORT_SEEDS = {Scale.SMOKE: range(10, 11), Scale.DESK: range(10, 20), Scale.PAPER: range(10, 30)}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)

CHOSEN: dict[tuple[str, int, str], float] = {
    ("SelectiveCopying", 20, "RNN, orthogonal"): 0.003,
    ("SelectiveCopying", 20, "GRU, forget bias 1"): 0.03,
    ("SelectiveCopying", 20, "LSTM, forget bias 1"): 0.03,
    ("SelectiveCopying", 20, "LSTM, in blocks"): 0.01,
    ("SelectiveCopying", 20, "minGRU"): 0.003,
    ("SelectiveCopying", 20, "SRU"): 0.03,
    ("SelectiveCopying", 20, "RG-LRU"): 0.003,
    ("SelectiveCopying", 20, "LRU"): 0.01,
    ("SelectiveCopying", 20, "S6"): 0.003,
    ("SelectiveCopying", 20, "minLSTM"): 0.01,
    ("SelectiveCopying", 20, "S4D"): 0.01,
    ("AssociativeRecall", 8, "RNN, orthogonal"): 0.01,
    ("AssociativeRecall", 8, "GRU, forget bias 1"): 0.03,
    ("AssociativeRecall", 8, "LSTM, forget bias 1"): 0.03,
    ("AssociativeRecall", 8, "LSTM, in blocks"): 0.003,
    ("AssociativeRecall", 8, "minGRU"): 0.003,
    ("AssociativeRecall", 8, "minLSTM"): 0.003,
    ("AssociativeRecall", 8, "SRU"): 0.03,
    ("AssociativeRecall", 8, "RG-LRU"): 0.003,
    ("AssociativeRecall", 8, "LRU"): 0.003,
    ("AssociativeRecall", 8, "S6"): 0.003,
    ("PermutationComposition", 16, "minLSTM"): 0.003,
    ("PermutationComposition", 16, "RNN, orthogonal"): 0.01,
    ("PermutationComposition", 16, "GRU, forget bias 1"): 0.03,
    ("PermutationComposition", 16, "LSTM, forget bias 1"): 0.03,
    ("PermutationComposition", 16, "LSTM, in blocks"): 0.01,
    ("PermutationComposition", 16, "minGRU"): 0.001,
    ("PermutationComposition", 16, "SRU"): 0.03,
    ("PermutationComposition", 16, "RG-LRU"): 0.003,
    ("PermutationComposition", 16, "LRU"): 0.01,
    ("PermutationComposition", 16, "S6"): 0.003,
    ("PermutationComposition", 16, "S6, signed"): 0.01,
    ("PermutationComposition", 12, "RNN, orthogonal"): 0.03,
    ("PermutationComposition", 12, "GRU, forget bias 1"): 0.03,
    ("PermutationComposition", 12, "LSTM, forget bias 1"): 0.03,
    ("PermutationComposition", 12, "LSTM, in blocks"): 0.01,
    ("PermutationComposition", 12, "LRU"): 0.003,
    ("PermutationComposition", 12, "S6"): 0.003,
    ("PermutationComposition", 12, "S6, signed"): 0.003,
    ("TemporalOrder", 100, "RNN, orthogonal"): 0.001,
    ("TemporalOrder", 100, "GRU, forget bias 1"): 0.03,
    ("TemporalOrder", 100, "LSTM, forget bias 1"): 0.03,
    ("TemporalOrder", 100, "LSTM, chrono"): 0.03,
    ("TemporalOrder", 100, "minGRU"): 0.01,
    ("TemporalOrder", 100, "SRU"): 0.03,
    ("TemporalOrder", 100, "RG-LRU"): 0.003,
    ("TemporalOrder", 100, "LRU"): 0.001,
    ("TemporalOrder", 100, "S6"): 0.003,
}
"""Task, length and side to learning rate, at scale desk."""


class SignedS6(S6):
    """S6 with factors between −1 and 1: exp(Δ_t A) becomes 2 exp(Δ_t A) − 1, so that a step may change a sign."""

    source: ClassVar[str] = "Grazzi et al. 2025 (negative eigenvalues, the change that they make to Mamba)"

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        a, b = super().coefficients(parameters, projected)
        return 2 * a - 1, b


class Side(NamedTuple):
    """A recurrence as it is used: its cell, how it starts, its layers, and what stands around each of them."""

    cell: Cell
    start: Initialisation
    layers: int = 1
    block: Block | None = None


FORGET = PyTorchDefault(gate_bias=ForgetBias(value=1.0))
MLP, GATE = Block(mix="mlp"), Block(mix="gate")
GLU = Block(norm="layer", mix="glu")


def every_side(longest: int) -> dict[str, Side]:
    """Name to side, of which `sides` chooses. `longest`: steps of the longest sequence.

    Two layers where the recurrence is linear, since one alone cannot choose by what stands elsewhere. The blocks are
    those of the papers without their convolutions: gated in Mamba and Griffin, a GLU in LRU and S4D, an MLP in minGRU
    and minLSTM; an SRU has its own way past the recurrence.
    """
    return {
        "RNN, orthogonal": Side(Elman(), Orthogonal()),
        "GRU, forget bias 1": Side(GRU(), FORGET),
        "LSTM, forget bias 1": Side(LSTM(), FORGET),
        "LSTM, chrono": Side(LSTM(), PyTorchDefault(gate_bias=Chrono(longest=longest))),
        "LSTM, in blocks": Side(LSTM(), FORGET, 2, GATE),
        "minGRU": Side(MinGRU(), Published(), 2, MLP),
        "minLSTM": Side(MinLSTM(), Published(), 2, MLP),
        "SRU": Side(SRU(), FORGET, 2),
        "RG-LRU": Side(RGLRU(), Published(), 2, GATE),
        "LRU": Side(LRU(), Published(), 2, GLU),
        "S4D": Side(S4D(state_size=4), Published(), 2, GLU),
        "S6": Side(S6(state_size=4), Published(), 2, GATE),
        "S6, signed": Side(SignedS6(state_size=4), Published(), 2, GATE),
    }


STATE_TRACKING = ("PermutationComposition",)
"""Parity is the composition of permutations of two items, by another name and with one-hot inputs."""
RESEMBLE = {"minLSTM", "LSTM, in blocks"}
"""Sides that at scale desk are not trained at temporal order, whose sequences are long."""
OTHERS_TELL = {"minGRU", "minLSTM", "SRU", "RG-LRU"}
"""Sides that at scale desk are trained at parity, but not at permutations."""


def tasks(scale: Scale) -> list[Task]:
    return scale.pick(
        smoke=[
            SelectiveCopying(length=6, tokens=2, symbols=2),
            PermutationComposition(length=4, items=2),
            TemporalOrder(length=10),
        ],
        desk=[
            SelectiveCopying(length=20, tokens=3, symbols=6),
            AssociativeRecall(length=8, pairs=2, vocabulary=8),
            PermutationComposition(length=16, items=2),
            PermutationComposition(length=12),
            TemporalOrder(length=100),
        ],
        paper=[
            *(SelectiveCopying(length=length, tokens=16) for length in (64, 256)),
            *(AssociativeRecall(length=length, pairs=length // 16, vocabulary=128) for length in (64, 256)),
            *(PermutationComposition(length=length, items=items) for length, items in ((40, 2), (24, 3), (32, 5))),
            *(TemporalOrder(length=length) for length in (100, 400)),
        ],
    )


def sides(task: Task, scale: Scale) -> dict[str, Side]:
    """The sides of a task, each at the width at which it has nearest to the wanted number of parameters."""
    wanted = scale.pick(smoke=200, desk=6000, paper=60_000)
    kind, found = type(task).__name__, every_side(task.steps)
    left_out = {"S6, signed"} if kind not in STATE_TRACKING else set()
    left_out |= {"LSTM, chrono"} if kind != "TemporalOrder" else set()
    if scale is Scale.DESK and kind == "TemporalOrder":
        left_out |= RESEMBLE
    if scale is Scale.DESK and kind != "SelectiveCopying":
        left_out |= {"S4D"}
    if scale is Scale.DESK and isinstance(task, PermutationComposition) and task.items > 2:
        left_out |= OTHERS_TELL
    return {name: with_parameters(side, wanted, task) for name, side in found.items() if name not in left_out}


def parameters(side: Side, task: Task) -> int:
    """Number of all trained parameters: recurrences, blocks, the map into them and the readout."""
    model = Model.of(task, side.cell, side.layers, block=side.block)
    groups = [model.stream_parameters, model.readout_parameters]
    groups += [of(layer) for of in (model.layer_parameters, model.block_parameters) for layer in range(side.layers)]
    return sum(math.prod(parameter.shape) for group in groups for parameter in group.values())


def with_parameters(side: Side, count: int, task: Task) -> Side:
    """The side at the width at which its number of parameters is nearest to `count`."""

    def wide(width: int) -> Side:
        return side._replace(cell=side.cell.replace(width=width))

    # The number grows with the width; the wanted one lies between two neighbours.
    above = bisect.bisect_left(
        range(2 * round(math.sqrt(count)) + 2), count, lo=2, key=lambda w: parameters(wide(w), task)
    )
    return min((wide(above - 1), wide(above)), key=lambda one: abs(parameters(one, task) - count))


def runs(scale: Scale) -> list[Run]:
    return [run for of_side in runs_by_side(scale).values() for run in of_side]


def side_of_keys(scale: Scale) -> dict[str, str]:
    """Key of a run to the name of its side."""
    return {run.key: side for (_, _, side), of_side in runs_by_side(scale).items() for run in of_side}


@functools.cache
def runs_by_side(scale: Scale) -> dict[tuple[str, int, str], list[Run]]:
    """Task, length and side to the runs of selection, followed by those that are reported."""
    rates = scale.pick(smoke=RATES[1:2], desk=RATES, paper=RATES)
    probes = (ParameterGradients(every=100), GradientThroughTime(every=scale.pick(smoke=10, desk=250, paper=1000)))
    by_side = {}
    for task in tasks(scale):
        recall = isinstance(task, AssociativeRecall)
        training = Training(
            steps=scale.pick(smoke=10, desk=3000 if recall else 1000, paper=20_000),
            check_every=scale.pick(smoke=5, desk=50, paper=200),
            validation_sequences=scale.pick(smoke=20, desk=500, paper=1000),
            test_sequences=scale.pick(smoke=50, desk=2000, paper=10_000),
            other_lengths=(2 * task.length, 4 * task.length) if type(task).__name__ in STATE_TRACKING else (),
        )
        for name, side in sides(task, scale).items():
            base = Run(
                task=task,
                cell=side.cell,
                layers=side.layers,
                block=side.block,
                initialisation=side.start,
                training=training,
                probes=probes,
            )
            setting = (type(task).__name__, task.length, name)
            reported = rates if scale is not Scale.DESK else [CHOSEN[setting]] if setting in CHOSEN else []
            by_side[setting] = [
                *grid(base, {"training.learning_rate": rates}, seeds=SELECTION_SEEDS[scale]),
                *grid(base, {"training.learning_rate": reported}, seeds=REPORT_SEEDS[scale]),
            ]
    return by_side
