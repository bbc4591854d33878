"""The first informative input of every sequence, and the states from there on, aligned by its age."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass

WhichStates = Literal["output", "all"]
"""The output state of each layer alone, or all states of a layer side by side."""


@dataclass(frozen=True)
class FirstInformative:
    """The first informative step t_b of each sequence of a side batch.

    Attributes:
        step: t_b, counted from 0.
        marked: False for a sequence without such a step.
        inputs: x at step t_b, what the network reads there: a one-hot vector where that is a symbol.
        reached: True where the input can have the age: t_b + age ≤ τ_b, the last supervised step.
        last: index of the last supervised step.
    """

    step: Int[Tensor, "replica batch"]
    marked: Bool[Tensor, "replica batch"]
    inputs: Float[Tensor, "replica batch features"]
    reached: Bool[Tensor, "age replica batch"]
    last: Int[Tensor, "replica batch"]

    @staticmethod
    def of(batch: BackwardPass) -> "FirstInformative | None":
        """None for a task that marks no step up to the last supervised one, or marks them all.

        A network that reads nothing but informative inputs (parity, text) has no single input to be looked for.
        """
        if batch.informative is None:
            return None
        measured = batch.until_last()
        informative = batch.informative & measured
        some_of_many = informative.any(2).any(0) & (measured & ~informative).any(2).any(0)
        if not bool(some_of_many.any()):
            return None
        marked = informative.any(0) & some_of_many.unsqueeze(1)
        step = informative.long().argmax(0)  # the first of equal values
        ages = torch.arange(batch.time, device=step.device)[:, None, None]
        inputs = batch.network_inputs
        inputs = inputs.gather(0, step[None, ..., None].expand(1, -1, -1, inputs.shape[-1]))[0]
        inputs = batch.read_vectors(inputs)
        return FirstInformative(step, marked, inputs, marked & (step + ages <= batch.last), batch.last)

    def seen_by(self, reverse: bool) -> "FirstInformative":
        """The same input, at the step at which a recurrence reads it, in the order in which the recurrence reads."""
        if not reverse:
            return self
        step = self.last - self.step
        ages = torch.arange(len(self.reached), device=step.device)[:, None, None]
        return FirstInformative(step, self.marked, self.inputs, self.marked & (step + ages <= self.last), self.last)

    def by_age(self, values: Float[Tensor, "time replica batch width"]) -> Float[Tensor, "age replica batch width"]:
        """The values at step t_b + age; zeros where the age is not reached."""
        ages = torch.arange(len(values), device=values.device)[:, None, None]
        steps = (self.step + ages).clamp(max=len(values) - 1)
        aligned = values.gather(0, steps.unsqueeze(-1).expand(values.shape))
        return torch.where(self.reached.unsqueeze(-1), aligned, 0.0)

    @property
    def common(self) -> Bool[Tensor, "age replica"]:
        """The ages that at least half of the sequences reach."""
        return 2 * self.reached.sum(-1) >= self.reached.shape[-1]

    def at_largest_age(self, curve: Float[Tensor, "replica age"]) -> Float[Tensor, " replica"]:
        """The value at the largest age that at least half of the sequences reach; NaN if there is none."""
        ages = self.common.sum(0)
        values = curve.gather(1, (ages - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.where(ages > 0, values, torch.nan)


def state_of(layer: ScaledTrajectory, which: WhichStates) -> tuple[str, Float[Tensor, "time replica batch width"]]:
    """The output state and its name; or all states side by side, `joint`, of a cell that has several."""
    output = layer.unroll.cell.output
    if which == "output" or len(layer.widths) == 1:
        return output, layer.values(output)
    return "joint", torch.cat([layer.values(state) for state in layer.widths], dim=-1)
