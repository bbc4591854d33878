"""The base of training methods that cut the gradient through time at some steps."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.spec import Spec


class GradientCut(Spec):
    """A rule that makes step t treat the state s_{t-1} as a constant: its value is used, no gradient flows back.

    Only the path from s_{t-1} to step t is cut. The paths from s_{t-1} to the loss of its own step and to the layer
    above are not, and no value changes. Reported gradients are total derivatives, with the cut values held constant.
    """

    source: ClassVar[str]

    def check_compatible(self, cell: Cell, steps: int) -> None:
        """Raises `SpecError` when the rule cannot be used with the cell or with this number of updates."""

    @abstractmethod
    def states(self, cell: Cell) -> tuple[str, ...]:
        """Names of the states that are cut."""

    def applies(self, step: int, steps: int) -> bool:
        """Whether update number `step` (from 0) of `steps` uses the cuts."""
        return True

    @abstractmethod
    def cut_mask(
        self, layers: int, time: int, ends: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Bool[Tensor, "layer time batch"]:
        """For one replica: True where step t (from 0) treats the previous state as a constant.

        Args:
            layers: number of layers of the network.
            time: time steps of the padded batch.
            ends: τ_b, the number of steps up to and including the last supervised one of each sequence.
            generator: a generator for this replica and this update only.
        """
