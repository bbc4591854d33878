"""The contract of a task: it draws sequences and defines loss, measures, success criterion and chance level."""

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.spec import Spec, SpecError, at_least


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of one data seed, padded at their end to `task.steps` time steps.

    Attributes:
        inputs: what the network reads, zero after the end of a sequence; of a task whose inputs are symbols, these
            (time, batch, 1) as whole numbers from 0 to features − 1, and −1, which is nothing, after the end.
        targets: what it should output: class numbers, or one number for each output.
        mask: the supervised steps, which the loss is computed on; each sequence has at least one.
        lengths: time steps of each sequence.
        informative: the steps whose input the answer depends on.
    """

    inputs: Float[Tensor, "time batch features"] | Int[Tensor, "time batch 1"]
    targets: Shaped[Tensor, "time batch *outputs"]
    mask: Bool[Tensor, "time batch"]
    lengths: Int[Tensor, " batch"]
    informative: Bool[Tensor, "time batch"]

    def part(self, start: int, stop: int) -> "Batch":
        """The sequences `start` to `stop` (exclusive)."""
        by_time = {name: values[:, start:stop] for name, values in vars(self).items() if name != "lengths"}
        return Batch(**by_time, lengths=self.lengths[start:stop])

    def parts(self, size: int) -> list["Batch"]:
        """`size` sequences after another; the last part may have fewer."""
        split = [values.split(size, 0 if name == "lengths" else 1) for name, values in vars(self).items()]
        return [Batch(**dict(zip(vars(self), values, strict=True))) for values in zip(*split, strict=True)]

    @staticmethod
    def joined(parts: Sequence["Batch"]) -> "Batch":
        """The sequences of all parts, in order."""
        return Batch(
            **{
                name: torch.cat([getattr(part, name) for part in parts], 0 if name == "lengths" else 1)
                for name in vars(parts[0])
            }
        )

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: values.to(device) for name, values in vars(self).items()})


@dataclass(frozen=True)
class Chance:
    """Mean loss and mean error of the best predictor that sees no input.

    `loss` in nats (cross-entropy) or squared units (squared error); `error` in the unit of the task's error.
    """

    loss: float
    error: float


@dataclass(frozen=True)
class Criterion:
    """A task is solved when the mean error is below `threshold`.

    `words` states the criterion as the source does; `error` is the name of the error, for the axis of a figure.
    """

    threshold: float
    words: str
    error: str

    def met(self, error: float) -> bool:
        return error < self.threshold


def rarely(wrong: str) -> Criterion:
    """Solved when less than 1 % of sequences have what `wrong` says."""
    return Criterion(0.01, f"{wrong} on less than 1 % of sequences", f"share of sequences with {wrong}")


class Task(Spec):
    """A task: sequences, their targets, and how outputs are evaluated.

    `length` is the published T; `steps`, the longest sequence, may differ from it (copy memory: T + 20). Sampling is
    vectorised over the batch. The training loop uses only what is declared here.
    """

    length: Annotated[int, at_least(1)]

    source: ClassVar[str]
    """Where the task comes from, in one line."""

    loss_unit: ClassVar[str]
    """Unit of the loss: `nats`, or `squared error`."""

    @property
    def steps(self) -> int:
        """Time steps of the longest sequence."""
        return self.length

    @property
    @abstractmethod
    def features(self) -> int:
        """Number of inputs at each step, or of different symbols."""

    @property
    def inputs_are_symbols(self) -> bool:
        """Whether a batch holds one of `features` symbols for each step, as a whole number, and not a one-hot vector.

        x_t W_xh is then a row of W_xh, and its gradient a scatter-add: the same network, whose batches do not grow with
        the vocabulary. Where that is a fixed alphabet of a few letters, one-hot vectors cost as little.
        """
        return False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs at each step."""

    @abstractmethod
    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        """Draw `batch` sequences, which depend on the generator alone."""

    @abstractmethod
    def loss(
        self,
        outputs: Float[Tensor, "time replica batch outputs"],
        targets: Shaped[Tensor, "time replica batch *values"],
    ) -> Float[Tensor, "time replica batch"]:
        """The loss at each step and sequence, before the mean over the supervised steps."""

    @abstractmethod
    def measures(
        self,
        outputs: Float[Tensor, "time replica batch outputs"],
        targets: Shaped[Tensor, "time replica batch *values"],
        mask: Bool[Tensor, "time replica batch"],
    ) -> Mapping[str, Float[Tensor, "replica batch"]]:
        """One number per sequence and measure. `error` (lower is better) decides success; the others are reported."""

    @property
    @abstractmethod
    def criterion(self) -> Criterion:
        """When the task counts as solved, as published where a criterion was published."""

    @property
    @abstractmethod
    def chance(self) -> Chance:
        """Loss and error of the best predictor that sees no input, in closed form."""

    @property
    def least_loss(self) -> float:
        """The mean loss of `perfect_outputs`: 0, unless the targets are partly random."""
        return 0.0

    def perfect_outputs(self, targets: Shaped[Tensor, "time batch *values"]) -> Float[Tensor, "time batch outputs"]:
        """Outputs without error for these targets, as of a network that has learned the task."""
        if targets.is_floating_point():
            return targets
        return 50 * one_hot(targets, self.outputs)

    def split(self, purpose: str) -> "Task":
        """The task to draw sequences from for `purpose`: `training`, `validation`, `test`, `probe`, or `length 200`.

        A synthetic task draws fresh sequences for every purpose and returns itself. A task that draws from a data set
        returns the task of its training, validation or test part. Shapes, loss and measures are the same.
        """
        return self

    def with_length(self, length: int) -> Self:
        """The same task at another published length T."""
        return self.replace(length=length)

    def require_length(self, shortest: int, why: str) -> None:
        """Raises `SpecError` when the length is below `shortest`."""
        if self.length < shortest:
            raise SpecError(f"{type(self).__name__}.length is {self.length}; it must be at least {shortest}, {why}")


def supervised_at_end(
    inputs: Shaped[Tensor, "time batch features"],
    answer: Shaped[Tensor, "batch *outputs"],
    informative: Bool[Tensor, "time batch"],
    lengths: Int[Tensor, " batch"] | None = None,
) -> Batch:
    """A batch with the target `answer` at the last step of each sequence, the only supervised one.

    `lengths`: time steps of each sequence; all steps of `inputs` when None.
    """
    steps, batch = inputs.shape[:2]
    lengths = torch.full((batch,), steps) if lengths is None else lengths
    targets = answer.new_zeros(steps, *answer.shape)
    targets[lengths - 1, torch.arange(batch)] = answer
    mask = at_steps(steps, lengths - 1)
    return Batch(inputs=inputs, targets=targets, mask=mask, lengths=lengths, informative=informative)


@functools.cache
def supervision(task: Task) -> Literal["at the end", "from the first step", "at some steps"]:
    """Which steps of a sequence are supervised, as eight sequences show that the task draws: the last one alone (many
    to one), some or all from the first one on (synchronised), or some of which the first is none."""
    mask = task.sample(8, torch.Generator().manual_seed(0)).mask
    if (mask.sum(0) == 1).all() and len(mask) > 1:
        return "at the end"
    return "from the first step" if mask[0].all() else "at some steps"


def mean_over_supervised(values: Float[Tensor, "time *any"], mask: Bool[Tensor, "time *any"]) -> Float[Tensor, "*any"]:
    """The mean over the supervised steps of each sequence: ℓ_b = Σ_t m_{t,b} v_{t,b} / Σ_t m_{t,b}."""
    # Summed along contiguous memory: the bits of a sum do not depend on how many sequences there are.
    return (values * mask).movedim(0, -1).contiguous().sum(-1) / mask.sum(0)


def last_supervised(mask: Bool[Tensor, "time batch"]) -> Int[Tensor, " batch"]:
    """τ_b − 1: the index, counted from 0, of the last supervised step of each sequence."""
    steps = torch.arange(mask.shape[0], device=mask.device)
    return (steps[:, None] * mask).amax(0)


def cross_entropy(
    outputs: Float[Tensor, "time *any classes"], targets: Int[Tensor, "time *any"]
) -> Float[Tensor, "time *any"]:
    """−log softmax(outputs)[target], in nats."""
    chosen = outputs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return outputs.logsumexp(-1) - chosen


def squared_error(
    outputs: Float[Tensor, "time *any values"], targets: Float[Tensor, "time *any values"]
) -> Float[Tensor, "time *any"]:
    """Σ (output − target)² over the outputs."""
    return (outputs - targets).square().sum(-1)


def misclassified(
    outputs: Float[Tensor, "time *any classes"], targets: Int[Tensor, "time *any"]
) -> Float[Tensor, "time *any"]:
    """1 where the largest output is not the target's, otherwise 0."""
    return (outputs.argmax(-1) != targets).to(outputs.dtype)


def beyond(
    outputs: Float[Tensor, "time *any classes"], targets: Int[Tensor, "time *any"], tolerance: float
) -> Float[Tensor, "time *any"]:
    """1 where any probability softmax(outputs) is `tolerance` or more away from its target 0 or 1, otherwise 0.

    The rule of Hochreiter & Schmidhuber 1997 for a wrong output, whose outputs were logistic instead of a softmax.
    """
    wanted = torch.nn.functional.one_hot(targets, outputs.shape[-1])
    return ((outputs.softmax(-1) - wanted).abs().amax(-1) >= tolerance).to(outputs.dtype)


def any_supervised(values: Float[Tensor, "time *any"], mask: Bool[Tensor, "time *any"]) -> Float[Tensor, "*any"]:
    """The largest value over the supervised steps of each sequence; for zeros and ones: whether any is 1."""
    return (values * mask).amax(0)


def one_hot(symbols: Int[Tensor, "time *any"], size: int) -> Float[Tensor, "time *any size"]:
    # Equals torch.nn.functional.one_hot, but is floating point at once.
    return torch.nn.functional.embedding(symbols, torch.eye(size))


def numbered(symbols: Int[Tensor, "time batch"], read: Bool[Tensor, "time batch"] | None = None) -> Tensor:
    """Symbols as the inputs (time, batch, 1) of a batch; where `read` is False, nothing is read."""
    known = symbols if read is None else torch.where(read, symbols, NOTHING)
    return known.to(torch.int32).unsqueeze(-1)


def uniform_whole(
    low: Int[Tensor, " batch"] | int, high: Int[Tensor, " batch"] | int, batch: int, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """An integer for each sequence, uniform on low, …, high − 1; the bounds may differ between sequences."""
    low, high = torch.as_tensor(low), torch.as_tensor(high)
    drawn = torch.rand(batch, generator=generator, dtype=torch.float64)
    return low + (drawn * (high - low)).long().clamp(max=(high - low) - 1)


def inside(steps: int, lengths: Int[Tensor, " batch"]) -> Bool[Tensor, "time batch"]:
    """True at the steps of a sequence, False after its end."""
    return torch.arange(steps)[:, None] < lengths


def at_steps(steps: int, *positions: Int[Tensor, " batch"]) -> Bool[Tensor, "time batch"]:
    """True where the time index equals one of the `positions` of the sequence."""
    time = torch.arange(steps)[:, None]
    return torch.stack([time == position for position in positions]).any(0)
