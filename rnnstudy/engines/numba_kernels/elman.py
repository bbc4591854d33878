"""One step of Elman, forward and back. The equations are those of `rnnstudy.cells.elman`."""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels.compiling import DEFINED, kernel
from rnnstudy.engines.numba_kernels.numbers import settle, sigmoid, tanh
from rnnstudy.engines.numba_kernels.through_time import (
    add_up,
    backward_signature,
    begin,
    begin_back,
    delta_of,
    finish,
    forward_signature,
    pass_back,
    receive,
)
from rnnstudy.engines.numba_kernels.tiles import padded

__all__ = ["backward", "forward", "padded"]

TANH, RELU, SIGMOID, LINEAR = range(4)


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step(h, activation):
    """h_t = φ(a_t), in its place."""
    if activation == TANH:
        for j in range(h.shape[0]):
            h[j] = tanh(h[j])
    elif activation == RELU:
        for j in range(h.shape[0]):
            h[j] = np.float32(0) if h[j] < 0 else h[j]
    elif activation == SIGMOID:
        for j in range(h.shape[0]):
            h[j] = sigmoid(h[j])


@njit(nogil=True, error_model="numpy", fastmath=DEFINED)
def _step_back(by_h, h, activation, delta):
    """δ = dL/dh_t ⊙ φ′, with φ′ by its value: 1 − h², h > 0, h(1 − h), 1."""
    if activation == TANH:
        for j in range(h.shape[0]):
            delta[j] = by_h[j] * (np.float32(1) - h[j] * h[j])
    elif activation == RELU:
        for j in range(h.shape[0]):
            delta[j] = np.float32(0) if h[j] <= 0 else by_h[j]
    elif activation == SIGMOID:
        for j in range(h.shape[0]):
            delta[j] = by_h[j] * (h[j] * (np.float32(1) - h[j]))
    else:
        for j in range(h.shape[0]):
            delta[j] = by_h[j]
    by_h[:] = 0


@kernel(forward_signature(kept=1))
def forward(inputs, w_in, w_rec, bias, activation, kept):
    """kept = (h,); pre-activations become h in their place."""
    (h,) = kept
    weights = begin(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0]):
        add_up(weights, inputs[t], h[t], h[t + 1])
        _step(h[t + 1].reshape(h[t + 1].size), activation)


@kernel(backward_signature(kept=1))
def backward(
    inputs, w_in, w_rec, bias, activation, kept, added, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The one state is h."""
    (h,) = kept
    nothing_else = np.zeros((h.shape[1], 0), np.float32)
    back = begin_back(w_in, w_rec, bias, h)
    by_h = back.by_h.reshape(back.by_h.size)
    for t in range(inputs.shape[0] - 1, -1, -1):
        receive(back, t, added, slots, nothing_else)
        settle(back.by_h, back.exponent, squares[0, t], exponents[0, t])
        _step_back(by_h, h[t + 1].reshape(by_h.size), activation, delta_of(back, t, 0))
        pass_back(back, t, inputs, h, grad_inputs)
    finish(back, grad_in, grad_rec, grad_bias)
