"""What a recurrence is: its states, its parameters, and one step of it, for a whole population at once."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from rnnstudy.spec import Spec, at_least

Parameters = Mapping[str, Tensor]
"""Parameter name to values (replica, …)."""

States = Mapping[str, Tensor]
"""State name to values (replica, batch, width)."""

Observe = Callable[[str, Tensor], Tensor]
"""Takes a state's name and its new value and gives the value to go on with."""

Role = Literal["input", "recurrent", "bias", "single bias", "readout", "readout bias"]
"""What a parameter is for. A `bias` is one where torch.nn has the sum of two; a `single bias` is one there too."""


@dataclass(frozen=True)
class Parameter:
    """One weight matrix or bias of a cell.

    `shape` is (in, out) for a matrix and (out,) for a bias, without the replica axis. `blocks` names the equal parts of
    the last axis that are matrices of their own: the gates of an LSTM, in order; ("h",) for a plain RNN.

    `single` names the blocks of a `bias` that are each a `single bias`. `forget_gate` and `input_gate` name the blocks
    of a bias that belong to the gate that keeps what was there, and to the gate that lets in what is new.
    """

    role: Role
    shape: tuple[int, ...]
    blocks: tuple[str, ...]
    single: tuple[str, ...] = ()
    forget_gate: str | None = None
    input_gate: str | None = None

    def role_of(self, block: str) -> Role:
        """What one block is for."""
        return "single bias" if block in self.single else self.role


@dataclass(frozen=True)
class Bounded:
    """A quantity of a step, (replica, rows, width), that stays between `low` and `high`."""

    values: Tensor
    low: float
    high: float


class Cell(Spec):
    """A recurrence over `width` units.

    Parameters are row-vector matrices with a leading replica axis: h_{t-1} W_hh, W_hh of shape (replica, in, out).
    """

    width: Annotated[int, at_least(1)] = 50

    states: ClassVar[tuple[str, ...]]
    """Names of the states, in the order in which a step computes them."""

    output: ClassVar[str] = "h"
    """The state that the next layer and the readout see."""

    owns_readout: ClassVar[bool] = False
    """Whether the output state already is the model's output (Jordan), so that the model adds no readout.

    In several layers each of them then is such a network whole, and the next reads the sequence of its outputs.
    """

    source: ClassVar[str]
    """Where the recurrence comes from, in one line."""

    @classmethod
    def label(cls) -> str:
        """Short name in lower case, as it stands in run names: `lstm`, `elman`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def parameters(self, features: int, outputs: int) -> dict[str, Parameter]:
        """The parameters for so many inputs; `outputs` matters only to a cell that owns its readout."""

    def state_width(self, state: str, outputs: int) -> int:
        """Units of a state."""
        return self.width

    @abstractmethod
    def project(
        self, parameters: Parameters, inputs: Float[Tensor, "replica rows features"]
    ) -> Float[Tensor, "replica rows gates"]:
        """What the inputs contribute to a step's pre-activations, bias included, for all time steps at once."""

    @abstractmethod
    def step(
        self, parameters: Parameters, projected: Float[Tensor, "replica batch gates"], state: States, observe: Observe
    ) -> dict[str, Tensor]:
        """One time step: the new states from the projected input and the previous states.

        Every state passes through `observe` exactly once, where it is computed and before anything of the same step
        reads it; what `observe` returns is used from there on. So the gradient read there is the total derivative.
        """

    def bounded(
        self, parameters: Parameters, projected: Float[Tensor, "replica rows gates"], before: States, after: States
    ) -> dict[str, Bounded]:
        """What in a step lives between two bounds, and saturates near them: units and gates by name. None by default.

        A step went from the states `before` to the states `after`; every row is a step of a sequence.
        """
        return {}


def layer_label(name: str, layer: int, layers: int) -> str:
    """`name`, with `_layer2` and so on appended in a network of several layers."""
    return name if layers == 1 else f"{name}_layer{layer + 1}"
