"""One step of GRU, forward and back. The equations are those of `rnnstudy.cells.gru`.

The blocks are h̃, r, z and q = h_{t-1} W_hh̃ + b_hn. In this order the input's blocks come first and the recurrent ones
last: x_t W_xh belongs to h̃, r, z (its blocks in this order) and h_{t-1} W_hh to r, z, q. The bias is b_h for h̃, r, z,
and b_hn for q.
"""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels import through_time
from rnnstudy.engines.numba_kernels.compiling import FAST_MATH, kernel
from rnnstudy.engines.numba_kernels.numbers import rescale_rows, sigmoid, tanh

ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step(blocks, before, h):
    """h_t = h̃ + z ⊙ (h_{t-1} − h̃) with h̃ = tanh(a + r ⊙ q); pre-activations are overwritten by h̃, r, z."""
    size = h.shape[0]
    gates = blocks[size : 3 * size]
    for j in range(2 * size):
        gates[j] = sigmoid(gates[j])
    candidate, reset, update, recurrent = blocks[:size], gates[:size], gates[size:], blocks[3 * size :]
    for j in range(size):
        candidate[j] = tanh(candidate[j] + reset[j] * recurrent[j])
    for j in range(size):
        h[j] = candidate[j] + update[j] * (before[j] - candidate[j])


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _into_candidate(grad_h, candidate, update, delta):
    """δ^h̃ from the total dL/dh_t."""
    for j in range(grad_h.shape[0]):
        delta[j] = grad_h[j] * (ONE - update[j]) * (ONE - candidate[j] * candidate[j])


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _into_update(grad_h, candidate, update, before, delta):
    """δ^z from the total dL/dh_t."""
    for j in range(grad_h.shape[0]):
        delta[j] = grad_h[j] * (before[j] - candidate[j]) * (update[j] * (ONE - update[j]))


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _into_reset(delta_candidate, reset, recurrent, delta_reset, delta_recurrent):
    """δ^r and δ^q from δ^h̃."""
    for j in range(reset.shape[0]):
        delta_reset[j] = delta_candidate[j] * recurrent[j] * (reset[j] * (ONE - reset[j]))
        delta_recurrent[j] = delta_candidate[j] * reset[j]


@kernel(through_time.forward_signature(saved=2))
def forward(inputs, symbols, w_in, w_rec, bias, activation, saved):
    """saved = (h, blocks), blocks (time, 4·batch, padded width); `activation` is ignored."""
    h, blocks = saved
    weights = through_time.prepare_forward(w_in, w_rec, bias, h)
    size = h[0].size
    for t in range(inputs.shape[0]):
        before, after, own = through_time.kept(h, t), through_time.kept(h, t + 1), through_time.kept(blocks, t)
        through_time.pre_activations(weights, inputs, symbols, t, before, own)
        _step(own.reshape(4 * size), before.reshape(size), after.reshape(size))


@kernel(through_time.backward_signature(saved=2))
def backward(
    inputs, symbols, w_in, w_rec, bias, activation, saved, direct, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The one state is h; `activation` is ignored."""
    h, blocks = saved
    no_other_state = np.zeros((h.shape[1], 0), np.float32)
    back = through_time.prepare_backward(w_in, w_rec, bias, h, grad_inputs, grad_rec)
    size = back.grad_h.size
    grad_h = back.grad_h.reshape(size)
    for t in range(inputs.shape[0] - 1, -1, -1):
        through_time.add_direct(back, t, direct, slots, no_other_state)
        rescale_rows(back.grad_h, back.exponent, squares[0, t], exponents[0, t])
        candidate, reset = through_time.block(blocks[t], 0, size), through_time.block(blocks[t], 1, size)
        update, recurrent = through_time.block(blocks[t], 2, size), through_time.block(blocks[t], 3, size)
        delta = through_time.delta_of(back, t, 0)
        _into_candidate(grad_h, candidate, update, delta)
        _into_update(grad_h, candidate, update, h[t].reshape(size), through_time.delta_of(back, t, 2))
        _into_reset(delta, reset, recurrent, through_time.delta_of(back, t, 1), through_time.delta_of(back, t, 3))
        through_time.through_gate(grad_h, update)
        through_time.propagate_back(back, t, inputs, symbols, h, grad_inputs)
    through_time.write_weight_gradients(back, grad_in, grad_rec, grad_bias)
