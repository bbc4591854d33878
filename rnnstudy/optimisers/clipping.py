"""Gradient clipping for each replica, between the backward pass and the update."""

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rnnstudy.spec import PER_REPLICA, Spec, above

Gradients = Mapping[str, Tensor]
"""Parameter name to gradient (replica, …)."""


@dataclass(frozen=True, eq=False)
class Rows(Mapping[str, Tensor]):
    """Gradients (or weights, or steps) whose numbers lie side by side, in one row for each replica.

    What is done to all of them is done once. They are not changed in place: their norms are kept.

    Attributes:
        numbers: (replica, number), those of each parameter after those of the one before.
        shapes: of each parameter's gradient (replica, …).
    """

    numbers: Float[Tensor, "replica number"]
    shapes: Mapping[str, torch.Size]

    @staticmethod
    def of(gradients: Gradients) -> "Rows":
        if isinstance(gradients, Rows):
            return gradients
        shapes = {name: values.shape for name, values in gradients.items()}
        return Rows(torch.cat([values.flatten(1) for values in gradients.values()], dim=1), shapes)

    @functools.cached_property
    def _views(self) -> dict[str, Tensor]:
        widths = [shape[1:].numel() for shape in self.shapes.values()]
        parts = self.numbers.split(widths, dim=1)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @functools.cached_property
    def norms(self) -> Float[Tensor, " replica"]:
        """Euclidean norm over all parameters of each replica together, in float64."""
        return replica_norms(self.numbers)

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Clip(Spec):
    """A rule that bounds the gradient of each replica by the threshold of that replica."""

    source: ClassVar[str]

    threshold: Annotated[float, above(0), PER_REPLICA] = 1.0

    @abstractmethod
    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> Gradients:
        """The clipped gradients; `thresholds` holds the `threshold` of each replica."""


class ClipNorm(Clip):
    """g ← g · min(1, threshold/‖g‖), with ‖g‖ the norm over all parameters of a replica together.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, algorithm 1"

    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> Rows:
        rows = Rows.of(gradients)
        factors = (thresholds / rows.norms).clamp(max=1.0).to(rows.numbers.dtype)
        return Rows(rows.numbers * factors[:, None], rows.shapes)


class ClipValue(Clip):
    """Each entry of g is limited to [−threshold, threshold]. Source: Mikolov 2012, section 3.2.2."""

    source: ClassVar[str] = "Mikolov 2012, section 3.2.2"

    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        return {
            name: torch.maximum(torch.minimum(gradient, limit), -limit)
            for name, gradient in gradients.items()
            for limit in [broadcast_replicas(thresholds.to(gradient.dtype), gradient)]
        }


def replica_norms(gradient: Tensor) -> Float[Tensor, " replica"]:
    """Euclidean norm for each replica of (replica, …), in float64 against under- and overflow of the squares."""
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)


def global_norms(gradients: Gradients) -> Float[Tensor, " replica"]:
    """Euclidean norm over all parameters of each replica together."""
    return Rows.of(gradients).norms


def broadcast_replicas(values: Shaped[Tensor, " replica"], like: Tensor) -> Tensor:
    """`values` reshaped so that they broadcast over `like` (replica, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))
