"""Numbers beyond a float's range: value = mantissa · 2^exponent, a float and an integer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ZERO_EXPONENT = -(2**40)
"""The exponent of an exact zero: below every other exponent, and far from the limit of a 64-bit integer."""

LOG10_2 = math.log10(2)

FLOAT_FORMAT = {torch.float64: (1023, 52, torch.int64), torch.float32: (127, 23, torch.int32)}
"""Of each float type: the bias of the exponent, the number of fraction bits, and the integer type of the same size."""


@dataclass(frozen=True)
class BlockFloat:
    """Blocks of numbers; the numbers of a block share one exponent.

    Attributes:
        mantissa: (*blocks, *within), in float32 or float64.
        exponent: (*blocks), 64-bit integers.
    """

    mantissa: Tensor
    exponent: Tensor

    @staticmethod
    def of(values: Tensor, blocks: int) -> "BlockFloat":
        """From plain numbers; the first `blocks` axes are the axes of blocks, the others lie within a block."""
        exponent = torch.zeros(values.shape[:blocks], dtype=torch.int64, device=values.device)
        return BlockFloat(values, exponent).normalised()

    def normalised(self) -> "BlockFloat":
        """The same numbers with each block's largest mantissa in [½, 1).

        Scaling is by powers of two, hence exact. An entry so much smaller than the block's largest one that arithmetic
        with it would be denormal (2⁻⁹⁶ times in float32, 2⁻⁹⁶⁰ in float64) becomes zero. A block of zeros gets the
        exponent `ZERO_EXPONENT`; a block with an entry that is not finite is left unchanged.
        """
        largest = self.mantissa.abs().flatten(self.exponent.ndim).amax(-1)
        shift = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0).to(torch.int64)
        exponent = torch.where(largest == 0, ZERO_EXPONENT, self.exponent + shift)
        bias = FLOAT_FORMAT[self.mantissa.dtype][0]
        mantissa = torch.nn.functional.hardshrink(self._scaled(-shift), 2.0 ** (64 - bias))
        return BlockFloat(mantissa, exponent)

    def plus(self, other: "BlockFloat") -> "BlockFloat":
        """The sum, block by block, at the larger of the two exponents."""
        exponent = torch.maximum(self.exponent, other.exponent)
        mantissa = self._scaled(self.exponent - exponent) + other._scaled(other.exponent - exponent)
        return BlockFloat(mantissa, exponent)

    def aligned(self, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mantissas rescaled so that all blocks along `axes` share an exponent, and those exponents (`axes` kept as 1).

        The shared exponent is the largest; entries that fall below the mantissa's range become zero.
        """
        shared = self.exponent.amax(tuple(axes), keepdim=True)
        return self._scaled(self.exponent - shared), shared

    def values(self) -> Tensor:
        """Plain numbers: infinite or zero where they leave a float's range."""
        # 0 · 2^3000 is 0, where the product of the two as floats would be NaN.
        return torch.where(self.mantissa == 0, self.mantissa, self._scaled(self.exponent))

    def log_norms(self) -> Tensor:
        """log10 of each block's Euclidean norm (*blocks), in float64; −inf for zeros, NaN or +inf if not finite."""
        entries = self.mantissa.double().flatten(self.exponent.ndim)
        # Squares leave float64's range before their root does.
        largest = entries.abs().amax(-1)
        norms = torch.linalg.vector_norm(entries / torch.where(largest > 0, largest, 1.0).unsqueeze(-1), dim=-1)
        return norms.log10() + largest.log10() + torch.where(largest > 0, self.exponent, 0).double() * LOG10_2

    def _scaled(self, exponent: Tensor) -> Tensor:
        """mantissa · 2^exponent, `exponent` (*blocks); in two factors, each in range wherever the product is."""
        half = exponent.div(2, rounding_mode="floor")
        dtype, within = self.mantissa.dtype, (1,) * (self.mantissa.ndim - self.exponent.ndim)
        first, second = (power_of_two(part, dtype).view(*part.shape, *within) for part in (half, exponent - half))
        return self.mantissa * first * second


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent, exactly: 0 below the range of normal numbers, infinite above it."""
    bias, fraction_bits, integer = FLOAT_FORMAT[dtype]
    # The bit pattern of a power of two is its biased exponent alone; 0 is zero, the largest is infinity.
    biased = (exponent + bias).clamp(0, 2 * bias + 1)
    return (biased << fraction_bits).to(integer).view(dtype)
