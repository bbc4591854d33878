"""Elman over all time steps, forward and back, for one replica. The equations are those of `rnnstudy.cells.elman`."""

import numpy as np
from numba import float32, int32, njit, types, void

from rnnstudy.kernels.compiling import DEFINED, kernel
from rnnstudy.kernels.numbers import NOTHING, inject, measure, scale, sigmoid, tanh
from rnnstudy.kernels.tiles import add_product, padded
from rnnstudy.kernels.weights import add_back, gather, pass_to_inputs, transposed, unscaled, widened

__all__ = ["backward", "forward", "padded"]

TANH, RELU, SIGMOID, LINEAR = range(4)
ROWS_AT_ONCE = 256
"""Rows (step and sequence) whose part of the weight gradients is one product."""

VECTOR, MATRIX, VIEW = float32[::1], float32[:, ::1], float32[:, :, :]
KEPT = types.UniTuple(float32[:, :, ::1], 1)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _activate(row, activation):
    if activation == TANH:
        for j in range(row.shape[0]):
            row[j] = tanh(row[j])
    elif activation == RELU:
        for j in range(row.shape[0]):
            row[j] = np.float32(0) if row[j] < 0 else row[j]
    elif activation == SIGMOID:
        for j in range(row.shape[0]):
            row[j] = sigmoid(row[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _through_activation(carried, h, activation, delta):
    """δ = dL/dh ⊙ φ′, with φ′ by its value: 1 − h², h > 0, h(1 − h), 1."""
    if activation == TANH:
        for j in range(h.shape[0]):
            delta[j] = carried[j] * (np.float32(1) - h[j] * h[j])
    elif activation == RELU:
        for j in range(h.shape[0]):
            delta[j] = np.float32(0) if h[j] <= 0 else carried[j]
    elif activation == SIGMOID:
        for j in range(h.shape[0]):
            delta[j] = carried[j] * (h[j] * (np.float32(1) - h[j]))
    else:
        for j in range(h.shape[0]):
            delta[j] = carried[j]


@kernel(void(VIEW, MATRIX, MATRIX, VECTOR, int32, KEPT))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """Fill kept = (h,), h (1 + time, batch, padded width) with h_0 = 0, from inputs x (time, batch, features)."""
    (h,) = kept
    width = w_rec.shape[0]
    wide_in, wide_rec = widened(w_in, 1), widened(w_rec, 1)
    wide_bias = widened(bias.reshape(1, width), 1)[0]
    h[0] = 0
    for t in range(inputs.shape[0]):
        for b in range(h.shape[1]):
            h[t + 1, b] = wide_bias
        add_product(inputs[t], wide_in, h[t + 1])
        add_product(h[t][:, :width], wide_rec, h[t + 1])
        _activate(h[t + 1].reshape(-1), activation)


@kernel(
    void(
        VIEW, MATRIX, MATRIX, VECTOR, int32, KEPT, VIEW, int32[::1], VIEW, MATRIX, MATRIX, VECTOR, VIEW, int32[:, :, :]
    )
)
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The gradients of the weights, of the inputs, and the squared norms of dL/dh_t.

    Args:
        added: what the loss adds to dL/dh_t directly (slot, batch, width).
        slots: the slot of each time step; −1 where there is none.
        grad_inputs: (time, batch, features) to be written; without time steps where it is not wanted.
        squares, exponents: ‖dL/dh_t‖² = squares·4^exponents (1, time, batch), to be written.
    """
    (h,) = kept
    time, batch, whole = h.shape[0] - 1, h.shape[1], h.shape[2]
    width, features = w_rec.shape[0], w_in.shape[0]
    back_rec, back_in = transposed(w_rec), transposed(w_in)
    steps = max(1, ROWS_AT_ONCE // batch)
    delta = np.zeros((steps * batch, whole), np.float32)
    delta_exponents = np.zeros(steps * batch, np.int32)
    carried = np.zeros((batch, whole), np.float32)
    nothing_else = np.zeros(0, np.float32)
    exponent = np.full(batch, NOTHING, np.int32)
    room = np.zeros((batch, back_in.shape[1]), np.float32)
    rows = h.reshape((time + 1) * batch, whole)
    total_in, total_rec = np.zeros((features, whole), np.float32), np.zeros((width, whole), np.float32)
    total_bias, total_exponent = np.zeros(whole, np.float32), NOTHING
    for t in range(time - 1, -1, -1):
        place = t % steps * batch
        for b in range(batch):
            if slots[t] >= 0:
                exponent[b] = inject(carried[b], exponent[b], added[slots[t], b], nothing_else)
            squares[0, t, b], far_out = measure(carried[b])
            if far_out != 0:
                scale(carried[b], -far_out)
            exponent[b] = NOTHING if squares[0, t, b] == 0 else exponent[b] + far_out
            exponents[0, t, b] = exponent[b]
            delta_exponents[place + b] = exponent[b]
            _through_activation(carried[b], h[t + 1, b], activation, delta[place + b])
        carried[:] = 0
        add_back(delta[place : place + batch], back_rec, 1, carried)
        if grad_inputs.shape[0] > 0:
            pass_to_inputs(delta[place : place + batch], exponent, back_in, 1, room, grad_inputs[t])
        if place == 0:
            last = min(t + steps, time)
            count = (last - t) * batch
            total_exponent = gather(
                inputs[t:last], rows[t * batch : last * batch], delta[:count], delta_exponents[:count],
                total_in, total_rec, total_bias, total_exponent,
            )  # fmt: skip
    unscaled(total_in, total_exponent, 1, grad_in)
    unscaled(total_rec, total_exponent, 1, grad_rec)
    unscaled(total_bias.reshape(1, whole), total_exponent, 1, grad_bias.reshape(1, width))
