"""Weights widened to whole vectors, and their gradients gathered with one exponent for each replica.

A matrix of `blocks` gates (in, blocks·width) stands here as (in, blocks·padded width), each block padded by zeros that
stay zeros; so a gate's numbers begin and end with whole vectors.
"""

import numpy as np
from numba import njit

from rnnstudy.kernels.compiling import DEFINED
from rnnstudy.kernels.numbers import scale
from rnnstudy.kernels.tiles import LANES, add_product


@njit(nogil=True)
def padded(width):
    """`width` rounded up to whole vectors."""
    return (width + LANES - 1) // LANES * LANES


@njit(nogil=True)
def widened(matrix, blocks):
    """(in, blocks·width) to (in, blocks·padded width)."""
    rows, width = matrix.shape[0], matrix.shape[1] // blocks
    whole = padded(width)
    wide = np.zeros((rows, blocks * whole), np.float32)
    for k in range(rows):
        for g in range(blocks):
            for j in range(width):
                wide[k, g * whole + j] = matrix[k, g * width + j]
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
def add_back(delta, flipped, blocks, out):
    """out += delta Wᵀ, for delta (row, blocks·padded width) and Wᵀ as `transposed` gives it."""
    width, whole = flipped.shape[0] // blocks, delta.shape[1] // blocks
    for g in range(blocks):
        add_product(delta[:, g * whole : g * whole + width], flipped[g * width : (g + 1) * width], out)


@njit(nogil=True)
def pass_to_inputs(delta, exponents, flipped, blocks, room, gradient):
    """dL/dx_t = δ_t·2^exponent W_xhᵀ, for one step; `room` (batch, padded features) is written over."""
    room[:] = 0
    add_back(delta, flipped, blocks, room)
    for b in range(room.shape[0]):
        scale(room[b], exponents[b])
        for k in range(gradient.shape[1]):
            gradient[b, k] = room[b, k]


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def gather(inputs, before, delta, exponents, total_in, total_rec, total_bias, total_exponent):
    """Add the weight gradients of some successive steps, and return the totals' new exponent.

    The true δ is delta·2^exponents, the true totals are total·2^total_exponent. `delta` is written over.

    Args:
        inputs: x_t (step, batch, features).
        before: h_{t-1} (step·batch, padded width).
        delta: dL/da_t (step·batch, blocks·padded width), the input's blocks first and the recurrent ones last.
        exponents: (step·batch).
    """
    steps, batch = inputs.shape[0], inputs.shape[1]
    most = max(total_exponent, exponents.max())
    if most != total_exponent:
        scale(total_bias, total_exponent - most)
        for k in range(total_in.shape[0]):
            scale(total_in[k], total_exponent - most)
        for k in range(total_rec.shape[0]):
            scale(total_rec[k], total_exponent - most)
    for row in range(delta.shape[0]):
        if exponents[row] != most:
            scale(delta[row], exponents[row] - most)
        for j in range(total_bias.shape[0]):
            total_bias[j] += delta[row, j]
    by_input, by_state = delta[:, : total_in.shape[1]], delta[:, delta.shape[1] - total_rec.shape[1] :]
    add_product(before[:, : total_rec.shape[0]].T, by_state, total_rec)
    for i in range(steps):
        add_product(inputs[i].T, by_input[i * batch : (i + 1) * batch], total_in)
    return most


@njit(nogil=True)
def unscaled(total, exponent, blocks, gradient):
    """gradient (in, blocks·width) = total·2^exponent without the padding; infinite where it leaves float32's range."""
    width, whole = gradient.shape[1] // blocks, total.shape[1] // blocks
    for k in range(gradient.shape[0]):
        scale(total[k], exponent)
        for g in range(blocks):
            for j in range(width):
                gradient[k, g * width + j] = total[k, g * whole + j]
