"""Numbers beyond a float's range: value = mantissa · 2^exponent, a float beside a whole number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ZERO_EXPONENT = -(2**40)
"""The exponent of an exact zero: below every other, and far from the end of a 64-bit integer."""

LOG10_2 = math.log10(2)

_LAYOUT = {torch.float64: (1023, 52, torch.int64), torch.float32: (127, 23, torch.int32)}
"""Of each type: the exponent's offset, the bits of the fraction, and the integer of the same size."""


@dataclass(frozen=True)
class BlockFloat:
    """Blocks of numbers, each block with an exponent of its own.

    Attributes:
        mantissa: (*blocks, *within), in float32 or float64.
        exponent: (*blocks), whole numbers in 64 bits.
    """

    mantissa: Tensor
    exponent: Tensor

    @staticmethod
    def of(values: Tensor, blocks: int) -> "BlockFloat":
        """Plain numbers; the first `blocks` axes tell the blocks apart."""
        exponent = torch.zeros(values.shape[:blocks], dtype=torch.int64, device=values.device)
        return BlockFloat(values, exponent).normalised()

    def normalised(self) -> "BlockFloat":
        """The same numbers with each block's largest mantissa in [½, 1).

        Scaling is by powers of two, hence exact. What is so much smaller than the block's largest entry that arithmetic
        with it would be denormal (2⁻⁹⁶ times in float32, 2⁻⁹⁶⁰ in float64) becomes zero; a block of zeros gets the
        exponent `NOTHING`, and one with an entry that is not finite stays as it is.
        """
        largest = self.mantissa.abs().flatten(self.exponent.ndim).amax(-1)
        shift = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0).to(torch.int64)
        exponent = torch.where(largest == 0, ZERO_EXPONENT, self.exponent + shift)
        offset = _LAYOUT[self.mantissa.dtype][0]
        mantissa = torch.nn.functional.hardshrink(self._times_two_to(-shift), 2.0 ** (64 - offset))
        return BlockFloat(mantissa, exponent)

    def plus(self, other: "BlockFloat") -> "BlockFloat":
        """The sum, block by block, at the larger of the two exponents."""
        exponent = torch.maximum(self.exponent, other.exponent)
        mantissa = self._times_two_to(self.exponent - exponent) + other._times_two_to(other.exponent - exponent)
        return BlockFloat(mantissa, exponent)

    def aligned(self, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mantissas under exponents that blocks along `axes` (of the exponent) share, and those exponents, axes kept.

        The shared exponent is the largest; what falls below the mantissa's range becomes zero.
        """
        shared = self.exponent.amax(tuple(axes), keepdim=True)
        return self._times_two_to(self.exponent - shared), shared

    def values(self) -> Tensor:
        """Plain numbers: infinite or zero where they leave a float's range."""
        return self._times_two_to(self.exponent)

    def log_norms(self) -> Tensor:
        """log10 of each block's Euclidean norm (*blocks), in float64; −inf for zeros, NaN or +inf if not finite."""
        entries = self.mantissa.double().flatten(self.exponent.ndim)
        # Squares leave float64's range before their root does.
        largest = entries.abs().amax(-1)
        norms = torch.linalg.vector_norm(entries / torch.where(largest > 0, largest, 1.0).unsqueeze(-1), dim=-1)
        return norms.log10() + largest.log10() + torch.where(largest > 0, self.exponent, 0).double() * LOG10_2

    def _times_two_to(self, exponent: Tensor) -> Tensor:
        """mantissa · 2^exponent, `exponent` (*blocks); in two factors, each in range where the product is."""
        half = exponent.div(2, rounding_mode="floor")
        dtype, inside = self.mantissa.dtype, (1,) * (self.mantissa.ndim - self.exponent.ndim)
        first, second = (power_of_two(part, dtype).view(*part.shape, *inside) for part in (half, exponent - half))
        return self.mantissa * first * second


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent, exactly: 0 below the range of normal numbers, infinite above it."""
    offset, fraction_bits, integer = _LAYOUT[dtype]
    # The bit pattern of a power of two is its biased exponent alone; 0 is zero, the largest is infinity.
    biased = (exponent + offset).clamp(0, 2 * offset + 1)
    return (biased << fraction_bits).to(integer).view(dtype)
