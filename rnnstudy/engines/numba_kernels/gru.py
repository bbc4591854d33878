"""One step of GRU, forward and back. The equations are those of `rnnstudy.cells.gru`.

The blocks are h̃, r, z and q = h_{t-1} W_hh̃ + b_hn, so that the input's three stand first and the recurrent ones last:
x_t W_xh for h̃, r, z (its blocks in this order), h_{t-1} W_hh for r, z, q. The bias is b_h for h̃, r, z and b_hn.
"""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import DEFINED, kernel
from rnnstudy.engines.numba_kernels.numbers import settle, sigmoid, tanh
from rnnstudy.engines.numba_kernels.through_time import (
    add_up,
    backward_signature,
    begin,
    begin_back,
    block,
    delta_of,
    finish,
    forward_signature,
    pass_back,
    receive,
)
from rnnstudy.engines.numba_kernels.tiles import padded

__all__ = ["backward", "forward", "padded"]

ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step(lines, before, h):
    """h_t = h̃ + z ⊙ (h_{t-1} − h̃) with h̃ = tanh(a + r ⊙ q); pre-activations become h̃, r, z in their place."""
    size = h.shape[0]
    gates = lines[size : 3 * size]
    for j in range(2 * size):
        gates[j] = sigmoid(gates[j])
    candidate, read, keep, recurrent = lines[:size], gates[:size], gates[size:], lines[3 * size :]
    for j in range(size):
        candidate[j] = tanh(candidate[j] + read[j] * recurrent[j])
    for j in range(size):
        h[j] = candidate[j] + keep[j] * (before[j] - candidate[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _into_candidate(by_h, candidate, keep, delta):
    """δ^h̃ from the total dL/dh_t."""
    for j in range(by_h.shape[0]):
        delta[j] = by_h[j] * (ONE - keep[j]) * (ONE - candidate[j] * candidate[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _into_keep(by_h, candidate, keep, before, delta):
    """δ^z from the total dL/dh_t."""
    for j in range(by_h.shape[0]):
        delta[j] = by_h[j] * (before[j] - candidate[j]) * (keep[j] * (ONE - keep[j]))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _into_read(delta_candidate, read, recurrent, delta_read, delta_recurrent):
    """δ^r and δ^q from δ^h̃."""
    for j in range(read.shape[0]):
        delta_read[j] = delta_candidate[j] * recurrent[j] * (read[j] * (ONE - read[j]))
        delta_recurrent[j] = delta_candidate[j] * read[j]


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _carry(by_h, keep):
    """What of dL/dh_t goes on by h_{t-1} itself."""
    for j in range(by_h.shape[0]):
        by_h[j] = by_h[j] * keep[j]


@kernel(forward_signature(kept=2))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """kept = (h, lines), lines (time, 4·batch, padded width); `activation` has no meaning here."""
    h, lines = kept
    weights = begin(w_in, w_rec, bias, h)
    size = h[0].size
    for t in range(inputs.shape[0]):
        add_up(weights, inputs[t], h[t], lines[t])
        _step(lines[t].reshape(4 * size), h[t].reshape(size), h[t + 1].reshape(size))


@kernel(backward_signature(kept=2))
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The one state is h; `activation` has no meaning here."""
    h, lines = kept
    nothing_else = np.zeros((h.shape[1], 0), np.float32)
    back = begin_back(w_in, w_rec, bias, h)
    size = back.by_h.size
    by_h = back.by_h.reshape(size)
    for t in range(inputs.shape[0] - 1, -1, -1):
        receive(back, t, added, slots, nothing_else)
        settle(back.by_h, back.exponent, squares[0, t], exponents[0, t])
        candidate, read = block(lines[t], 0, size), block(lines[t], 1, size)
        keep, recurrent = block(lines[t], 2, size), block(lines[t], 3, size)
        delta = delta_of(back, t, 0)
        _into_candidate(by_h, candidate, keep, delta)
        _into_keep(by_h, candidate, keep, h[t].reshape(size), delta_of(back, t, 2))
        _into_read(delta, read, recurrent, delta_of(back, t, 1), delta_of(back, t, 3))
        _carry(by_h, keep)
        pass_back(back, t, inputs, h, grad_inputs)
    finish(back, grad_in, grad_rec, grad_bias)
