"""Gradient clipping for each replica, between the backward pass and the update."""

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
    """A rule that bounds the gradient of each replica by the threshold of that replica."""

    source: ClassVar[str]

    threshold: Annotated[float, above(0), PER_REPLICA] = 1.0

    @abstractmethod
    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        """The clipped gradients; `thresholds` holds the `threshold` of each replica."""


class ClipNorm(Clip):
    """g ← g · min(1, threshold/‖g‖), with ‖g‖ the norm over all parameters of a replica together.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, algorithm 1"

    def apply(self, gradients: Gradients, thresholds: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        norms = global_norms(gradients)
        factors = (thresholds / norms).clamp(max=1.0).to(next(iter(gradients.values())).dtype)
        return {name: gradient * broadcast_replicas(factors, gradient) for name, gradient in gradients.items()}


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
    return replica_norms(concatenate_parameters(gradients))


def concatenate_parameters(parameters: Mapping[str, Tensor]) -> Float[Tensor, "replica numbers"]:
    """All parameters of each replica, flattened into one row."""
    return torch.cat([values.flatten(1) for values in parameters.values()], dim=1)


def broadcast_replicas(values: Shaped[Tensor, " replica"], like: Tensor) -> Tensor:
    """`values` reshaped so that they broadcast over `like` (replica, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))
