"""What a probe is: something that reads a moment of training and changes nothing."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters, layer_label
from rnnstudy.engines.engine import Trajectory
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.optimisers.clipping import Gradients
from rnnstudy.probes.reading import QUANTILES, Reading
from rnnstudy.probes.schedule import Every, ReadingSchedule
from rnnstudy.spec import Spec

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
        layers: on the side batch, the trajectories with all that the scaled engine keeps of them: forward states,
            inputs' gradients, Jacobians; none for a training batch.
        informative: on the side batch, where the inputs say what the answer depends on.
    """

    trajectories: Sequence[Trajectory]
    states: tuple[str, ...]
    last: Int[Tensor, "replica batch"]
    scale: float = 1.0
    layers: Sequence[ScaledTrajectory] = ()
    informative: Bool[Tensor, "time replica batch"] | None = None

    def labelled(self) -> list[tuple[str, Float[Tensor, "time replica batch"]]]:
        """(label, log10 ‖dℓ_b/ds_t‖) for every layer and state; labels are `h`, or `h_layer2` in a deeper network."""
        # Plain numbers travel with the operation; a tensor of one would be a copy that the host waits for.
        shift = math.log10(self.scale)
        return [
            (
                layer_label(state, layer, len(self.trajectories)),
                trajectory.log_norms(state) + shift,
            )
            for layer, trajectory in enumerate(self.trajectories)
            for state in self.states
        ]

    def until_last(self) -> Bool[Tensor, "time replica batch"]:
        """The steps of the side batch up to each sequence's last supervised one: what the loss can depend on."""
        time = len(self.layers[0].arriving().exponent)
        return torch.arange(time, device=self.last.device)[:, None, None] <= self.last

    def labelled_layers(self) -> list[tuple[Callable[[str], str], ScaledTrajectory]]:
        """For each layer of the side batch: what turns a name into the layer's label, and its trajectory."""
        count = len(self.layers)
        return [
            (functools.partial(layer_label, layer=layer, layers=count), trajectory)
            for layer, trajectory in enumerate(self.layers)
        ]


def _no_side_batch(sequences: int) -> BackwardPass:
    raise RuntimeError("this moment has no side batch; rnnstudy.training.evaluation.side_batch makes one")


@dataclass(frozen=True)
class Moment:
    """What a probe may look at.

    Attributes:
        stage: before the first update, during training, or after the last.
        step: updates made so far.
        parameters: the weights.
        before, after: the parameter gradients before and after clipping; empty outside training.
        through_time: the training batch's gradients; None outside training and where no probe asked for them.
        side_batch: gradients through time, in float64 by the scaled engine, of the loss at each sequence's last
            supervised step alone, on so many fixed sequences that no training step sees; computed when it is asked for.
        cell: the recurrence of every layer.
    """

    stage: Stage
    step: int
    parameters: Parameters
    before: Gradients
    after: Gradients
    through_time: BackwardPass | None
    side_batch: Callable[[int], BackwardPass] = _no_side_batch
    cell: Cell | None = None

    def named(self, name: str) -> str:
        """How a reading without a batch axis is called: `name` in training, a summary before and after it."""
        return name if self.stage == "training" else f"summary/{name}_{self.stage}"

    def scalar(self, group: str, name: str) -> str:
        """As `named`, for one of a group of readings: `group/name` in training."""
        return f"{group}/{name}" if self.stage == "training" else f"summary/{group}_{name}_{self.stage}"

    def curve(self, name: str) -> str:
        """How a reading with axes is called: `name` in training, with the stage appended before and after it."""
        return name if self.stage == "training" else f"{name}_{self.stage}"


class Probe(Spec):
    """Something measured. It is read at the initial and final moment, and in between at every `every` updates.

    `every` may be a `Schedule` instead: `LogSpaced()`, or `StartAndEnd()` for none in between. A probe never changes
    training: the weights are bit-identical with and without it.
    """

    source: ClassVar[str]

    observes: ClassVar[bool] = False
    """Whether its training readings need the training batch's gradients through time."""

    every: Every = 1

    def due(self, step: int) -> bool:
        """Whether the probe is read in training when so many updates have been made."""
        return self.every.due(step) if isinstance(self.every, ReadingSchedule) else step % self.every == 0

    @property
    def spacing(self) -> int:
        """Updates between two readings; 0 where they are not evenly spaced."""
        return 0 if isinstance(self.every, ReadingSchedule) else self.every

    @abstractmethod
    def read(self, moment: Moment) -> list[Reading]:
        """The readings of this moment; values keep the leading replica axis, the batch is reduced.

        A reading named `summary/…` is a scalar for the table of runs.
        """


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
    most = (count - 1).clamp(min=0).to(values.dtype)
    place = torch.cat([quantile * most for quantile in QUANTILES], dim=-1)
    low = ranked.gather(-1, place.floor().long())
    high = ranked.gather(-1, place.ceil().long())
    between = low + (high - low) * (place - place.floor())
    # Where the place is a whole number, low and high are one entry, and inf − inf must not spoil it.
    exact = torch.where(low == high, low, between)
    found = torch.where(torch.isfinite(exact) & (count > 0), exact, torch.nan)
    return found.permute(1, 2, 0)
