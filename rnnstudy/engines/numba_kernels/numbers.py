"""Elementary functions that compile to vector code, and rows of numbers that keep an exponent beside them."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rnnstudy.engines.numba_kernels.compiling import DEFINED

SUMS = DEFINED | {"reassoc"}
"""A sum may be taken in any order."""

# Adding it rounds a small float to the nearest whole number, which then stands in the lowest bits.
ROUNDING = np.float32(1.5 * 2**23)
ROUNDING_BITS = np.int32(ROUNDING.view(np.int32))
LOG2_E = np.float32(1.44269504)
# ln 2 in two parts, so that subtracting its multiples is exact.
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LARGEST_EXPONENT = np.float32(88.0)
ONE, HALF, TWO = np.float32(1), np.float32(0.5), np.float32(2)

LEAST_SQUARE, MOST_SQUARE = np.float32(2.0**-32), np.float32(2.0**32)
"""A row is rescaled when its sum of squares leaves this range."""

ZERO_EXPONENT = -(2**20)
"""Exponent of a row of zeros."""


def _cast(signature: Any, kind: Any) -> Any:
    """The same bits as another type."""
    return signature, lambda context, builder, _, arguments: builder.bitcast(arguments[0], kind)


def _bits_of(typing_context: Any, x: Any) -> Any:
    """A float32's bits as an int32."""
    return _cast(types.int32(types.float32), ir.IntType(32))


def _from_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 with an int32's bits."""
    return _cast(types.float32(types.int32), ir.FloatType())


bits_of: Any = intrinsic(_bits_of)
from_bits: Any = intrinsic(_from_bits)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def exponential(x):
    """e^x within 1e-7 of its value for x from -88 to 88, beyond as at the bound. By the polynomial of Cephes' expf."""
    x = LARGEST_EXPONENT if x > LARGEST_EXPONENT else x
    x = -LARGEST_EXPONENT if x < -LARGEST_EXPONENT else x
    shifted = x * LOG2_E + ROUNDING
    whole = shifted - ROUNDING
    r = x - whole * LN_2_HIGH
    r = r - whole * LN_2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + HALF
    p = p * r * r + r + ONE
    return p * from_bits(np.int32((bits_of(shifted) - ROUNDING_BITS + np.int32(127)) << np.int32(23)))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def sigmoid(x):
    """1/(1 + e^-x)."""
    return ONE / (ONE + exponential(-x))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def tanh(x):
    """tanh x: Cephes' polynomial near 0, otherwise by the exponential. Not a number stays not a number."""
    square = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * square + np.float32(2.06390887954e-2)
    p = p * square + np.float32(-5.37397155531e-2)
    p = p * square + np.float32(1.33314422036e-1)
    p = p * square + np.float32(-3.33332819422e-1)
    near = p * square * x + x
    size = -x if x < 0 else x
    far = ONE - TWO / (exponential(size + size) + ONE)
    far = -far if x < 0 else far
    return near if size < np.float32(0.625) else far


@njit(nogil=True)
def power(n):
    """2^n; 0 below float32's normal range and infinite above."""
    if n < -126:
        return np.float32(0)
    return from_bits(np.int32((min(n, 128) + 127) << 23))


@njit(nogil=True)
def exponent_of(x):
    """The exponent of a float32: floor(log2 |x|) for normal numbers."""
    return ((bits_of(x) >> 23) & 255) - 127


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def scale(row, n):
    """row *= 2^n, in two factors, since 2^n itself may leave the range where the result does not."""
    first = power(n >> 1)
    second = power(n - (n >> 1))
    for j in range(row.shape[0]):
        row[j] = row[j] * first * second


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def scale_rows(rows, exponents, most):
    """rows·2^exponents become rows·2^most: each row (row, number) is multiplied by 2^(its exponent − most)."""
    for row in range(rows.shape[0]):
        if exponents[row] != most:
            n = exponents[row] - most
            first = power(n >> 1)
            second = power(n - (n >> 1))
            for j in range(rows.shape[1]):
                rows[row, j] = rows[row, j] * first * second


@njit(nogil=True, error_model="numpy", fastmath=SUMS)
def sums_of_squares(rows, sums):
    """(row, number) to (row)."""
    for row in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            total += rows[row, j] * rows[row, j]
        sums[row] = total


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def largest(row):
    """The largest size in a row; what is not a number does not count."""
    found = np.float32(0)
    for j in range(row.shape[0]):
        size = abs(row[j])
        found = size if size > found else found
    return found


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _measure_far_out(row):
    """As `measure`, for a row whose plain sum of squares has left the range of floats or come near its ends."""
    top = largest(row)
    if top == 0 or top == np.inf:
        return top, 0
    n = exponent_of(top)
    first, second = power((-n) >> 1), power(-n - ((-n) >> 1))
    total = np.float32(0)
    for j in range(row.shape[0]):
        value = row[j] * first * second
        total += value * value
    return total, n


@njit(nogil=True)
def well_within(squares):
    """Whether a row with this sum of squares may stay as it is: near 1, or not a number, which nothing mends."""
    return LEAST_SQUARE <= squares <= MOST_SQUARE or np.isnan(squares)


@njit(nogil=True)
def measure(row, squares):
    """(s, n) with the row's sum of squares = s·4^n, where `squares` is what a plain sum gave; n is 0 near 1."""
    if well_within(squares):
        return squares, 0
    return _measure_far_out(row)


@njit(nogil=True)
def settle(rows, exponent, squares, exponents):
    """Bring each of the rows·2^exponent near 1, and note ‖row‖² = squares·4^exponents for each.

    Args:
        rows: (row, number), changed where far from 1.
        exponent: (row), changed with them.
        squares, exponents: (row), to be written.
    """
    sums_of_squares(rows, squares)
    for row in range(rows.shape[0]):
        if not well_within(squares[row]):
            squares[row], far_out = _measure_far_out(rows[row])
            if far_out != 0:
                scale(rows[row], -far_out)
            exponent[row] = ZERO_EXPONENT if squares[row] == 0 else exponent[row] + far_out
        exponents[row] = exponent[row]


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def inject(row, exponent, added, companion):
    """row·2^exponent += added, keeping the exponent beside: returns the new one. `companion` shares the exponent.

    `added` (width) may be shorter than the padded `row`.
    """
    top = np.float32(0)
    broken = False
    for j in range(added.shape[0]):
        size = abs(added[j])
        broken |= not size < np.inf
        top = size if size > top else top
    if top == 0 and not broken:
        return exponent
    wanted = 0 if broken else exponent_of(top)
    if wanted > exponent:
        scale(row, exponent - wanted)
        scale(companion, exponent - wanted)
        exponent = wanted
    first = power((-exponent) >> 1)
    second = power(-exponent - ((-exponent) >> 1))
    for j in range(added.shape[0]):
        row[j] += added[j] * first * second
    return exponent
