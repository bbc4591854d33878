"""Matrix products of a population whose bits do not depend on which replicas it has."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CACHE_LINE = 16
"""float32 numbers in a cache line of 64 bytes."""


def product(
    rows: Float[Tensor, "replica rows width"],
    weights: Float[Tensor, "replica width outputs"],
    bias: Float[Tensor, "replica outputs"] | None = None,
) -> Float[Tensor, "replica rows outputs"]:
    """rows · weights + bias, as one matrix product for each replica.

    Rows are padded to whole cache lines: the bits of a product depend on how its matrices lie in memory, and a run's
    bits must not depend on its place in a population.
    """
    width, outputs = weights.shape[1:]
    pad_width, pad_outputs = -width % CACHE_LINE, -outputs % CACHE_LINE
    padded_rows = functional.pad(rows, (0, pad_width))
    padded_weights = functional.pad(weights, (0, pad_outputs, 0, pad_width))
    if bias is None:
        return torch.bmm(padded_rows, padded_weights)[..., :outputs]
    return torch.baddbmm(functional.pad(bias, (0, pad_outputs)).unsqueeze(1), padded_rows, padded_weights)[
        ..., :outputs
    ]
