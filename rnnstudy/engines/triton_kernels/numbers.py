"""Elementary functions and powers of two for the kernels."""

import triton
import triton.language as tl

ZERO_EXPONENT = tl.constexpr(-(2**28))
"""The exponent of an exact zero: below every other exponent."""


@triton.jit
def tanh(x):
    """tanh x within 2e-7: an odd polynomial where 1 − 2/(e^{2x} + 1) would cancel. NaN stays NaN, ±∞ becomes ±1."""
    squared = x * x
    polynomial = -0.05378040 + squared * (0.020785147 + squared * -0.0058832332)
    polynomial = -0.33333296 + squared * (0.13331880 + squared * polynomial)
    return tl.where(tl.abs(x) < 0.6, x + x * squared * polynomial, 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0))


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def half_exponent(square):
    """⌊log2(square) / 2⌋ from the bits of a float; −64 for zero, 64 for infinity and NaN."""
    return (((square.to(tl.int32, bitcast=True) >> 23) & 255) - 127) >> 1


@triton.jit
def power_of_two(n):
    """2^n exactly for an integer n; 0 below −126."""
    bits = (tl.minimum(tl.maximum(n, -127), 127) + 127) << 23
    return bits.to(tl.float32, bitcast=True)
