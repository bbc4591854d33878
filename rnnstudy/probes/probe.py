"""The contract of a probe: it measures something at a moment of training and changes nothing."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters, layer_label
from rnnstudy.cells.one_hot import dense_vectors
from rnnstudy.engines.engine import Trajectory
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.engines.scaled_maps import Stream, Symbols
from rnnstudy.optimisers.clipping import Gradients
from rnnstudy.probes.reading import QUANTILES, Reading
from rnnstudy.probes.schedule import Every, ReadingSchedule
from rnnstudy.spec import Spec

Stage = Literal["initial", "training", "final"]


@dataclass(frozen=True)
class BackwardPass:
    """The gradients through time of one batch, for every layer.

    Attributes:
        trajectories: one for each layer, lowest layer first; in a bidirectional network two, the reverse one second.
        states: names of the states of the cell.
        last: index (from 0) of the last supervised step of each sequence: τ_b − 1.
        scale: factor from the gradient of the differentiated loss to the gradient of the loss of one sequence (the
            batch size, if the mean over the batch was differentiated).
        layers: for a side batch, the trajectories of the scaled engine, which also have forward states, gradients of
            the inputs and Jacobians; empty for a training batch.
        informative: for a side batch, True at the steps whose input the answer depends on.
        suffixes: for each trajectory, what the names of its readings end with; by its layer when empty.
        reverse: for a side batch, for each trajectory, whether its recurrence reads the sequences from their end. Its
            first step is then the last of the sequence, and `last` its end: the state at time t has lag t − 1.
        inputs: for a side batch, what the network reads; what the lowest layer reads when None.
        vocabulary: how many symbols there are, where the network reads symbols.
        streams: for a side batch of a network with blocks or two directions, what knows the gradients of what the
            network reads, and of what each layer reads: the stream r of a block, lowest first.
        with_inputs: for a side batch, a function that returns the layers when the network reads other inputs.
    """

    trajectories: Sequence[Trajectory]
    states: tuple[str, ...]
    last: Int[Tensor, "replica batch"]
    scale: float = 1.0
    layers: Sequence[ScaledTrajectory] = ()
    informative: Bool[Tensor, "time replica batch"] | None = None
    suffixes: Sequence[str] = ()
    reverse: Sequence[bool] = ()
    inputs: Shaped[Tensor, "time replica batch features"] | None = None
    vocabulary: int | None = None
    streams: Sequence[Stream | Symbols] = ()
    with_inputs: Callable[[Tensor], Sequence[ScaledTrajectory]] | None = None

    def labelled(self) -> list[tuple[str, Float[Tensor, "time replica batch"]]]:
        """(label, log10 ‖dℓ_b/ds_t‖) for every layer, direction and state; labels are `h`, or `h_layer2` in a deeper
        network, or `h_reverse`."""
        shift = math.log10(self.scale)  # a plain number: a tensor would have to be copied to the device
        return [
            (state + suffix, trajectory.log_norms(state) + shift)
            for suffix, trajectory in zip(self._endings(len(self.trajectories)), self.trajectories, strict=True)
            for state in self.states
        ]

    def _endings(self, count: int) -> Sequence[str]:
        """The suffix of each of `count` trajectories."""
        return self.suffixes or [layer_label("", layer, count) for layer in range(count)]

    @property
    def time(self) -> int:
        """Time steps of the side batch, the same for every run of a task."""
        return len(self.layers[0].unroll.inputs)

    @property
    def network_inputs(self) -> Shaped[Tensor, "time replica batch features"]:
        """What the network reads, numbers or symbols."""
        return self.layers[0].unroll.inputs if self.inputs is None else self.inputs

    def input_log_norms(self) -> Float[Tensor, "time replica batch"]:
        """log10 ‖dℓ_b/dx_t‖, with x_t what the network reads at step t.

        Of a symbol, x_t is the one-hot vector, or with an embedding x_t W_xe.
        """
        return self.streams[0].log_norms() if self.streams else self.layers[0].input_log_norms()

    def read_vectors(self, inputs: Shaped[Tensor, "replica row features"]) -> Float[Tensor, "replica row vectors"]:
        """Inputs of the network as vectors: symbols as one-hot vectors, and numbers unchanged."""
        return dense_vectors(inputs, self.vocabulary, self.layers[0].unroll.parameters)

    def log_norms_read_by_layers(self) -> list[Float[Tensor, "time replica batch"]]:
        """For each layer, lowest first, log10 of the norm of the gradient of what it reads at each step.

        In a network of blocks that is the residual stream.
        """
        count = sum(not reverse for reverse in self.reversed_layers)
        return [stream.log_norms() for stream in self.streams[-count:]] or [
            layer.input_log_norms() for layer in self.layers
        ]

    def layers_reading(self, inputs: Shaped[Tensor, "time replica batch features"]) -> Sequence[ScaledTrajectory]:
        """The layers, lowest first, when the network reads other inputs. Raises `RuntimeError` when that is unknown."""
        if self.with_inputs is None:
            raise RuntimeError("this side batch cannot be computed with other inputs; side_batch makes one that can")
        return self.with_inputs(inputs)

    def until_last(self) -> Bool[Tensor, "time replica batch"]:
        """True at the steps of the side batch up to the last supervised one, which the loss can depend on."""
        return torch.arange(self.time, device=self.last.device)[:, None, None] <= self.last

    @property
    def reversed_layers(self) -> Sequence[bool]:
        """For each recurrence of the side batch, whether it reads the sequences from their end."""
        return self.reverse or (False,) * len(self.layers)

    def labelled_layers(self) -> list[tuple[Callable[[str], str], ScaledTrajectory]]:
        """For each layer and direction of the side batch: a function from a name to its label, and the trajectory."""
        return [
            (functools.partial(_with_suffix, suffix=suffix), trajectory)
            for suffix, trajectory in zip(self._endings(len(self.layers)), self.layers, strict=True)
        ]


def _with_suffix(name: str, suffix: str) -> str:
    return name + suffix


def _no_side_batch(sequences: int) -> BackwardPass:
    raise RuntimeError("this moment has no side batch; rnnstudy.training.evaluation.side_batch makes one")


@dataclass(frozen=True)
class Moment:
    """Everything that a probe can read.

    Attributes:
        stage: before the first update, during training, or after the last update.
        step: number of updates made so far.
        parameters: the current parameters.
        before, after: the parameter gradients before and after clipping; empty outside training.
        through_time: gradients through time of the training batch; None outside training, or if no probe `observes`.
        side_batch: a function of a number of sequences; it returns the gradients through time on that many fixed
            sequences outside the training data, for the loss of the last supervised step alone, computed at the call
            in float64 by the scaled engine.
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
        """The name of a scalar reading: `name` during training, `summary/name_<stage>` before and after it."""
        return name if self.stage == "training" else f"summary/{name}_{self.stage}"

    def scalar(self, group: str, name: str) -> str:
        """The name of a scalar reading in a group: `group/name` in training, otherwise `summary/group_name_<stage>`."""
        return f"{group}/{name}" if self.stage == "training" else f"summary/{group}_{name}_{self.stage}"

    def curve(self, name: str) -> str:
        """The name of a reading with axes: `name` during training, `name_<stage>` before and after it."""
        return name if self.stage == "training" else f"{name}_{self.stage}"


class Probe(Spec):
    """A measurement, read at the initial and the final moment, and after every `every` updates in between.

    `every` may also be a `ReadingSchedule`: `LogSpaced()`, or `StartAndEnd()` for no reading in between. A probe never
    changes training: the weights are bit-identical with and without it.
    """

    source: ClassVar[str]

    observes: ClassVar[bool] = False
    """Whether its training readings need the training batch's gradients through time."""

    needs_jacobians: ClassVar[bool] = False
    """Whether it reads ∂s_t/∂s_{t−1} as a matrix, whose size is the square of the number of units of all states."""

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
        """The readings of this moment; values have a leading replica axis and no batch axis.

        A reading named `summary/…` is a scalar for the table of runs.
        """


def batch_quantiles(
    values: Float[Tensor, "position replica batch"], measured: Bool[Tensor, "position replica batch"]
) -> Float[Tensor, "replica quantile position"]:
    """The quantiles `QUANTILES` over the batch, linearly interpolated, of the measured entries at each position.

    −inf (an exact zero on the logarithmic scale) ranks lowest; +inf and NaN rank highest. A quantile that depends on
    such an entry is NaN, hence absent from the store; so is every quantile without measured entries.
    """
    ranked = torch.where(measured, values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), torch.inf)
    ranked = ranked.sort(dim=-1).values
    count = measured.sum(-1, keepdim=True)
    most = (count - 1).clamp(min=0).to(values.dtype)
    rank = torch.cat([quantile * most for quantile in QUANTILES], dim=-1)
    low = ranked.gather(-1, rank.floor().long())
    high = ranked.gather(-1, rank.ceil().long())
    interpolated = low + (high - low) * (rank - rank.floor())
    # inf − inf is NaN, although the quantile is known where both neighbours are equal.
    quantiles = torch.where(low == high, low, interpolated)
    return torch.where(torch.isfinite(quantiles) & (count > 0), quantiles, torch.nan).permute(1, 2, 0)
