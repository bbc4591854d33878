"""One step of Elman, forward and back. The equations are those of `rnnstudy.cells.elman`."""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels import through_time
from rnnstudy.engines.numba_kernels.compiling import FAST_MATH, kernel
from rnnstudy.engines.numba_kernels.numbers import rescale_rows, sigmoid, tanh

TANH, RELU, SIGMOID, LINEAR = range(4)


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step(h, activation):
    """h_t = φ(a_t), in place."""
    if activation == TANH:
        for j in range(h.shape[0]):
            h[j] = tanh(h[j])
    elif activation == RELU:
        for j in range(h.shape[0]):
            h[j] = np.float32(0) if h[j] < 0 else h[j]
    elif activation == SIGMOID:
        for j in range(h.shape[0]):
            h[j] = sigmoid(h[j])


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step_back(grad_h, h, activation, delta):
    """δ = dL/dh_t ⊙ φ′, with φ′ computed from h: 1 − h², h > 0, h(1 − h), or 1. Resets dL/dh_t to zero."""
    if activation == TANH:
        for j in range(h.shape[0]):
            delta[j] = grad_h[j] * (np.float32(1) - h[j] * h[j])
    elif activation == RELU:
        for j in range(h.shape[0]):
            delta[j] = np.float32(0) if h[j] <= 0 else grad_h[j]
    elif activation == SIGMOID:
        for j in range(h.shape[0]):
            delta[j] = grad_h[j] * (h[j] * (np.float32(1) - h[j]))
    else:
        for j in range(h.shape[0]):
            delta[j] = grad_h[j]
    grad_h[:] = 0


@kernel(through_time.forward_signature(saved=1))
def forward(inputs, symbols, w_in, w_rec, bias, activation, saved):
    """saved = (h,); pre-activations are overwritten by h."""
    (h,) = saved
    weights = through_time.prepare_forward(w_in, w_rec, bias, h)
    for t in range(inputs.shape[0]):
        before, after = through_time.kept(h, t), through_time.kept(h, t + 1)
        through_time.pre_activations(weights, inputs, symbols, t, before, after)
        _step(after.reshape(after.size), activation)


@kernel(through_time.backward_signature(saved=1))
def backward(
    inputs, symbols, w_in, w_rec, bias, activation, saved, direct, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The one state is h."""
    (h,) = saved
    no_other_state = np.zeros((h.shape[1], 0), np.float32)
    back = through_time.prepare_backward(w_in, w_rec, bias, h, grad_inputs, grad_rec)
    grad_h = back.grad_h.reshape(back.grad_h.size)
    for t in range(inputs.shape[0] - 1, -1, -1):
        through_time.add_direct(back, t, direct, slots, no_other_state)
        rescale_rows(back.grad_h, back.exponent, squares[0, t], exponents[0, t])
        _step_back(grad_h, h[t + 1].reshape(grad_h.size), activation, through_time.delta_of(back, t, 0))
        through_time.propagate_back(back, t, inputs, symbols, h, grad_inputs)
    through_time.write_weight_gradients(back, grad_in, grad_rec, grad_bias)
