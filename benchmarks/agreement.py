"""Whether an engine agrees with the reference engine on a device: what the tests and the GPU check both ask.

`python -m benchmarks.agreement ENGINE DEVICE [--small]` prints one JSON object, name of the case to what is wrong with
it; an empty text where nothing is. Triton's interpreter runs it on the CPU where TRITON_INTERPRET=1.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from rnnstudy.cells.antisymmetric_rnn import AntisymmetricRNN
from rnnstudy.cells.block import Block
from rnnstudy.cells.cell import Cell, Observe, Parameter, Parameters, Role, States
from rnnstudy.cells.cifg import CIFG
from rnnstudy.cells.co_rnn import CoRNN
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.exp_rnn import ExpRNN
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.ind_rnn import IndRNN
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.cells.janet import JANET
from rnnstudy.cells.jordan import Jordan
from rnnstudy.cells.lem import LEM
from rnnstudy.cells.lmu import LMU
from rnnstudy.cells.lru import LRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.cells.mgu import MGU
from rnnstudy.cells.min_gru import MinGRU
from rnnstudy.cells.min_lstm import MinLSTM
from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.cells.output_recurrent import OutputRecurrent
from rnnstudy.cells.peephole_lstm import PeepholeLSTM
from rnnstudy.cells.rg_lru import RGLRU
from rnnstudy.cells.s4d import S4D
from rnnstudy.cells.s6 import S6
from rnnstudy.cells.sru import SRU
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.explicit_backward import has_explicit_backward
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.traced import TracedEngine
from rnnstudy.engines.triton import GATES, TritonEngine, kernels_of, launch
from rnnstudy.spec import between
from rnnstudy.training.model import Model
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS = 3, 2
VALUES = 1e-5
"""Tolerated in outputs and gradients, beside the largest entry of each; float64 on the other side."""

NORMS = 5e-5
"""Tolerated in log10 norms, in decades."""

LEAST_COMPARED = -140.0
"""Below 10⁻¹⁴⁰ the float64 reference's own squares come near the end of its range."""

GUARD = 256
"""Numbers before and after each array that no kernel may touch."""

JUDGED = ("the last step", "some steps", "every step, of all sizes", "varying lengths")


DIAGONAL = (LRU(), RGLRU(), SRU(), MinGRU(), MinLSTM(), S4D(state_size=3), S6(state_size=3))
"""Recurrences for the scan engine, one of each cell."""


class Leaky(Cell):
    """h_t = (1 − leak) h_{t−1} + leak tanh(x_t W_xh + h_{t−1} W_hh + b_h): a user's own cell."""

    source = "CONTRIBUTING.md"
    states = ("h",)
    leak: Annotated[float, between(0, 1)] = 0.5

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_hh": Parameter("recurrent", (self.width, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
        }

    def step(self, parameters: Parameters, projected: Tensor, state: States, observe: Observe) -> dict[str, Tensor]:
        target = torch.baddbmm(projected, state["h"], parameters["W_hh"]).tanh()
        return {"h": observe("h", (1 - self.leak) * state["h"] + self.leak * target)}


TRACED = (
    Leaky(), CIFG(), MGU(), JANET(), PeepholeLSTM(), CoRNN(), LEM(), LMU(), AntisymmetricRNN(), IndRNN(), ExpRNN(),
    Jordan(), OutputRecurrent(), Elman(), LSTM(), GRU(), *DIAGONAL,
)  # fmt: skip
"""Cells for the traced engine: those without kernels, and those that other fast engines run too."""

RECURRENCE: tuple[Role, ...] = ("recurrent", "diagonal", "input")
"""Roles of the parameter that is spoilt: the first that a cell has."""


class Constant(DiagonalCell):
    """h_t = a ⊙ h_{t-1} + x_t W_xh with a given a: the gradient through time has a closed form."""

    source = "a closed form"
    states = ("h",)

    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "a": Parameter("diagonal", (self.width,), ("h",)),
        }

    def project(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        return torch.bmm(inputs, parameters["W_xh"])

    def coefficients(self, parameters: Parameters, projected: Tensor) -> tuple[Tensor, Tensor]:
        return parameters["a"].unsqueeze(1), projected


@dataclass(frozen=True)
class Case:
    """A network and what of its outputs is judged. `gain` scales its weights: small to vanish, large to explode.

    With a `vocabulary` it reads symbols, and the reference their one-hot vectors.
    """

    cell: Cell
    judged: str
    time: int = 12
    batch: int = 5
    replicas: int = 2
    layers: int = 1
    gain: float = 1.0
    vocabulary: int | None = None
    bidirectional: bool = False
    block: Block | None = None

    @property
    def name(self) -> str:
        shape = f"T={self.time} B={self.batch} K={self.replicas} layers={self.layers} gain={self.gain}"
        shape += "" if self.vocabulary is None else f", {self.vocabulary} symbols"
        shape += " bidirectional" * self.bidirectional + (f" in {self.block!r}" if self.block else "")
        return f"{self.cell!r}, {self.judged}, {shape}"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def judgement(case: Case) -> Tensor:
    """What the outputs (time, replica, batch, outputs) are multiplied by before they are summed."""
    judge = noise(case.time, case.replicas, case.batch, OUTPUTS, seed=1)
    steps = torch.arange(case.time)[:, None, None, None]
    if case.judged == "the last step":
        return judge * (steps == case.time - 1)
    if case.judged == "some steps":
        return judge * ((steps == 0) | (steps == 3) | (steps == case.time * 3 // 4))
    if case.judged == "every step, of all sizes":
        order = torch.randperm(case.time, generator=torch.Generator().manual_seed(3))
        return judge * (10.0 ** torch.linspace(3, -25, case.time)[order])[:, None, None, None]
    ends = torch.randint(3, case.time, (case.replicas, case.batch, 1), generator=torch.Generator().manual_seed(4))
    return judge * (steps == ends)


def read_by(case: Case) -> Tensor:
    """The inputs (time, replica, batch, features), or symbols (time, replica, batch, 1), some of them nothing."""
    shape = (case.time, case.replicas, case.batch)
    if case.vocabulary is None:
        return noise(*shape, FEATURES)
    drawn = torch.randint(NOTHING, case.vocabulary, (*shape, 1), generator=torch.Generator().manual_seed(5))
    return drawn.to(torch.int32)


def one_hot(symbols: Tensor, vocabulary: int) -> Tensor:
    """The one-hot vectors of symbols (…, 1); zeros for nothing."""
    return torch.cat([torch.eye(vocabulary), torch.zeros(1, vocabulary)])[symbols.squeeze(-1).long()]


def passed(
    engine: Engine, case: Case, device: torch.device, dtype: torch.dtype, spoilt: bool = False, dense: bool = False
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Outputs and every gradient, each with the replica first, and log norms, for L = Σ judge ⊙ outputs.

    `dense`: one-hot vectors are read in place of symbols.
    """
    model = Model(
        cell=case.cell,
        layers=case.layers,
        features=case.vocabulary or FEATURES,
        outputs=OUTPUTS,
        block=case.block,
        bidirectional=case.bidirectional,
    )
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(case.replicas)]
    parameters = {
        name: (case.gain * torch.stack([one[name] for one in drawn])).to(device, dtype).requires_grad_()
        for name in drawn[0]
    }
    if spoilt:
        roles = {name: item.role for name, item in case.cell.parameters(FEATURES, OUTPUTS).items()}
        name = next(name for role in RECURRENCE for name in roles if roles[name] == role)
        with torch.no_grad():
            parameters[name][1].view(-1)[0] = torch.nan
    inputs = read_by(case).to(device)
    if case.vocabulary is None:
        inputs = inputs.to(dtype).requires_grad_()
    elif dense:
        inputs = one_hot(inputs, case.vocabulary).to(device, dtype)
    judge = judgement(case)
    steps = tuple(judge.flatten(1).any(1).nonzero().flatten().tolist())
    outputs, trajectories = model.forward(engine, parameters, inputs, steps=steps, observed=True)
    (outputs * judge[list(steps)].to(device, dtype)).sum().backward()
    found = {"outputs": outputs.detach().transpose(0, 1)}
    found |= {"inputs": _gradient(inputs).transpose(0, 1)} if inputs.requires_grad else {}
    found |= {name: _gradient(value) for name, value in parameters.items()}
    norms = [one.log_norms(state).cpu() for one in trajectories for state in case.cell.states]
    return {name: value.cpu() for name, value in found.items()}, norms


def _gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


def against_reference(engine: Engine, case: Case, device: torch.device) -> str:
    """What differs from the reference engine in float64 on the CPU; empty when nothing does."""
    expected, expected_norms = passed(ReferenceEngine(), case, torch.device("cpu"), torch.float64, dense=True)
    found, norms = passed(engine, case, device, torch.float32)
    for name, value in expected.items():
        error = ((found[name].double() - value).abs().max() / value.abs().max()).item()
        if not error < VALUES:
            return f"{name} differs by {error:.1e} of its largest entry"
    for one, other in zip(norms, expected_norms, strict=True):
        if not torch.equal(one == -torch.inf, other == -torch.inf):
            return "other norms are exactly zero"
        compared = other > LEAST_COMPARED
        error = (one - other)[compared].abs().max().item() if compared.any() else math.inf
        if not error < NORMS:
            return f"log10 norms differ by {error:.1e}"
    return ""


def beyond_floats(engine: Engine, device: torch.device, time: int) -> str:
    """W_hh = ρQ with Q orthogonal, linear, or a = ρ where the engine has only diagonals: log10 ‖dL/dh_t‖ changes by
    log10 ρ a step, for ρ = 1/2 and 3/2."""
    width, radii = 20, torch.tensor([0.5, 1.5])
    cell: Cell = Elman(width=width, activation="linear")
    parameters = {"W_xh": torch.zeros(2, FEATURES, width)}
    if engine.serves(cell, frozenset()):
        orthogonal = torch.linalg.qr(noise(width, width).double()).Q.float()
        parameters |= {"W_hh": radii[:, None, None] * orthogonal, "b_h": torch.zeros(2, width)}
    else:
        cell = Constant(width=width)
        parameters["a"] = radii[:, None].repeat(1, width)
    own = {name: value.to(device).requires_grad_() for name, value in parameters.items()}
    inputs = torch.zeros(time, 2, 3, FEATURES, device=device)
    trajectory = engine.unroll(cell, own, inputs, widths={"h": width}, observed=True, steps=(time - 1,))
    (trajectory.outputs * noise(1, 2, 3, width, seed=1).to(device)).sum().backward()
    norms = trajectory.log_norms("h").cpu()
    lags = torch.arange(time - 1, -1, -1, dtype=torch.float64)[:, None, None]
    error = (norms - norms[-1] - radii.double().log10()[:, None] * lags).abs().max().item()
    return "" if error < 2e-4 else f"log10 norms differ from their closed form by {error:.1e}"


def stays_in_its_replica(engine: Engine, case: Case, device: torch.device) -> str:
    """A weight that is not a number spoils its own replica and leaves the bits of the others alone."""
    sound, spoilt = (passed(engine, case, device, torch.float32, spoilt=one)[0] for one in (False, True))
    for name in sound:
        others = [replica for replica in range(case.replicas) if replica != 1]
        if not torch.equal(sound[name][others], spoilt[name][others]):
            return f"{name} of another replica changed"
    return "" if spoilt["outputs"][1].isnan().any() else "the spoilt replica's outputs are numbers"


def stray_writes(cell: Cell, device: torch.device) -> str:
    """Whether the Triton kernels of `cell` fill their arrays whole and write nowhere else: guards stand around each."""
    kernels, (wide, how), gates = kernels_of(cell), launch(cell), GATES[type(cell)]
    time, replicas, batch, steps = 5, 2, 32, 2
    around: list[Tensor] = []

    def guarded(*shape: int, whole: bool = False) -> Tensor:
        guard, dtype = (-7, torch.int32) if whole else (math.nan, torch.float32)
        around.append(torch.full((math.prod(shape) + 2 * GUARD,), guard, dtype=dtype, device=device))
        return around[-1][GUARD:-GUARD].view(shape)

    def given(*shape: int) -> Tensor:
        return guarded(*shape).copy_(noise(*shape))

    options = {"BATCH": batch, "WIDTH": wide, "ROWS": how.rows, "PRECISION": how.precision, "num_warps": how.warps}
    grid, recurrent = (replicas, batch // how.rows), given(replicas, wide, gates * wide).mul_(wide**-0.5)
    projected = given(replicas, time, batch, gates * wide)
    if isinstance(cell, Elman):
        kept, options = (projected,), options | {"ACTIVATION": cell.activation}
        kernels.forward[grid](projected, recurrent, time, **options)
    else:
        c, h = guarded(replicas, time + 1, batch, wide), guarded(replicas, time, batch, wide)
        c[:, 0] = 0
        kept = (projected, c)
        kernels.forward[grid](projected, c, h, recurrent, time, **options)
    own, slots = guarded(replicas, steps, batch, whole=True), guarded(time, whole=True)
    own.zero_()
    slots.copy_(torch.tensor([-1, 0, -1, -1, 1]))
    found = [guarded(*projected.shape), *(guarded(replicas, time, batch) for _ in cell.states)]
    exponents = guarded(replicas, time, batch, whole=True)
    kernels.backward[grid](
        *kept, recurrent, given(replicas, steps, batch, wide), own, slots, *found, exponents, time, steps, **options
    )
    for array in around:
        inside, guards = array[GUARD:-GUARD], torch.cat([array[:GUARD], array[-GUARD:]])
        if array.is_floating_point() and not (inside.isfinite().all() and guards.isnan().all()):
            return f"an array of {inside.numel()} numbers is not filled, or not it alone"
        if not array.is_floating_point() and not (guards == -7).all():
            return f"something was written beside {inside.numel()} whole numbers"
    return "" if (exponents != -7).any() else "no exponents were written"


KINDS = (Elman(), *(Elman(activation=one) for one in ("relu", "sigmoid", "linear")), LSTM(), GRU(), *DIAGONAL)


def cells_of(engine: Engine, widths: tuple[int, ...], kinds: tuple[Cell, ...] = KINDS, few: bool = False) -> list[Cell]:
    """The cells of some kinds that an engine serves, of these widths; of those that have to be compiled, a `few`."""
    if isinstance(engine, TracedEngine):
        kinds = TRACED[:2] if few or kinds is not KINDS else TRACED
    elif isinstance(engine, GraphEngine):
        # Of the cells that autograd differentiates there, two stand for all.
        own = TRACED[:2] if kinds is KINDS else ()
        kinds = (*(kind for kind in kinds if has_explicit_backward(kind)), *own)
    found = [kind.replace(width=width) for width in widths for kind in kinds]
    return [cell for cell in found if engine.serves(cell, frozenset())]


def judgements(engine: Engine, cell: Cell, small: bool) -> tuple[str, ...]:
    """How the outputs of a cell are judged."""
    diagonal = isinstance(cell, DiagonalCell)
    if diagonal and isinstance(engine, ScaledEngine):
        # Its states share an exponent: h, which no later step reads, is lost in float32 where it is 2⁻⁹⁶ of s.
        return JUDGED[1:2]
    plain = diagonal or isinstance(cell, CIFG) or (isinstance(cell, Elman) and cell.activation != "tanh")
    return JUDGED[2:3] if plain and small else JUDGED


def cases(engine: Engine, device: torch.device, small: bool) -> dict[str, Callable[[], str]]:
    """Every case by name; each says what is wrong, or nothing. `small` suits an interpreter."""
    found: dict[str, Callable[[], str]] = {}
    chosen: list[Case] = []
    for cell in cells_of(engine, (17,) if small else (17, 50, 100), few=small):
        for judged in judgements(engine, cell, small):
            chosen.append(Case(cell, judged, *(() if small else (60, 20, 3))))
    for kind in cells_of(engine, (13,), (Elman(), LSTM(), LRU(), SRU())):
        # In 60 steps a gradient falls by tens of decades with a gain of 0.1.
        time = 12 if small else 60
        chosen += [Case(kind, JUDGED[1], time, layers=2), Case(kind, JUDGED[0], time, gain=0.1)]
        around = Block(norm="layer", mix="glu")
        chosen.append(Case(kind, JUDGED[1], time, layers=2, bidirectional=True, block=around))
        own = Case(kind, JUDGED[1], 6, replicas=3)
        found[f"a replica on its own, {kind!r}"] = partial(stays_in_its_replica, engine, own, device)
        if isinstance(engine, TritonEngine):
            found[f"stray writes, {kind!r}"] = partial(stray_writes, kind, device)
    # Symbols in two layers; and more symbols than are read, so that some never occur.
    chosen += [Case(kind, JUDGED[3], layers=2, vocabulary=5) for kind in cells_of(engine, (13,), (LSTM(),))]
    large = cells_of(engine, (13,), (Elman(), GRU(), S6(state_size=3)))
    chosen += [Case(kind, JUDGED[3], vocabulary=200) for kind in large]
    found |= {case.name: partial(against_reference, engine, case, device) for case in chosen}
    found["beyond the range of floats"] = partial(beyond_floats, engine, device, 240 if small else 2000)
    return found


def agreement(engine: Engine, device: torch.device, small: bool) -> dict[str, str]:
    """Every case by name, with what is wrong with it."""
    return {name: case() for name, case in cases(engine, device, small).items()}


ENGINES: dict[str, type[Engine]] = {
    "graph": GraphEngine,
    "scan": ScanEngine,
    "traced": TracedEngine,
    "triton": TritonEngine,
}


def main() -> None:
    name, device = sys.argv[1:3]
    torch.set_num_threads(1)
    print(json.dumps(agreement(ENGINES[name](), torch.device(device), "--small" in sys.argv), indent=1))


if __name__ == "__main__":
    main()
