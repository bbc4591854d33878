"""Gradient clipping, per replica. It happens between the backward pass and the step; a test holds it there."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rnnstudy.spec import PER_REPLICA, Spec, above

Gradients = Mapping[str, Tensor]
"""Parameter name to gradient (replica, …)."""


class Clip(Spec):
    """A rule that bounds each replica's gradient by a threshold of its own."""

    source: ClassVar[str]

    threshold: Annotated[float, above(0), PER_REPLICA] = 1.0

    @abstractmethod
    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        """The clipped gradients; `thresholds` holds each replica's `threshold`."""


class ClipNorm(Clip):
    """g ← g · min(1, threshold/‖g‖), with ‖g‖ the norm over all of a replica's parameters together.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, algorithm 1"

    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        norms = global_norms(gradients)
        factors = (thresholds / norms).clamp(max=1.0).to(next(iter(gradients.values())).dtype)
        return {name: gradient * per_replica(factors, gradient) for name, gradient in gradients.items()}


class ClipValue(Clip):
    """g ← each entry limited to [−threshold, threshold]. Source: Mikolov 2012, section 3.2.2."""

    source: ClassVar[str] = "Mikolov 2012, section 3.2.2"

    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        return {
            name: torch.maximum(torch.minimum(gradient, limit), -limit)
            for name, gradient in gradients.items()
            for limit in [per_replica(thresholds.to(gradient.dtype), gradient)]
        }


def norms_of(gradient: Tensor) -> Float[Tensor, " replica"]:
    """Euclidean norm of each replica's part, in float64 so that the sum of squares neither under- nor overflows."""
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)


def global_norms(gradients: Gradients) -> Float[Tensor, " replica"]:
    """Root of the sum of squares over all parameters of each replica."""
    return norms_of(side_by_side(gradients))


def side_by_side(parameters: Mapping[str, Tensor]) -> Float[Tensor, "replica numbers"]:
    """All numbers of each replica in one row, parameter after parameter."""
    return torch.cat([values.flatten(1) for values in parameters.values()], dim=1)


def per_replica(values: Shaped[Tensor, " replica"], like: Tensor) -> Tensor:
    """`values` shaped so that they broadcast over `like` (replica, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))
