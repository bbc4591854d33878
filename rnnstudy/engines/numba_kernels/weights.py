"""Weights widened to whole vectors, and their gradients gathered with one exponent for each replica.

A matrix of several gates (in, blocks·width) stands here as (block, in, padded width), padded by zeros that stay zeros:
a gate's numbers begin and end with whole vectors, and its matrix lies together, so that it fits into the nearest cache.
"""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import DEFINED
from rnnstudy.engines.numba_kernels.numbers import scale, scale_rows
from rnnstudy.engines.numba_kernels.tiles import LANES, add_product


@njit(nogil=True)
def padded(width):
    """`width` rounded up to whole vectors."""
    return (width + LANES - 1) // LANES * LANES


@njit(nogil=True)
def widened(matrix, blocks):
    """(in, blocks·width) to (block, in, padded width)."""
    rows, width = matrix.shape[0], matrix.shape[1] // blocks
    wide = np.zeros((blocks, rows, padded(width)), np.float32)
    for g in range(blocks):
        for k in range(rows):
            for j in range(width):
                wide[g, k, j] = matrix[k, g * width + j]
    return wide


@njit(nogil=True)
def transposed(matrix):
    """(in, out) to (out, padded in)."""
    rows, columns = matrix.shape
    flipped = np.zeros((columns, padded(rows)), np.float32)
    for k in range(rows):
        for j in range(columns):
            flipped[j, k] = matrix[k, j]
    return flipped


@njit(nogil=True)
def add_back(delta, first, last, flipped, out):
    """out += Σ_g δ_g W_gᵀ, for δ_g = delta[g, first:last] and Wᵀ as `transposed` gives it.

    delta: (block, row, padded width), of as many blocks as the matrix has.
    """
    width = flipped.shape[0] // delta.shape[0]
    for g in range(delta.shape[0]):
        add_product(delta[g, first:last, :width], flipped[g * width : (g + 1) * width], out)


@njit(nogil=True)
def pass_to_inputs(delta, first, last, exponents, flipped, room, gradient):
    """dL/dx_t = δ_t·2^exponent W_xhᵀ, for one step; `room` (batch, padded features) is written over."""
    room[:] = 0
    add_back(delta, first, last, flipped, room)
    for b in range(room.shape[0]):
        scale(room[b], exponents[b])
        for k in range(gradient.shape[1]):
            gradient[b, k] = room[b, k]


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _add_rows(rows, total):
    """total += the sum of the rows."""
    for row in range(rows.shape[0]):
        for j in range(total.shape[0]):
            total[j] += rows[row, j]


@njit(nogil=True)
def gather(inputs, before, delta, exponents, totals, total_exponent):
    """Add the weight gradients of some successive steps, and return the totals' new exponent.

    The true δ is delta·2^exponents, the true totals are totals·2^total_exponent. `delta` is written over.

    Args:
        inputs: x_t (step, batch, features).
        before: h_{t-1} (step·batch, padded width).
        delta: dL/da_t (block, step·batch, padded width), the input's blocks first and the recurrent ones last.
        exponents: (step·batch).
    """
    rows = exponents.shape[0]
    # Of several replicas' inputs, those of one do not lie together; one long product is faster than many short ones.
    given = np.empty((rows, inputs.shape[2]), np.float32)
    given.reshape(inputs.shape)[:] = inputs
    most = max(total_exponent, exponents.max())
    if most != total_exponent:
        for total in (totals.w_in, totals.w_rec, totals.bias):
            for g in range(total.shape[0]):
                for k in range(total.shape[1]):
                    scale(total[g, k], total_exponent - most)
    blocks = delta.shape[0]
    states = before[:, : totals.w_rec.shape[1]].T
    for g in range(blocks):
        own = delta[g, :rows]
        scale_rows(own, exponents, most)
        _add_rows(own, totals.bias[g, 0])
        k = g - (blocks - totals.w_rec.shape[0])
        if k >= 0:
            add_product(states, own, totals.w_rec[k])
        if g < totals.w_in.shape[0]:
            add_product(given.T, own, totals.w_in[g])
    return most


@njit(nogil=True)
def unscaled(total, exponent, gradient):
    """gradient (in, blocks·width) = total·2^exponent without the padding; infinite where it leaves float32's range.

    total: (block, in, padded width), written over.
    """
    width = gradient.shape[1] // total.shape[0]
    for g in range(total.shape[0]):
        for k in range(total.shape[1]):
            scale(total[g, k], exponent)
            for j in range(width):
                gradient[k, g * width + j] = total[g, k, j]
