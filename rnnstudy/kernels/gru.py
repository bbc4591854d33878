"""One step of GRU, forward and back. The equations are those of `rnnstudy.cells.gru`.

A line holds h̃, r, z and q = h_{t-1} W_hh̃ + b_hn, so that the input's three blocks stand first and the recurrent ones
last: x_t W_xh for h̃, r, z (its blocks in this order), h_{t-1} W_hh for r, z, q. The bias is b_h for h̃, r, z and b_hn.
"""

import numpy as np
from numba import njit

from rnnstudy.kernels.compiling import DEFINED, kernel
from rnnstudy.kernels.numbers import settle_one, sigmoid, tanh
from rnnstudy.kernels.through_time import (
    add_up,
    backward_signature,
    begin,
    begin_back,
    finish,
    forward_signature,
    pass_back,
    receive,
)
from rnnstudy.kernels.tiles import padded

__all__ = ["backward", "forward", "padded"]

ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step(line, before, h):
    width = h.shape[0]
    for j in range(width, 3 * width):
        line[j] = sigmoid(line[j])
    for j in range(width):
        line[j] = tanh(line[j] + line[width + j] * line[3 * width + j])
    for j in range(width):
        h[j] = line[j] + line[2 * width + j] * (before[j] - line[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step_back(by_h, line, before, delta):
    """δ^h̃, δ^r, δ^z, δ^q from the total dL/dh_t, of which z ⊙ dL/dh_t goes on."""
    width = by_h.shape[0]
    for j in range(width):
        candidate, read, keep, recurrent = line[j], line[width + j], line[2 * width + j], line[3 * width + j]
        into = by_h[j] * (ONE - keep) * (ONE - candidate * candidate)
        delta[j] = into
        delta[width + j] = into * recurrent * (read * (ONE - read))
        delta[2 * width + j] = by_h[j] * (before[j] - candidate) * (keep * (ONE - keep))
        delta[3 * width + j] = into * read
        by_h[j] = by_h[j] * keep


@kernel(forward_signature(kept=2))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """kept = (h, lines), lines (time, batch, 4·padded width); `activation` has no meaning here."""
    h, lines = kept
    weights = begin(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0]):
        add_up(weights, inputs[t], h[t], lines[t])
        for b in range(h.shape[1]):
            _step(lines[t, b], h[t, b], h[t + 1, b])


@kernel(backward_signature(kept=2))
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The one state is h; `activation` has no meaning here."""
    h, lines = kept
    nothing_else = np.zeros((h.shape[1], 0), np.float32)
    back = begin_back(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0] - 1, -1, -1):
        delta = receive(back, t, added, slots, nothing_else)
        for b in range(h.shape[1]):
            back.exponent[b] = settle_one(back.by_h[b], back.exponent[b], squares[:, t, b], exponents[:, t, b])
            _step_back(back.by_h[b], lines[t, b], h[t, b], delta[b])
        pass_back(back, t, inputs, h, grad_inputs)
    finish(back, grad_in, grad_rec, grad_bias)
