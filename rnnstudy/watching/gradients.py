"""The gradients behind a profile: what is asked for beyond the norms of each sequence."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.spec import RequestError
from rnnstudy.watching.call import Call
from rnnstudy.watching.group import gradients_of_calls
from rnnstudy.watching.recompute import DirectionGradients


class Gradients(ABC):
    """The gradients at the states of one module, for each row (a layer in a direction).

    Attributes:
        gain_known: whether there is a `log_gain`.
    """

    gain_known: ClassVar[bool]

    @abstractmethod
    def of_units(self, state: str) -> list[BlockFloat]:
        """dL/ds_t of each row: blocks (time, sequence), within (unit)."""

    @abstractmethod
    def log_gain(self) -> Tensor:
        """(row, time, sequence): log10 of the factor by which a step back changes the gradient; see `Profile`.

        Raises `RequestError` where only the gradients themselves are known.
        """

    @abstractmethod
    def first_nonfinite(self) -> str | None:
        """Where, going back in time, a value first is not finite; None if nowhere."""


@final
class RecomputedGradients(Gradients):
    """Those of a recurrent module of torch.nn, computed from its calls when they are asked for."""

    gain_known: ClassVar[bool] = True

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    @functools.cached_property
    def _directions(self) -> list[DirectionGradients]:
        return gradients_of_calls(self._calls)

    def of_units(self, state: str) -> list[BlockFloat]:
        return [{"h": found.gradients.h, "c": found.gradients.c}[state] for found in self._directions]

    def log_gain(self) -> Tensor:
        return torch.stack([found.gradients.log_gain for found in self._directions])

    def first_nonfinite(self) -> str | None:
        for found in reversed(self._directions):
            bad = ~found.gradients.delta.mantissa.isfinite()
            steps = bad.flatten(1).any(1).nonzero().flatten()
            if len(steps):
                layer, reverse = found.direction
                step = int(steps[0] if reverse else steps[-1])
                blocks = bad[step].unflatten(-1, (len(found.gates), -1)).any(-1).any(0)
                gates = [gate for gate, is_bad in zip(found.gates, blocks.tolist(), strict=True) if is_bad]
                way = "reverse" if reverse else "forward"
                return f"layer {layer + 1} ({way}), step {step + 1}, gate {', '.join(gates)}"
        return None


@final
class ReceivedGradients(Gradients):
    """Those that torch's own backward pass brought: of a recurrence of one's own, or at what a module reads.

    Attributes:
        kind: class of the module.
        by_state: blocks (time, sequence), within (unit), zero after a sequence's end.
        reverse: whether the steps were computed from the last one to the first.
    """

    gain_known: ClassVar[bool] = False

    def __init__(self, kind: str, by_state: Mapping[str, BlockFloat], reverse: bool) -> None:
        self.kind, self.by_state, self.reverse = kind, by_state, reverse

    def of_units(self, state: str) -> list[BlockFloat]:
        return [self.by_state[state]]

    def log_gain(self) -> Tensor:
        raise RequestError(
            f"{self.kind} is no recurrent module of torch.nn: its gradients are known by position, but neither gates "
            "nor what one step back does to the gradient"
        )

    def first_nonfinite(self) -> str | None:
        bad = {state: ~values.mantissa.isfinite().flatten(1).all(1) for state, values in self.by_state.items()}
        steps = torch.stack(list(bad.values())).any(0).nonzero().flatten()
        if not len(steps):
            return None
        step = int(steps[0] if self.reverse else steps[-1])
        return f"step {step + 1}, state {', '.join(state for state, at in bad.items() if at[step])}"
