"""What an engine gives back: outputs for the layers above, and the gradient through time after the backward pass."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters

Cuts = Mapping[str, Bool[Tensor, "time replica batch"]]
"""State name to where step t reads that state of the step before as a constant; on the CPU. Other states are whole."""

Need = Literal["cuts", "states and their gradients"]
"""What a training method may ask of an engine: to cut the gradient, or to hand out s_t and dL/ds_t."""


class Trajectory(ABC):
    """One layer's way through time, for a population.

    Attributes:
        outputs: the cell's output state (step, replica, batch, width) at the steps that were asked for.
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


class Engine(ABC):
    """A way to run a cell over time whose results are differentiable by autograd."""

    name: str

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Whether this engine trains `cell` with methods that ask for `needs`; otherwise the reference engine does."""
        return not needs

    @abstractmethod
    def unroll(
        self,
        cell: Cell,
        parameters: Parameters,
        inputs: Float[Tensor, "time replica batch features"],
        *,
        widths: dict[str, int],
        observed: bool,
        steps: Sequence[int] | None = None,
        cuts: Cuts | None = None,
    ) -> Trajectory:
        """Run `cell` over all time steps from zero states.

        Args:
            widths: units of each state.
            observed: whether gradients through time will be read.
            steps: indices, counted from 0, at which the output is wanted; all when None.
            cuts: where the gradient does not pass from a step to the one before; nowhere when None.
        """
