"""Weights padded to whole vectors, and the sums of their gradients with one exponent for each replica.

A matrix of several gates (in, blocks·width) is stored here as (block, in, padded width), padded with zeros that stay
zero: a gate's numbers fill whole vectors, and its matrix is contiguous, so that it fits into the fastest cache.

Arrays are copied number by number: Numba takes seconds to compile the assignment of an array to a part of another one,
for the message it would raise if their shapes differed.
"""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import FAST_MATH
from rnnstudy.engines.numba_kernels.numbers import align_rows, scale
from rnnstudy.engines.numba_kernels.tiles import add_product
from rnnstudy.engines.numba_kernels.tiles import padded as padded_in_python

padded = njit(nogil=True)(padded_in_python)


@njit(nogil=True)
def padded_blocks(matrix, blocks):
    """(in, blocks·width) → (block, in, padded width)."""
    rows, width = matrix.shape[0], matrix.shape[1] // blocks
    wide = np.zeros((blocks, rows, padded(width)), np.float32)
    for g in range(blocks):
        for k in range(rows):
            for j in range(width):
                wide[g, k, j] = matrix[k, g * width + j]
    return wide


@njit(nogil=True)
def transposed(matrix):
    """(in, out) → (out, padded in)."""
    rows, columns = matrix.shape
    flipped = np.zeros((columns, padded(rows)), np.float32)
    for k in range(rows):
        for j in range(columns):
            flipped[j, k] = matrix[k, j]
    return flipped


@njit(nogil=True)
def add_transposed_product(delta, first, last, transposed_weights, out):
    """out += Σ_g δ_g W_gᵀ, for δ_g = delta[g, first:last] and Wᵀ as returned by `transposed`.

    delta: (block, row, padded width), of as many blocks as the matrix has.
    """
    width = transposed_weights.shape[0] // delta.shape[0]
    for g in range(delta.shape[0]):
        add_product(delta[g, first:last, :width], transposed_weights[g * width : (g + 1) * width], out)


@njit(nogil=True)
def input_gradient(delta, first, last, exponents, transposed_weights, scratch, gradient):
    """gradient = dL/dx_t = δ_t·2^exponent W_xhᵀ, for one step; `scratch` (batch, padded features) is overwritten."""
    scratch[:] = 0
    add_transposed_product(delta, first, last, transposed_weights, scratch)
    for b in range(scratch.shape[0]):
        scale(scratch[b], exponents[b])
        for k in range(gradient.shape[1]):
            gradient[b, k] = scratch[b, k]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _add_rows(rows, total):
    """total += the sum of the rows."""
    for row in range(rows.shape[0]):
        for j in range(total.shape[0]):
            total[j] += rows[row, j]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def set_named_rows(start, table, symbols, out):
    """out = start + the row of `table` that each symbol names; `start` alone where it is −1."""
    for b in range(symbols.shape[0]):
        if symbols[b] < 0:
            for j in range(out.shape[1]):
                out[b, j] = start[j]
        else:
            row = table[symbols[b]]
            for j in range(out.shape[1]):
                out[b, j] = start[j] + row[j]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def add_to_named_rows(rows, symbols, table):
    """Add each row (step·batch, padded width) to the one of `table` that its symbol names; none where it is −1."""
    for row in range(symbols.shape[0]):
        if symbols[row] >= 0:
            named = table[symbols[row]]
            for j in range(named.shape[0]):
                named[j] += rows[row, j]


@njit(nogil=True)
def accumulate_weight_gradients(inputs, symbols, before, delta, exponents, totals, total_exponent):
    """Add the weight gradients of several consecutive steps, and return the new exponent of the totals.

    δ is delta·2^exponents, and the weight gradients are totals·2^total_exponent. `delta` is overwritten.

    Args:
        inputs: x_t (step, batch, features).
        symbols: (step, batch) instead, as in `forward_signature`; without steps where numbers are read.
        before: h_{t-1} (step·batch, padded width).
        delta: dL/da_t (block, step·batch, padded width), the input's blocks first and the recurrent ones last.
        exponents: (step·batch).
    """
    rows = exponents.shape[0]
    # One replica's inputs are not contiguous; a copy allows one long product, which is faster than many short ones.
    input_rows = np.empty((rows, inputs.shape[2]), np.float32)
    batch = inputs.shape[1]
    shared = total_exponent
    for row in range(rows):
        shared = max(shared, exponents[row])
        for k in range(inputs.shape[2]):
            input_rows[row, k] = inputs[row // batch, row % batch, k]
    if shared != total_exponent:
        for total in (totals.w_in, totals.w_rec, totals.bias):
            for g in range(total.shape[0]):
                for k in range(total.shape[1]):
                    scale(total[g, k], total_exponent - shared)
    blocks = delta.shape[0]
    states = before[:, : totals.w_rec.shape[1]].T
    for g in range(blocks):
        own = delta[g, :rows]
        align_rows(own, exponents, shared)
        _add_rows(own, totals.bias[g, 0])
        k = g - (blocks - totals.w_rec.shape[0])
        if k >= 0:
            add_product(states, own, totals.w_rec[k])
        if g < totals.w_in.shape[0] and symbols.shape[0] > 0:
            # In the order of the dense product, hence with its bits.
            add_to_named_rows(own, symbols.reshape(symbols.size), totals.w_in[g])
        elif g < totals.w_in.shape[0]:
            add_product(input_rows.T, own, totals.w_in[g])
    return shared


@njit(nogil=True)
def write_unpadded(total, exponent, gradient):
    """gradient (in, blocks·width) = total·2^exponent without the padding; infinite where it leaves float32's range.

    total: (block, in, padded width), overwritten.
    """
    width = gradient.shape[1] // total.shape[0]
    for g in range(total.shape[0]):
        for k in range(total.shape[1]):
            scale(total[g, k], exponent)
            for j in range(width):
                gradient[k, g * width + j] = total[g, k, j]
