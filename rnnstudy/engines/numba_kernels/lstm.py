"""One step of LSTM, forward and back. The equations are those of `rnnstudy.cells.lstm`; the blocks are f, i, o, C̃."""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import DEFINED, kernel
from rnnstudy.engines.numba_kernels.numbers import (
    ZERO_EXPONENT,
    measure,
    scale,
    sigmoid,
    sums_of_squares,
    tanh,
    well_within,
)
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
def _step(gates, before, c, h):
    """c_t = f ⊙ c_{t-1} + i ⊙ C̃ and h_t = o ⊙ tanh(c_t); pre-activations become gates in their place."""
    size = h.shape[0]
    sigmoids = gates[: 3 * size]
    for j in range(3 * size):
        sigmoids[j] = sigmoid(sigmoids[j])
    forget, store, show, candidate = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    # One loop for each result: with more arrays in a loop, the compiler gives up on vectors.
    for j in range(size):
        candidate[j] = tanh(candidate[j])
    for j in range(size):
        c[j] = forget[j] * before[j] + store[j] * candidate[j]
    for j in range(size):
        h[j] = show[j] * tanh(c[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _into_cell(by_h, by_c, show, c, delta_show):
    """by_c becomes the total dL/dc_t, h_t = o ⊙ tanh(c_t) included; δ^o is written."""
    for j in range(by_h.shape[0]):
        squashed = tanh(c[j])
        by_c[j] += by_h[j] * show[j] * (ONE - squashed * squashed)
        delta_show[j] = by_h[j] * squashed * (show[j] * (ONE - show[j]))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _through(by_c, other, gate, delta):
    """δ of a gate g that enters c_t as other ⊙ σ(a)."""
    for j in range(by_c.shape[0]):
        delta[j] = by_c[j] * other[j] * (gate[j] * (ONE - gate[j]))


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _through_candidate(by_c, store, candidate, delta):
    """δ of C̃ = tanh(a), which enters c_t as i ⊙ C̃."""
    for j in range(by_c.shape[0]):
        delta[j] = by_c[j] * store[j] * (ONE - candidate[j] * candidate[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _carry(by_c, forget):
    """The total dL/dc_t becomes the part of dL/dc_{t-1} that the forget gate carries."""
    for j in range(by_c.shape[0]):
        by_c[j] = by_c[j] * forget[j]


@njit(nogil=True)
def _settle(by_h, by_c, delta_show, exponent, squares, exponents):
    """Note the squared norms of dL/dh_t and the total dL/dc_t, and bring what goes on, by_c and δ^o, near 1.

    Args:
        by_h, by_c, delta_show: (batch, padded width), to be multiplied by 2^exponent (batch).
        squares, exponents: (state, batch), c first; to be written.
    """
    sums_of_squares(by_h, squares[1])
    sums_of_squares(by_c, squares[0])
    for b in range(by_h.shape[0]):
        exponents[1, b], exponents[0, b] = exponent[b], exponent[b]
        if well_within(squares[0, b]) and well_within(squares[1, b]):
            continue
        squares[1, b], far_h = measure(by_h[b], squares[1, b])
        squares[0, b], far_c = measure(by_c[b], squares[0, b])
        exponents[1, b] += far_h
        exponents[0, b] += far_c
        if squares[1, b] == 0 and squares[0, b] == 0:
            exponent[b] = ZERO_EXPONENT
            continue
        shift = far_c if squares[1, b] == 0 else far_h if squares[0, b] == 0 else max(far_h, far_c)
        exponent[b] += shift
        if shift != 0:
            scale(by_c[b], -shift)
            scale(delta_show[b], -shift)


@kernel(forward_signature(kept=3))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """kept = (h, c, gates), c as h, gates (time, 4·batch, padded width); `activation` has no meaning here."""
    h, c, gates = kept
    c[0] = 0
    weights = begin(w_in, w_rec, bias, h)
    size = h[0].size
    for t in range(inputs.shape[0]):
        add_up(weights, inputs[t], h[t], gates[t])
        _step(gates[t].reshape(4 * size), c[t].reshape(size), c[t + 1].reshape(size), h[t + 1].reshape(size))


@kernel(backward_signature(kept=3))
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The states are c and h, in this order; `activation` has no meaning here."""
    h, c, gates = kept
    back = begin_back(w_in, w_rec, bias, h)
    shape, size = back.by_h.shape, back.by_h.size
    by_h, by_c = back.by_h.reshape(size), np.zeros(size, np.float32)
    for t in range(inputs.shape[0] - 1, -1, -1):
        receive(back, t, added, slots, by_c.reshape(shape))
        forget, store = block(gates[t], 0, size), block(gates[t], 1, size)
        show, candidate = block(gates[t], 2, size), block(gates[t], 3, size)
        delta_show = delta_of(back, t, 2)
        _into_cell(by_h, by_c, show, c[t + 1].reshape(size), delta_show)
        _settle(
            back.by_h, by_c.reshape(shape), delta_show.reshape(shape), back.exponent, squares[:, t], exponents[:, t]
        )
        _through(by_c, c[t].reshape(size), forget, delta_of(back, t, 0))
        _through(by_c, candidate, store, delta_of(back, t, 1))
        _through_candidate(by_c, store, candidate, delta_of(back, t, 3))
        _carry(by_c, forget)
        by_h[:] = 0
        pass_back(back, t, inputs, h, grad_inputs)
    finish(back, grad_in, grad_rec, grad_bias)
