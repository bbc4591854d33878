"""The contract of a cell: its states, its parameters, and one step of the recurrence, for a whole population."""

import functools
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.spec import Spec, SpecError, at_least

Parameters = Mapping[str, Tensor]
"""Parameter name to values (replica, …)."""

States = Mapping[str, Tensor]
"""State name to values (replica, batch, width)."""

Observe = Callable[[str, Tensor], Tensor]
"""Takes the name and the new value of a state, and returns the value that the step continues with."""

Role = Literal[
    "embedding",
    "input",
    "recurrent",
    "diagonal",
    "output",
    "scale",
    "norm",
    "bias",
    "single bias",
    "readout",
    "readout bias",
]
"""The function of a parameter. A `bias` equals the sum of two biases in torch.nn; a `single bias` equals one.

A `recurrent` matrix and a `diagonal` belong to the recurrence; each number of a diagonal, a vector, acts on one unit of
a state. `output` is a matrix from a state to the output of the cell, `scale` a vector that multiplies unit by unit, and
`norm` the scale or shift of a normalisation, which begins as its source says whatever the initialisation. An
`embedding` is the model's: a matrix from symbols to what the lowest layer reads.
"""

Draw = Callable[[tuple[int, ...], torch.Generator, Mapping[str, Tensor]], Tensor]
"""Draws one block of a parameter: from its shape, the generator, and the parameters of the layer drawn before it."""

VECTORS: tuple[Role, ...] = ("diagonal", "scale", "norm", "bias", "single bias", "readout bias")
"""The roles whose parameters have one axis."""


@dataclass(frozen=True)
class Parameter:
    """One weight matrix or bias of a cell.

    `shape` is (in, out) for a matrix and (out,) for a bias, without the replica axis. `blocks` names the equal parts of
    the last axis that are separate matrices: the gates of an LSTM, in order; ("h",) for a plain RNN.

    `single` names the blocks of a `bias` that are a `single bias`. `forget_gate` and `input_gate` name the blocks of a
    bias that belong to the gate that keeps the old state, and to the gate that admits new values. `published` draws
    blocks as the source of the cell does: of a diagonal always, of the others with the initialisation `Published`.
    """

    role: Role
    shape: tuple[int, ...]
    blocks: tuple[str, ...]
    single: tuple[str, ...] = ()
    forget_gate: str | None = None
    input_gate: str | None = None
    published: Mapping[str, Draw] = field(default_factory=dict)

    def role_of(self, block: str) -> Role:
        """The role of one block."""
        return "single bias" if block in self.single else self.role

    def drawn_by(self, draw: Draw, *blocks: str) -> "Parameter":
        """A copy whose `blocks`, or all of them when none is named, the source of the cell draws by `draw`."""
        return replace(self, published={**self.published, **dict.fromkeys(blocks or self.blocks, draw)})


@dataclass(frozen=True)
class BoundedUnits:
    """Units or gates of a step, with values (replica, rows, width) that stay between `low` and `high`."""

    values: Tensor
    low: float
    high: float


class Cell(Spec):
    """A recurrence over `width` units.

    Parameters multiply row vectors and have a leading replica axis: h_{t-1} W_hh, with W_hh (replica, in, out).
    """

    width: Annotated[int, at_least(1)] = 50

    states: ClassVar[tuple[str, ...]]
    """Names of the states, in the order in which a step computes them."""

    output: ClassVar[str] = "h"
    """The state that the next layer and the readout read."""

    owns_readout: ClassVar[bool] = False
    """Whether the output state already is the output of the model (Jordan), so that the model adds no readout.

    In a network of several layers, each layer then has its own readout, and the next layer reads its outputs.
    """

    redundant: ClassVar[tuple[str, ...]] = ()
    """States on which no output depends in exact arithmetic, such as the stabiliser of an sLSTM.

    Their total derivative is zero. What an engine returns for it is rounding, and no probe reads it.
    """

    source: ClassVar[str]
    """Where the recurrence comes from, in one line."""

    @classmethod
    def label(cls) -> str:
        """Short name in lower case, as used in the names of runs: `lstm`, `elman`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        """The parameters for this number of inputs; `outputs` matters only to a cell that owns its readout."""

    @property
    def read_states(self) -> tuple[str, ...]:
        """The states whose gradient probes read: all but the redundant ones."""
        return tuple(state for state in self.states if state not in self.redundant)

    def state_width(self, state: str, outputs: int) -> int:
        """Number of units of a state.

        A state with an inner axis (width × state size) is laid out in one row, and so is a complex one: all real parts,
        then all imaginary parts.
        """
        return self.width

    def project(
        self, parameters: Parameters, inputs: Float[Tensor, "replica rows features"]
    ) -> Float[Tensor, "replica rows gates"]:
        """The part of the pre-activations that depends on the inputs, for all time steps at once: x_t W_xh + b_h."""
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def prepared(self, parameters: Parameters) -> Parameters:
        """What `step` and `bounded` read instead of `parameters`: by default the same.

        An engine computes it once for a pass over time, differentiably. Here belongs what costs much and is the same at
        every step: a parameter in another form, under its own name (W_hh = exp(A − Aᵀ)), or constants of the cell.
        `project` reads the parameters themselves.
        """
        return parameters

    @abstractmethod
    def step(
        self, parameters: Parameters, projected: Float[Tensor, "replica batch gates"], state: States, observe: Observe
    ) -> dict[str, Tensor]:
        """One time step: the new states from the projected input and the previous states; `parameters` are `prepared`.

        Every state must pass through `observe` exactly once, right after it is computed and before anything else in the
        step reads it; the step continues with the value that `observe` returns. The gradient measured at that point is
        therefore the total derivative.
        """

    def fixed_moduli(self, parameters: Parameters) -> Float[Tensor, "replica units"] | None:
        """|a| of every unit of a diagonal recurrence whose factors a do not depend on the input; None for others."""
        return None

    def bounded(
        self, parameters: Parameters, projected: Float[Tensor, "replica rows gates"], before: States, after: States
    ) -> dict[str, BoundedUnits]:
        """Units and gates, by name, that have a lower and an upper bound and saturate near them; by default none.

        The step led from the states `before` to the states `after`; every row is one step of one sequence.
        """
        return {}


def require_repeatable(cell: Cell, features: int, outputs: int) -> None:
    """Raises `SpecError` when a step of `cell` gives other results when it is computed again.

    Readings are made of recomputed steps: with random numbers in the step (dropout, zoneout) they would be of other
    numbers than those of training.
    """
    if not type(cell).__module__.startswith("rnnstudy.cells.") and not _repeatable(cell, features, outputs):
        raise SpecError(
            f"a step of {type(cell).__name__} draws random numbers, so that it cannot be computed again for the "
            f"readings; leave out dropout and noise, or draw them once, in a parameter"
        )


@functools.cache
def _repeatable(cell: Cell, features: int, outputs: int) -> bool:
    source = torch.Generator().manual_seed(0)
    parameters = {
        name: 0.1 * torch.randn(1, *parameter.shape, generator=source)
        for name, parameter in cell.parameters(features, outputs).items()
    }
    states = {name: torch.randn(1, 2, cell.state_width(name, outputs), generator=source) for name in cell.states}
    inputs = torch.randn(1, 2, features, generator=source)
    random_state = torch.get_rng_state()
    try:
        steps = [
            cell.step(cell.prepared(parameters), cell.project(parameters, inputs), states, lambda _, value: value)
            for _ in range(2)
        ]
        drawn = not torch.equal(torch.get_rng_state(), random_state)
    except Exception:
        # What is wrong with the cell is told where it trains.
        return True
    finally:
        torch.set_rng_state(random_state)
    return not drawn and all(torch.equal(steps[0][name], steps[1][name]) for name in cell.states)


def layer_label(name: str, layer: int, layers: int) -> str:
    """`name`, followed by `_layer1`, `_layer2`, … in a network of several layers."""
    return name if layers == 1 else f"{name}_layer{layer + 1}"
