"""What an engine gives back: outputs for the layers above, and the gradient through time after the backward pass."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters


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


class Engine(ABC):
    """A way to run a cell over time whose results are differentiable by autograd."""

    name: str

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
    ) -> Trajectory:
        """Run `cell` over all time steps from zero states.

        Args:
            widths: units of each state.
            observed: whether gradients through time will be read.
            steps: indices, counted from 0, at which the output is wanted; all when None.
        """
