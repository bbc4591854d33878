"""LSTM over all time steps, forward and back, for one replica. The equations are those of `rnnstudy.cells.lstm`."""

import numpy as np
from numba import float32, int32, njit, types, void

from rnnstudy.kernels.compiling import DEFINED, kernel
from rnnstudy.kernels.numbers import NOTHING, inject, measure, scale, sigmoid, tanh
from rnnstudy.kernels.tiles import add_product, padded
from rnnstudy.kernels.weights import add_back, gather, pass_to_inputs, transposed, unscaled, widened

__all__ = ["backward", "forward", "padded"]

ROWS_AT_ONCE = 128
"""Rows (step and sequence) whose part of the weight gradients is one product."""

VECTOR, MATRIX, VIEW = float32[::1], float32[:, ::1], float32[:, :, :]
KEPT = types.UniTuple(float32[:, :, ::1], 3)
ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step(gates, before, c, h):
    """Pre-activations to gates f, i, o, C̃ in their place, and the states, of one sequence."""
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


@kernel(void(VIEW, MATRIX, MATRIX, VECTOR, int32, KEPT))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """Fill kept = (h, c, gates) from inputs x (time, batch, features).

    h and c are (1 + time, batch, padded width) with h_0 = c_0 = 0; gates f, i, o, C̃ (time, batch, 4·padded width).
    `activation` has no meaning here.
    """
    h, c, gates = kept
    width = w_rec.shape[0]
    wide_in, wide_rec = widened(w_in, 4), widened(w_rec, 4)
    wide_bias = widened(bias.reshape(1, 4 * width), 4)[0]
    h[0] = 0
    c[0] = 0
    for t in range(inputs.shape[0]):
        for b in range(h.shape[1]):
            gates[t, b] = wide_bias
        add_product(inputs[t], wide_in, gates[t])
        add_product(h[t][:, :width], wide_rec, gates[t])
        for b in range(h.shape[1]):
            _step(gates[t, b], c[t, b], c[t + 1, b], h[t + 1, b])


@njit(nogil=True)
def _settle(by_h, by_c, exponent, squares, exponents):
    """Note the squared norms of dL/dh_t and the total dL/dc_t, bring both near 1 together: their new exponent."""
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


@kernel(
    void(
        VIEW, MATRIX, MATRIX, VECTOR, int32, KEPT, VIEW, int32[::1], VIEW, MATRIX, MATRIX, VECTOR, VIEW, int32[:, :, :]
    )
)
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The gradients of the weights, of the inputs, and the squared norms of dL/dc_t and dL/dh_t.

    Args:
        added: what the loss adds to dL/dh_t directly (slot, batch, width).
        slots: the slot of each time step; −1 where there is none.
        grad_inputs: (time, batch, features) to be written; without time steps where it is not wanted.
        squares, exponents: ‖dL/dc_t‖² = squares·4^exponents, and ‖dL/dh_t‖² (2, time, batch), to be written.
    """
    h, c, gates = kept
    time, batch, whole = h.shape[0] - 1, h.shape[1], h.shape[2]
    width, features = w_rec.shape[0], w_in.shape[0]
    back_rec, back_in = transposed(w_rec), transposed(w_in)
    steps = max(1, ROWS_AT_ONCE // batch)
    delta = np.zeros((steps * batch, 4 * whole), np.float32)
    delta_exponents = np.zeros(steps * batch, np.int32)
    by_h, by_c = np.zeros((batch, whole), np.float32), np.zeros((batch, whole), np.float32)
    exponent = np.full(batch, NOTHING, np.int32)
    room = np.zeros((batch, back_in.shape[1]), np.float32)
    rows = h.reshape((time + 1) * batch, whole)
    total_in, total_rec = np.zeros((features, 4 * whole), np.float32), np.zeros((width, 4 * whole), np.float32)
    total_bias, total_exponent = np.zeros(4 * whole, np.float32), NOTHING
    for t in range(time - 1, -1, -1):
        place = t % steps * batch
        for b in range(batch):
            if slots[t] >= 0:
                exponent[b] = inject(by_h[b], exponent[b], added[slots[t], b], by_c[b])
            line = delta[place + b]
            _into_cell(by_h[b], by_c[b], gates[t, b], c[t + 1, b], line)
            exponent[b], shift = _settle(by_h[b], by_c[b], exponent[b], squares[:, t, b], exponents[:, t, b])
            delta_exponents[place + b] = exponent[b]
            if shift != 0:
                scale(by_c[b], -shift)
                scale(line[2 * whole : 3 * whole], -shift)
            _through_gates(by_c[b], gates[t, b], c[t, b], line)
        by_h[:] = 0
        add_back(delta[place : place + batch], back_rec, 4, by_h)
        if grad_inputs.shape[0] > 0:
            pass_to_inputs(delta[place : place + batch], exponent, back_in, 4, room, grad_inputs[t])
        if place == 0:
            last = min(t + steps, time)
            count = (last - t) * batch
            total_exponent = gather(
                inputs[t:last], rows[t * batch : last * batch], delta[:count], delta_exponents[:count],
                total_in, total_rec, total_bias, total_exponent,
            )  # fmt: skip
    unscaled(total_in, total_exponent, 4, grad_in)
    unscaled(total_rec, total_exponent, 4, grad_rec)
    unscaled(total_bias.reshape(1, 4 * whole), total_exponent, 4, grad_bias.reshape(1, 4 * width))
