"""What a probe is: something that reads a moment of training and changes nothing."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.optimisers.clipping import Gradients
from rnnstudy.records import QUANTILES, Reading
from rnnstudy.spec import Spec, at_least
from rnnstudy.unroll.trajectory import Trajectory

Stage = Literal["initial", "training", "final"]


@dataclass(frozen=True)
class BackwardPass:
    """The gradients through time of one batch, for every layer.

    Attributes:
        trajectories: one for each layer, lowest first.
        states: the cell's state names.
        last: index, counted from 0, of the last supervised step of each sequence: τ_b − 1.
        scale: factor from the gradient of what was differentiated to that of one sequence's own loss (the batch size,
            where the mean over the batch was differentiated).
    """

    trajectories: Sequence[Trajectory]
    states: tuple[str, ...]
    last: Int[Tensor, "replica batch"]
    scale: float = 1.0

    def labelled(self) -> list[tuple[str, Float[Tensor, "time replica batch"]]]:
        """(label, log10 ‖dℓ_b/ds_t‖) for every layer and state; labels are `h`, or `h_layer2` in a deeper network."""
        shift = torch.tensor(self.scale, dtype=torch.float64).log10()
        return [
            (
                layer_label(state, layer, len(self.trajectories)),
                trajectory.log_norms(state) + shift.to(self.last.device),
            )
            for layer, trajectory in enumerate(self.trajectories)
            for state in self.states
        ]


def _only_outside_training(sequences: int) -> BackwardPass:
    raise RuntimeError("the side batch is read before the first and after the last update")


@dataclass(frozen=True)
class Moment:
    """What a probe may look at.

    Attributes:
        stage: before the first update, during training, or after the last.
        step: updates made so far.
        parameters: the weights.
        before, after: the parameter gradients before and after clipping; empty outside training.
        through_time: the training batch's gradients; None outside training and where no probe asked for them.
        side_batch: outside training, gradients through time, in float64 by the scaled engine, of the loss at each
            sequence's last supervised step alone, on so many fixed sequences that no training step sees.
    """

    stage: Stage
    step: int
    parameters: Parameters
    before: Gradients
    after: Gradients
    through_time: BackwardPass | None
    side_batch: Callable[[int], BackwardPass] = _only_outside_training


class Probe(Spec):
    """Something measured. It is read at the initial and final moment and every `every` updates in between.

    A probe never changes training: the weights are bit-identical with and without it.
    """

    source: ClassVar[str]

    observes: ClassVar[bool] = False
    """Whether its training readings need the training batch's gradients through time."""

    every: Annotated[int, at_least(1)] = 1

    def due(self, step: int) -> bool:
        return step % self.every == 0

    @abstractmethod
    def read(self, moment: Moment) -> list[Reading]:
        """The readings of this moment; values keep the leading replica axis, the batch is reduced.

        A reading named `summary/…` is a scalar for the table of runs.
        """


def layer_label(name: str, layer: int, layers: int) -> str:
    """`name`, with `_layer2` and so on appended in a network of several layers."""
    return name if layers == 1 else f"{name}_layer{layer + 1}"


def batch_quantiles(
    values: Float[Tensor, "position replica batch"], measured: Bool[Tensor, "position replica batch"]
) -> Float[Tensor, "replica quantile position"]:
    """The quantiles `QUANTILES` over the batch, linearly interpolated, among the measured entries of each position.

    −inf (an exact zero on the logarithmic scale) ranks lowest; +inf and NaN rank highest. A quantile that would have to
    be built from such an entry is NaN: absent from the store. So is every quantile where nothing was measured.
    """
    ranked = torch.where(measured, values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), torch.inf)
    ranked = ranked.sort(dim=-1).values
    count = measured.sum(-1, keepdim=True)
    wanted = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
    place = wanted * (count - 1).clamp(min=0)
    low = ranked.gather(-1, place.floor().long())
    high = ranked.gather(-1, place.ceil().long())
    between = low + (high - low) * (place - place.floor())
    # Where the place is a whole number, low and high are one entry, and inf − inf must not spoil it.
    exact = torch.where(low == high, low, between)
    found = torch.where(torch.isfinite(exact) & (count > 0), exact, torch.nan)
    return found.permute(1, 2, 0)
