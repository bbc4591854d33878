"""Elementary functions that compile to vector code, and rows of numbers that each have an exponent."""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import FAST_MATH

SUMS = FAST_MATH | {"reassoc"}
"""The flags for sums, which may be taken in any order."""

# Adding it rounds a small float to the nearest integer, which is then in the lowest bits.
ROUNDING = np.float32(1.5 * 2**23)
ROUNDING_BITS = np.int32(ROUNDING.view(np.int32))
LOG2_E = np.float32(1.44269504)
# ln 2 in two parts, so that subtracting its multiples is exact.
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LARGEST_EXPONENT = np.float32(88.0)
SIGN, WITHOUT_SIGN = np.int32(-(2**31)), np.int32(2**31 - 1)
"""The sign of a float32 among its bits, and the others."""
ONE, HALF, TWO = np.float32(1), np.float32(0.5), np.float32(2)

LEAST_SQUARE, MOST_SQUARE = np.float32(2.0**-32), np.float32(2.0**32)
"""A row is rescaled when its sum of squares is outside this range."""

ZERO_EXPONENT = -(2**20)
"""Exponent of a row of zeros."""


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _exponential_parts(x):
    """(q, s) with e^x = s + s q, s a power of two; x is clamped to [-88, 88]. By the polynomial of Cephes' expf."""
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
    biased = np.float32(shifted).view(np.int32) - ROUNDING_BITS + np.int32(127)
    return p * r * r + r, np.int32(biased << np.int32(23)).view(np.float32)


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def exponential(x):
    """e^x, relative error 1e-7; x is clamped to [-88, 88]."""
    q, power = _exponential_parts(x)
    return (q + ONE) * power


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def sigmoid(x):
    """1/(1 + e^-x)."""
    return ONE / (ONE + exponential(-x))


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def tanh(x):
    """tanh x: E/(E + 2) near 0 and 1 − 2/(E + 2) elsewhere, with E = e^2|x| − 1. NaN stays NaN."""
    bits = np.float32(x).view(np.int32)
    size = np.int32(bits & WITHOUT_SIGN).view(np.float32)
    q, power = _exponential_parts(size + size)
    # Nothing cancels: near 0 the power is 1, and elsewhere power − 1 is exact or far from 0.
    excess = power * q + (power - ONE)
    inverse = ONE / (excess + TWO)
    y = excess * inverse if size < HALF else ONE - TWO * inverse
    return np.int32(np.float32(y).view(np.int32) | (bits & SIGN)).view(np.float32)


@njit(nogil=True)
def power_of_two(n):
    """2^n; 0 below float32's normal range and infinite above."""
    if n < -126:
        return np.float32(0)
    return np.int32((min(n, 128) + 127) << 23).view(np.float32)


@njit(nogil=True)
def exponent_of(x):
    """The exponent of a float32: floor(log2 |x|) for normal numbers."""
    return ((np.float32(x).view(np.int32) >> 23) & 255) - 127


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def scale(row, n):
    """row *= 2^n, in two factors, since 2^n itself may be out of range when the result is not."""
    first = power_of_two(n >> 1)
    second = power_of_two(n - (n >> 1))
    for j in range(row.shape[0]):
        row[j] = row[j] * first * second


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def align_rows(rows, exponents, shared):
    """Rescale rows·2^exponents to rows·2^shared: each row (row, number) is multiplied by 2^(its exponent − shared)."""
    for row in range(rows.shape[0]):
        if exponents[row] != shared:
            scale(rows[row], exponents[row] - shared)


@njit(nogil=True, error_model="numpy", fastmath=SUMS)
def sums_of_squares(rows, sums):
    """Write the sum of squares of each row (row, number) to `sums` (row)."""
    for row in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            total += rows[row, j] * rows[row, j]
        sums[row] = total


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _scaled_sum_of_squares(row):
    """As `sum_of_squares`, for a row whose plain sum of squares is out of a float's range or near its limits."""
    # The largest absolute value; NaN is ignored.
    maximum = np.float32(0)
    for j in range(row.shape[0]):
        size = abs(row[j])
        maximum = size if size > maximum else maximum
    if maximum == 0 or maximum == np.inf:
        return maximum, 0
    n = exponent_of(maximum)
    first, second = power_of_two((-n) >> 1), power_of_two(-n - ((-n) >> 1))
    total = np.float32(0)
    for j in range(row.shape[0]):
        value = row[j] * first * second
        total += value * value
    return total, n


@njit(nogil=True)
def in_range(squares):
    """Whether a row with this sum of squares needs no rescaling: it is near 1, or NaN, which rescaling cannot help."""
    return LEAST_SQUARE <= squares <= MOST_SQUARE or np.isnan(squares)


@njit(nogil=True)
def sum_of_squares(row, squares):
    """(s, n) with the row's sum of squares = s·4^n, where `squares` is its plain sum; n is 0 near 1."""
    if in_range(squares):
        return squares, 0
    return _scaled_sum_of_squares(row)


@njit(nogil=True)
def rescale_rows(rows, exponent, squares, exponents):
    """Rescale each of the rows·2^exponent so that its norm is near 1; write ‖row‖² = squares·4^exponents for each.

    Args:
        rows: (row, number); updated if far from 1.
        exponent: (row); updated with them.
        squares: (row); written.
        exponents: (row); written.
    """
    sums_of_squares(rows, squares)
    for row in range(rows.shape[0]):
        if not in_range(squares[row]):
            squares[row], shift = _scaled_sum_of_squares(rows[row])
            if shift != 0:
                scale(rows[row], -shift)
            exponent[row] = ZERO_EXPONENT if squares[row] == 0 else exponent[row] + shift
        exponents[row] = exponent[row]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def add_to_row(row, exponent, added, other_state):
    """row·2^exponent += added; returns the new exponent, to which `other_state`, another row, is rescaled too.

    `added` (width) may be shorter than the padded `row`.
    """
    maximum = np.float32(0)
    not_finite = False
    for j in range(added.shape[0]):
        size = abs(added[j])
        not_finite |= not size < np.inf
        maximum = size if size > maximum else maximum
    if maximum == 0 and not not_finite:
        return exponent
    added_exponent = 0 if not_finite else exponent_of(maximum)
    if added_exponent > exponent:
        scale(row, exponent - added_exponent)
        scale(other_state, exponent - added_exponent)
        exponent = added_exponent
    first = power_of_two((-exponent) >> 1)
    second = power_of_two(-exponent - ((-exponent) >> 1))
    for j in range(added.shape[0]):
        row[j] += added[j] * first * second
    return exponent
