"""Training methods that let the gradient through time pass at some places only."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.spec import Spec


class GradientCut(Spec):
    """A rule by which step t reads the state s_{t-1} as a constant: its value goes on, no gradient comes back.

    What is cut is the reading by the next step. The path from s_{t-1} to the loss of its own step, and to the layer
    above, stays whole; so do all values. The gradients that are reported are total derivatives of what is
    differentiated, in which the cut places are constants.
    """

    source: ClassVar[str]

    @abstractmethod
    def suits(self, cell: Cell, steps: int) -> None:
        """Raises `SpecError` when the rule cannot serve the cell, or training for so many updates."""

    @abstractmethod
    def states(self, cell: Cell) -> tuple[str, ...]:
        """The states that are cut."""

    @abstractmethod
    def applies(self, step: int, steps: int) -> bool:
        """Whether the update that follows `step` updates, of `steps` in all, is made with cuts."""

    @abstractmethod
    def places(
        self, layers: int, time: int, ends: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Bool[Tensor, "layer time batch"]:
        """Where one replica is cut: entry t, counted from 0, is the reading by that step of the state before it.

        Args:
            layers: layers of the network.
            time: time steps of the padded batch.
            ends: τ_b, the number of steps up to the last supervised one of each sequence.
            generator: belongs to this replica and update alone.
        """
