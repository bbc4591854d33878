"""One step of LSTM, forward and back. The equations are those of `rnnstudy.cells.lstm`; a line holds f, i, o, C̃."""

import numpy as np
from numba import njit

from rnnstudy.kernels.compiling import DEFINED, kernel
from rnnstudy.kernels.numbers import NOTHING, measure, scale, sigmoid, tanh
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
def _step(gates, before, c, h):
    width = h.shape[0]
    for j in range(3 * width):
        gates[j] = sigmoid(gates[j])
    for j in range(width):
        gates[3 * width + j] = tanh(gates[3 * width + j])
        c[j] = gates[j] * before[j] + gates[width + j] * gates[3 * width + j]
        h[j] = gates[2 * width + j] * tanh(c[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _into_cell(by_h, by_c, gates, c, delta):
    """by_c becomes the total dL/dc_t, h_t = o ⊙ tanh(c_t) included; δ^o is written."""
    width = by_h.shape[0]
    for j in range(width):
        show, squashed = gates[2 * width + j], tanh(c[j])
        by_c[j] += by_h[j] * show * (ONE - squashed * squashed)
        delta[2 * width + j] = by_h[j] * squashed * (show * (ONE - show))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _through_gates(by_c, gates, before, delta):
    """δ^f, δ^i, δ^C̃ from the total dL/dc_t, which becomes the part of dL/dc_{t-1} that the forget gate carries."""
    width = by_c.shape[0]
    for j in range(width):
        forget, store, candidate = gates[j], gates[width + j], gates[3 * width + j]
        delta[j] = by_c[j] * before[j] * (forget * (ONE - forget))
        delta[width + j] = by_c[j] * candidate * (store * (ONE - store))
        delta[3 * width + j] = by_c[j] * store * (ONE - candidate * candidate)
        by_c[j] = by_c[j] * forget


@njit(nogil=True)
def _settle(by_h, by_c, exponent, squares, exponents):
    """Note the squared norms of dL/dh_t and the total dL/dc_t; the exponent that brings both near 1 together."""
    squares[1], far_h = measure(by_h)
    squares[0], far_c = measure(by_c)
    exponents[1], exponents[0] = exponent + far_h, exponent + far_c
    if squares[1] == 0 and squares[0] == 0:
        return NOTHING, 0
    if squares[1] == 0:
        return exponent + far_c, far_c
    if squares[0] == 0:
        return exponent + far_h, far_h
    shift = max(far_h, far_c)
    return exponent + shift, shift


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step_back(by_h, by_c, exponent, gates, before, c, delta, squares, exponents):
    """δ, the squared norms, and the new exponent of what goes on."""
    width = by_h.shape[0]
    _into_cell(by_h, by_c, gates, c, delta)
    exponent, shift = _settle(by_h, by_c, exponent, squares, exponents)
    if shift != 0:
        scale(by_c, -shift)
        scale(delta[2 * width : 3 * width], -shift)
    _through_gates(by_c, gates, before, delta)
    by_h[:] = 0
    return exponent


@kernel(forward_signature(kept=3))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """kept = (h, c, gates), c as h, gates (time, batch, 4·padded width); `activation` has no meaning here."""
    h, c, gates = kept
    c[0] = 0
    weights = begin(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0]):
        add_up(weights, inputs[t], h[t], gates[t])
        for b in range(h.shape[1]):
            _step(gates[t, b], c[t, b], c[t + 1, b], h[t + 1, b])


@kernel(backward_signature(kept=3))
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The states are c and h, in this order; `activation` has no meaning here."""
    h, c, gates = kept
    by_c = np.zeros(h.shape[1:], np.float32)
    back = begin_back(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0] - 1, -1, -1):
        delta = receive(back, t, added, slots, by_c)
        for b in range(h.shape[1]):
            back.exponent[b] = _step_back(
                back.by_h[b], by_c[b], back.exponent[b], gates[t, b], c[t, b], c[t + 1, b], delta[b],
                squares[:, t, b], exponents[:, t, b],
            )  # fmt: skip
        pass_back(back, t, inputs, h, grad_inputs)
    finish(back, grad_in, grad_rec, grad_bias)
