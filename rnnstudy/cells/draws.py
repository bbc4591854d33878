"""How published recurrences draw their parameters: the distributions that several of them use."""

import math

import torch
from torch import Tensor

from rnnstudy.cells.cell import Draw


def normal(std: float) -> Draw:
    """N(0, `std`²)."""
    return lambda shape, generator, drawn: std * torch.randn(shape, generator=generator)


def uniform(low: float, high: float) -> Draw:
    """U(`low`, `high`)."""
    return lambda shape, generator, drawn: low + (high - low) * torch.rand(shape, generator=generator)


def log_uniform(low: float, high: float) -> Draw:
    """The logarithm of a number whose logarithm is uniform between log `low` and log `high`."""
    return uniform(math.log(low), math.log(high))


def constant(value: float) -> Draw:
    """Every number is `value`."""
    return lambda shape, generator, drawn: torch.full(shape, value)


def given(values: Tensor) -> Draw:
    """`values`, the same for every seed."""
    return lambda shape, generator, drawn: values.reshape(shape).clone()
