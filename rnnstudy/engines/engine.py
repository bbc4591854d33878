"""The contract of an engine: it runs a cell over time and returns a `Trajectory` with the gradient of each state."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters

Cuts = Mapping[str, Bool[Tensor, "time replica batch"]]
"""Per state, a CPU mask: True where step t treats the previous state as a constant (no gradient flows back).

States that are not listed are not cut.
"""

Need = Literal["cuts", "states and their gradients", "constant norm"]
"""What a training method may require of an engine: to cut the gradient, to return s_t and dL/ds_t, or to restore the
norm of the gradient at each step back."""

Positionwise = Callable[..., Tensor]
"""A function of parameters and of one or several tensors (replica, rows, features) to (replica, rows, features); every
row, which is one step of one sequence, is treated independently."""


class Trajectory(ABC):
    """The result of running one layer over time, for a population.

    Attributes:
        outputs: the cell's output state (step, replica, batch, width) at the requested steps.
    """

    outputs: Float[Tensor, "step replica batch width"]

    @abstractmethod
    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        """log10 ‖dL/ds_t‖ for t = 1..T after the backward pass, in float64.

        L is whatever was differentiated; s_t is the state where it is computed in step t, so the derivative is total.
        −inf where the gradient is exactly zero; NaN or +inf where it is not finite. Raises `RuntimeError` when the
        trajectory was not observed, or before the backward pass.
        """

    def values(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """s_t for t = 1..T, without gradient. Raises `RuntimeError` when the trajectory does not keep it."""
        raise RuntimeError(f"{type(self).__name__} does not keep the values of state '{state}'")

    def gradient(self, state: str) -> Float[Tensor, "time replica batch width"]:
        """dL/ds_t for t = 1..T after the backward pass: the total derivative of what was differentiated.

        Raises `RuntimeError` when the trajectory does not keep it, or before the backward pass.
        """
        raise RuntimeError(f"{type(self).__name__} does not keep the gradient of state '{state}'")


@dataclass(frozen=True)
class LayerRun:
    """What an engine runs: the arguments of `Engine.unroll`.

    Attributes:
        output_steps: indices, ascending, of the steps whose output is returned.
        vocabulary: how many symbols there are, where the inputs are symbols; otherwise None.
    """

    cell: Cell
    parameters: Parameters
    inputs: Tensor
    widths: dict[str, int]
    observed: bool
    output_steps: tuple[int, ...]
    cuts: Cuts
    constant_norm: bool = False
    vocabulary: int | None = None

    @property
    def changes_gradients(self) -> bool:
        """Whether the backward pass is not that of the loss."""
        return bool(self.cuts) or self.constant_norm


class Engine(ABC):
    """Runs a cell over time so that autograd can differentiate the outputs."""

    name: str

    @classmethod  # noqa: B027  (an engine that works everywhere has nothing to check)
    def require(cls, device: torch.device) -> None:
        """Raises `RequestError` when this engine cannot work on `device` or lacks a library, whatever the cell."""

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Whether this engine trains `cell` with methods that require `needs`; if not, the reference engine does."""
        return not needs

    def compiles(self, cell: Cell) -> bool:
        """Whether the first call for `cell` on this machine compiles something first, for up to half a minute."""
        return False

    def unfit(self, cell: Cell, features: int, outputs: int) -> str:
        """Make ready what `cell` needs in a network with so many features and outputs; why it cannot be done, or ""."""
        return ""

    def unroll(
        self,
        cell: Cell,
        parameters: Parameters,
        inputs: Float[Tensor, "time replica batch features"] | Int[Tensor, "time replica batch 1"],
        *,
        widths: dict[str, int],
        observed: bool,
        steps: Sequence[int] | None = None,
        cuts: Cuts | None = None,
        constant_norm: bool = False,
        vocabulary: int | None = None,
    ) -> Trajectory:
        """Run `cell` over all time steps, starting from states of zeros.

        Args:
            widths: units of each state.
            observed: whether gradients through time will be read.
            steps: indices, counted from 0, of the steps whose output is returned; all when None.
            cuts: where the gradient does not flow from a step to the previous one; nowhere when None.
            constant_norm: whether each step passes back the norm that arrived at it, as `ConstantNorm` says.
            vocabulary: how many symbols there are, where the inputs are symbols, which the cell reads as one-hot
                vectors (−1: as zero); None where they are numbers.
        """
        output_steps = tuple(range(len(inputs)) if steps is None else sorted(set(steps)))
        run = LayerRun(cell, parameters, inputs, widths, observed, output_steps, cuts or {}, constant_norm, vocabulary)
        return self.unroll_layer(run)

    @abstractmethod
    def unroll_layer(self, run: LayerRun) -> Trajectory:
        """What `unroll` does."""

    def stream(self, values: Float[Tensor, "time replica batch features"]) -> Tensor:
        """`values`, of which this engine will know the gradient if it keeps gradients of what layers read."""
        return values

    def symbols(
        self, values: Int[Tensor, "time replica batch 1"], vocabulary: int
    ) -> Int[Tensor, "time replica batch 1"]:
        """As `stream`, of symbols: the gradient is that of their one-hot vectors."""
        return values

    def taken(
        self, values: Shaped[Tensor, "time replica batch features"], index: Int[Tensor, "step #replica #batch"]
    ) -> Shaped[Tensor, "step replica batch features"]:
        """The values of each sequence at the steps `index`, no step twice: another order of steps, or a few of them."""
        return steps_taken(values, index)

    def positionwise(
        self, function: Positionwise, parameters: Parameters, *inputs: Shaped[Tensor, "time replica batch _"]
    ) -> Float[Tensor, "time replica batch features"]:
        """What `function` makes of each step of each sequence: what stands between two recurrences."""
        return over_rows(function, parameters, inputs)


def steps_taken(values: Tensor, index: Int[Tensor, "step #replica #batch"]) -> Tensor:
    """values (time, replica, batch, …) at the steps `index` of each sequence."""
    if index.shape[1:] == (1, 1):
        return values.index_select(0, index.view(-1))
    within = values.shape[3:]
    index = index.expand(-1, *values.shape[1:3])
    return values.gather(0, index.view(*index.shape, *(1,) * len(within)).expand(*index.shape, *within))


def as_rows(values: Shaped[Tensor, "time replica batch features"]) -> Shaped[Tensor, "replica rows features"]:
    """A row for each step of each sequence."""
    return values.transpose(0, 1).flatten(1, 2)


def over_rows(function: Positionwise, parameters: Parameters, inputs: Sequence[Tensor]) -> Tensor:
    """function of the inputs (time, replica, batch, _), row by row, as (time, replica, batch, features)."""
    time, replicas, batch, _ = inputs[0].shape
    found = function(parameters, *map(as_rows, inputs))
    return found.reshape(replicas, time, batch, -1).transpose(0, 1)


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def require_gradient(state: str, observed: Collection[str], backward_done: bool) -> None:
    """Raises `RuntimeError` unless `state` was observed and the backward pass has been done."""
    if state not in observed:
        raise RuntimeError(f"state '{state}' was not observed; observed: {', '.join(observed) or 'none'}")
    if not backward_done:
        raise RuntimeError("the gradient through time exists only after the backward pass")
