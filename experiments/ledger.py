"""Published numbers beside ours: the runs that the rows of reports/ledger/rows.toml need.

Hypothesis: each row of that file states one, with the rule by which it counts as confirmed. Most settings are small:
tables 1 to 9 of Hochreiter & Schmidhuber 1997, with their LSTM and with today's; text and figure 7 of Pascanu, Mikolov
& Bengio 2013; copy memory and adding after Arjovsky, Shah & Bengio 2016; and single numbers from later sources.

Budgets and optimisers are mostly ours, not the sources': the rows say where they differ. Scale smoke trains the
settings of at most 20 steps, a few updates each, one seed; scale paper gives every setting twenty times the updates.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.block import Block
from rnnstudy.cells.cell import Cell, Observe, Parameter, Parameters, States
from rnnstudy.cells.cifg import CIFG
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.initialisation import (
    Chrono,
    ForgetBias,
    Gaussian,
    Identity,
    Initialisation,
    InputBias,
    Orthogonal,
    Published,
    PyTorchDefault,
)
from rnnstudy.cells.lem import LEM
from rnnstudy.cells.lru import LRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.cells.min_gru import MinGRU
from rnnstudy.cells.min_lstm import MinLSTM
from rnnstudy.cells.mlstm import MLSTM
from rnnstudy.cells.peephole_lstm import PeepholeLSTM
from rnnstudy.cells.slstm import SLSTM
from rnnstudy.optimisers.omega import Omega
from rnnstudy.optimisers.rmsprop import RMSprop
from rnnstudy.optimisers.sgd import SGD
from rnnstudy.optimisers.weight_decay import WeightDecay
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.lyapunov import LyapunovExponents
from rnnstudy.probes.probe import Probe
from rnnstudy.probes.schedule import StartAndEnd
from rnnstudy.run import Run, Training
from rnnstudy.sweep import Scale, grid
from rnnstudy.tasks.adding import Adding
from rnnstudy.tasks.copy_memory import CopyMemory
from rnnstudy.tasks.delayed_xor import DelayedXor
from rnnstudy.tasks.embedded_reber import EmbeddedReber
from rnnstudy.tasks.length_range import LengthRange
from rnnstudy.tasks.long_time_lags import LongTimeLags
from rnnstudy.tasks.multiplication import Multiplication
from rnnstudy.tasks.noiseless_memorisation import NoiselessMemorisation
from rnnstudy.tasks.parity import Parity
from rnnstudy.tasks.random_permutation import RandomPermutation
from rnnstudy.tasks.selective_copying import SelectiveCopying
from rnnstudy.tasks.task import Task
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.tasks.two_sequence import TwoSequence

Settings = Iterator[tuple[Run, int]]
"""A run of each setting, and the number of its seeds."""

MANY, SOME, FEW = 20, 10, 5
"""Seeds: in cells without compiled kernels, whose populations cost about the same whatever their size; in small cells;
in large ones."""


class Lorenz(Cell):
    """The Lorenz system with σ = 10, ρ = 28, β = 8/3 as a cell: y_t = one Runge–Kutta step of 0.01 from y_{t−1}.

    The state is h_t = y_t − y_0, since a cell begins at 0; y_0 = (8, 8, 27) + `origin`. Inputs are not read. It has
    well-known Lyapunov exponents.
    """

    source: ClassVar[str] = "Lorenz 1963"
    states: ClassVar[tuple[str, ...]] = ("h",)
    width: int = 3

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {"origin": Parameter("bias", (3,), ("h",))}

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        origin = parameters["origin"] + parameters["origin"].new_tensor([8.0, 8.0, 27.0])
        return origin.unsqueeze(1).expand(-1, inputs.shape[1], -1)

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        y, dt = projected + state["h"], 0.01
        first = _velocity(y)
        second = _velocity(y + dt / 2 * first)
        third = _velocity(y + dt / 2 * second)
        fourth = _velocity(y + dt * third)
        moved = y + dt / 6 * (first + 2 * second + 2 * third + fourth)
        return {"h": observe("h", moved - projected)}


def _velocity(y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], dim=-1)


def training(steps: int, rate: float, **more: Any) -> Training:
    checks = {"check_every": 50, "validation_sequences": 512, "test_sequences": 2560}
    return Training(steps=steps, learning_rate=rate, **{**checks, **more})


def setting(task: Task, cell: Cell, trained: Training, start: Initialisation, probes: tuple[Probe, ...] = ()) -> Run:
    return Run(task=task, cell=cell, training=trained, initialisation=start, probes=probes)


def measured_at_the_start() -> Settings:
    """Untrained networks (one update, which nothing depends on)."""
    once = training(1, 1e-3, check_every=1, validation_sequences=10, test_sequences=10)
    gradient = (GradientThroughTime(every=StartAndEnd()),)
    order = TemporalOrder(length=101)
    yield setting(order, Elman(), once, Orthogonal(gain=0.9), gradient), SOME
    yield setting(order, Elman(activation="sigmoid"), once, Orthogonal(gain=3.6), gradient), SOME
    keras = Orthogonal(gate_bias=ForgetBias())
    yield setting(TemporalOrder(length=20), LSTM(width=32), once, keras, gradient), SOME
    exponents = (LyapunovExponents(sequences=1),)
    yield setting(Adding(length=5000), Lorenz(), once, PyTorchDefault(), exponents), SOME


def hochreiter_and_schmidhuber() -> Settings:
    """Tables 1 to 9, with the LSTM of 1997 and today's; and the recurrent networks of tables 1 and 2."""
    vanilla = Orthogonal()
    for length in (4, 10, 100):
        task = LongTimeLags(length=length, distractors=length - 1)
        width, seeds = (8, MANY) if length < 100 else (32, SOME)
        yield setting(task, Elman(width=width), training(2000, 3e-3), vanilla), seeds
    reber = EmbeddedReber(length=40)
    yield setting(reber, Elman(width=15), training(3000, 1e-2), vanilla), SOME
    yield from both(reber, 4, 3000)
    yield from today(LongTimeLags(length=50, distractors=49), 32, 2000)
    yield from both(LongTimeLags(length=100), 32, 2000)
    yield from both(LongTimeLags(length=100, variant="2b"), 32, 2000)
    yield from both(TemporalOrder(length=100, variant="hochreiter"), 4, 4000, -2.0, -4.0)
    yield from both(Adding(length=100, variant="hochreiter"), 4, 5000, -3.0, -6.0)
    yield from both(TwoSequence(length=100), 3, 4000)
    yield from both(LongTimeLags(length=50, distractors=50, variant="2c"), 4, 3000)
    yield from today(Multiplication(length=100, variant="hochreiter"), 4, 5000)
    yield from both(TemporalOrder(length=100, variant="hochreiter", marks=3), 6, 6000, -2.0, -4.0, -6.0)
    for informative in (1, 3):
        yield from both(TwoSequence(length=100, informative_steps=informative, variant="3b"), 3, 4000)
    yield from both(TwoSequence(length=100, informative_steps=1), 3, 4000)
    yield from today(TwoSequence(length=100, informative_steps=1, variant="3c"), 3, 6000)
    yield from both(TwoSequence(length=100, variant="3c"), 3, 6000)
    yield from both(LongTimeLags(length=100, distractors=100, variant="2c"), 4, 3000)


def both(task: Task, width: int, steps: int, *input_biases: float) -> Settings:
    yield from today(task, width, steps)
    start = PyTorchDefault(gate_bias=InputBias(values=input_biases) if input_biases else None)
    yield setting(task, LSTM(width=width, variant="1997"), training(steps, 1e-2), start), MANY


def today(task: Task, width: int, steps: int) -> Settings:
    yield setting(task, LSTM(width=width), training(steps, 1e-2), PyTorchDefault(gate_bias=ForgetBias())), SOME


def small_reproductions() -> Settings:
    task = Adding(length=100)
    whole = {"stop_when_solved": False}
    yield setting(task, Elman(width=8), training(3000, 3e-3, **whole), Orthogonal()), SOME
    start = PyTorchDefault(gate_bias=ForgetBias())
    yield setting(task, LSTM(width=8), training(3000, 1e-2, **whole), start), SOME


def pascanu() -> Settings:
    """Figure 7 at T = 20 with their optimiser; the claims of section 4.1 with Adam."""
    task = TemporalOrder(length=20)
    for more in ({"clip": None}, {}, {"omega": Omega(strength=4.0)}):
        plain = training(20_000, 1e-2, optimiser=SGD(), check_every=500, **more)
        yield setting(task, Elman(width=50), plain, Gaussian(std=0.1)), SOME
    tasks = (
        Adding(length=50, variant="pascanu"),
        Multiplication(length=50, variant="pascanu"),
        TemporalOrder(length=50, marks=3),
        NoiselessMemorisation(length=50),
        RandomPermutation(length=50),
    )
    for task in tasks:
        yield setting(task, Elman(width=50), training(3000, 1e-3, omega=Omega(strength=4.0)), Orthogonal()), SOME
    both_terms = training(3000, 1e-3, omega=Omega(strength=4.0), other_lengths=(200, 500))
    yield setting(TemporalOrder(length=100), Elman(width=50), both_terms, Orthogonal()), SOME


def copy_and_adding() -> Settings:
    """Arjovsky et al. 2016, Bai et al. 2018, and a later claim about copy memory at T = 50."""
    forget = PyTorchDefault(gate_bias=ForgetBias())
    delayed = training(3000, 3e-3, check_every=100, validation_sequences=200, test_sequences=1000)
    for cell, start in ((Elman(width=64), Orthogonal()), (GRU(width=64), forget), (LSTM(width=64), forget)):
        yield setting(CopyMemory(length=50), cell, delayed, start), FEW
    few = {"optimiser": RMSprop(), "check_every": 200, "validation_sequences": 100, "test_sequences": 1000}
    published = training(2000, 1e-3, **few)
    yield setting(CopyMemory(length=100), Elman(width=80), published, PyTorchDefault()), FEW
    yield setting(CopyMemory(length=100), LSTM(width=40), published, forget), FEW
    relu = Elman(width=128, activation="relu")
    yield setting(Adding(length=100), Elman(width=128), published, PyTorchDefault()), FEW
    yield setting(Adding(length=100), relu, published, Identity()), FEW
    yield setting(CopyMemory(length=200), LSTM(width=40), published, forget), FEW
    yield setting(Adding(length=100), LSTM(width=128), published, forget), FEW
    long = training(300, 1e-3, check_every=300, validation_sequences=20, test_sequences=20)
    for cell in (GRU(width=32), LSTM(width=32)):
        yield setting(CopyMemory(length=1000), cell, long, forget), FEW


def languages_and_selection() -> Settings:
    parity = LengthRange(task=Parity(length=2), length=40)
    further = training(3000, 3e-3, other_lengths=(100,))
    forget = PyTorchDefault(gate_bias=ForgetBias())
    for cell, start in ((Elman(width=32), Orthogonal()), (LSTM(width=32), forget)):
        yield setting(parity, cell, further, start), FEW
    for tokens in (4, 8):
        for noise in (32, 64):
            task = SelectiveCopying(length=noise + tokens + 1, tokens=tokens, symbols=8)
            decayed = training(600, 3e-3, batch=32, weight_decay=WeightDecay(strength=0.01), stop_when_solved=False)
            yield setting(task, GRU(width=136), decayed, PyTorchDefault()), FEW


def recurrences_of_today() -> Settings:
    """minGRU and minLSTM where `languages_and_selection` has the GRU; gates taken from an LSTM; LEM, LRU and xLSTM."""
    around = Block(norm="layer", mix="mlp")
    for tokens in (4, 8):
        for noise in (32, 64):
            task = SelectiveCopying(length=noise + tokens + 1, tokens=tokens, symbols=8)
            yield in_blocks(task, MinGRU(width=98, candidate="linear"), 1, around, 600), FEW
            yield in_blocks(task, MinLSTM(width=91, candidate="linear"), 1, around, 600), FEW
    task = SelectiveCopying(length=37, tokens=4, symbols=8)
    yield in_blocks(task, MinGRU(width=70, candidate="linear"), 2, around, 600), FEW
    yield in_blocks(task, MinGRU(width=98, candidate="linear"), 1, around, 1800), FEW
    forget = PyTorchDefault(gate_bias=ForgetBias())
    whole = training(1500, 5e-3, batch=32, stop_when_solved=False)
    for cell in (CIFG(width=12), PeepholeLSTM(width=12), LSTM(width=12)):
        yield setting(Adding(length=50), cell, whole, forget), SOME
    expressive = training(3000, 0.0026, batch=50, check_every=100, clip=None)
    yield setting(Adding(length=200), LEM(width=64, step_size=0.0242), expressive, Published()), FEW
    copied = training(2000, 3e-3, check_every=100, test_sequences=1000)
    units = LRU(width=64)
    yield setting(CopyMemory(length=8), units, copied, Published()).replace(layers=2, block=Block(mix="glu")), FEW
    parity = LengthRange(task=Parity(length=2), length=40)
    further = training(3000, 3e-3, other_lengths=(100,))
    for cell in (SLSTM(width=32), MLSTM(width=8)):
        yield setting(parity, cell, further, Published()), FEW


def in_blocks(task: Task, cell: Cell, layers: int, block: Block, steps: int) -> Run:
    trained = training(steps, 3e-3, batch=32, weight_decay=WeightDecay(strength=0.01), stop_when_solved=False)
    return setting(task, cell, trained, Published()).replace(layers=layers, block=block)


def biases() -> Settings:
    """LSTMs that differ in the bias of the forget gate alone; delayed XOR against temporal order."""
    trained = training(2000, 3e-3, check_every=100)
    for bias in (None, ForgetBias(), Chrono(longest=100)):
        yield setting(TemporalOrder(length=100), LSTM(width=32), trained, PyTorchDefault(gate_bias=bias)), SOME
    for task in (DelayedXor(length=50), TemporalOrder(length=50)):
        yield setting(task, LSTM(width=32), trained, PyTorchDefault(gate_bias=ForgetBias())), SOME


def settings() -> Settings:
    yield from measured_at_the_start()
    yield from hochreiter_and_schmidhuber()
    yield from small_reproductions()
    yield from languages_and_selection()
    yield from recurrences_of_today()
    yield from pascanu()
    yield from biases()
    yield from copy_and_adding()


def runs(scale: Scale) -> list[Run]:
    all_runs = []
    for run, seeds in settings():
        if scale is Scale.SMOKE and run.task.length > 20:
            continue
        steps = scale.pick(smoke=min(20, run.training.steps), desk=run.training.steps, paper=20 * run.training.steps)
        # The seed of scale smoke is its own, so that no run belongs to two scales.
        all_runs += grid(run, {"training.steps": [steps]}, seeds=[100] if scale is Scale.SMOKE else range(seeds))
    return all_runs
