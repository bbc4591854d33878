"""One step of LSTM, forward and back. The equations are those of `rnnstudy.cells.lstm`; the blocks are f, i, o, C̃."""

import numpy as np
from numba import njit

from rnnstudy.engines.numba_kernels import numbers, through_time
from rnnstudy.engines.numba_kernels.compiling import FAST_MATH, kernel

ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step(gates, before, c, h):
    """c_t = f ⊙ c_{t-1} + i ⊙ C̃ and h_t = o ⊙ tanh(c_t); pre-activations are overwritten by gates."""
    size = h.shape[0]
    sigmoids = gates[: 3 * size]
    for j in range(3 * size):
        sigmoids[j] = numbers.sigmoid(sigmoids[j])
    forget, input_gate = gates[:size], gates[size : 2 * size]
    output_gate, candidate = gates[2 * size : 3 * size], gates[3 * size :]
    # One loop for each result: with more arrays in a loop, the compiler does not generate vector code.
    for j in range(size):
        candidate[j] = numbers.tanh(candidate[j])
    for j in range(size):
        c[j] = forget[j] * before[j] + input_gate[j] * candidate[j]
    for j in range(size):
        h[j] = output_gate[j] * numbers.tanh(c[j])


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _into_cell(grad_h, grad_c, output_gate, c, delta_output):
    """grad_c becomes the total dL/dc_t, including the path through h_t = o ⊙ tanh(c_t); δ^o is written."""
    for j in range(grad_h.shape[0]):
        squashed = numbers.tanh(c[j])
        grad_c[j] += grad_h[j] * output_gate[j] * (ONE - squashed * squashed)
        delta_output[j] = grad_h[j] * squashed * (output_gate[j] * (ONE - output_gate[j]))


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _through(grad_c, other, gate, delta):
    """δ of a gate g that enters c_t as other ⊙ σ(a)."""
    for j in range(grad_c.shape[0]):
        delta[j] = grad_c[j] * other[j] * (gate[j] * (ONE - gate[j]))


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _through_candidate(grad_c, input_gate, candidate, delta):
    """δ of C̃ = tanh(a), which enters c_t as i ⊙ C̃."""
    for j in range(grad_c.shape[0]):
        delta[j] = grad_c[j] * input_gate[j] * (ONE - candidate[j] * candidate[j])


@njit(nogil=True)
def _rescale(grad_h, grad_c, delta_output, exponent, squares, exponents):
    """Write the squared norms of dL/dh_t and the total dL/dc_t; rescale grad_c and δ^o, which are used later, near 1.

    Args:
        grad_h, grad_c, delta_output: (batch, padded width), to be multiplied by 2^exponent (batch).
        squares, exponents: (state, batch), c first; written.
    """
    numbers.sums_of_squares(grad_h, squares[1])
    numbers.sums_of_squares(grad_c, squares[0])
    for b in range(grad_h.shape[0]):
        exponents[1, b], exponents[0, b] = exponent[b], exponent[b]
        if numbers.in_range(squares[0, b]) and numbers.in_range(squares[1, b]):
            continue
        squares[1, b], shift_h = numbers.sum_of_squares(grad_h[b], squares[1, b])
        squares[0, b], shift_c = numbers.sum_of_squares(grad_c[b], squares[0, b])
        exponents[1, b] += shift_h
        exponents[0, b] += shift_c
        if squares[1, b] == 0 and squares[0, b] == 0:
            exponent[b] = numbers.ZERO_EXPONENT
            continue
        shift = shift_c if squares[1, b] == 0 else shift_h if squares[0, b] == 0 else max(shift_h, shift_c)
        exponent[b] += shift
        if shift != 0:
            numbers.scale(grad_c[b], -shift)
            numbers.scale(delta_output[b], -shift)


@kernel(through_time.forward_signature(saved=3))
def forward(inputs, symbols, w_in, w_rec, bias, activation, saved):
    """saved = (h, c, gates), c as h, gates (time, 4·batch, padded width); `activation` is ignored."""
    h, c, gates = saved
    c[0] = 0
    weights = through_time.prepare_forward(w_in, w_rec, bias, h)
    size = h[0].size
    for t in range(inputs.shape[0]):
        own, cell_before, cell = through_time.kept(gates, t), through_time.kept(c, t), through_time.kept(c, t + 1)
        through_time.pre_activations(weights, inputs, symbols, t, through_time.kept(h, t), own)
        after = through_time.kept(h, t + 1)
        _step(own.reshape(4 * size), cell_before.reshape(size), cell.reshape(size), after.reshape(size))


@kernel(through_time.backward_signature(saved=3))
def backward(
    inputs, symbols, w_in, w_rec, bias, activation, saved, direct, slots,
    grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents,
):  # fmt: skip
    """The states are c and h, in this order; `activation` is ignored."""
    h, c, gates = saved
    back = through_time.prepare_backward(w_in, w_rec, bias, h, grad_inputs, grad_rec)
    shape, size = back.grad_h.shape, back.grad_h.size
    grad_h, grad_c = back.grad_h.reshape(size), np.zeros(size, np.float32)
    for t in range(inputs.shape[0] - 1, -1, -1):
        through_time.add_direct(back, t, direct, slots, grad_c.reshape(shape))
        forget, input_gate = through_time.block(gates[t], 0, size), through_time.block(gates[t], 1, size)
        output_gate, candidate = through_time.block(gates[t], 2, size), through_time.block(gates[t], 3, size)
        delta_output = through_time.delta_of(back, t, 2)
        _into_cell(grad_h, grad_c, output_gate, c[t + 1].reshape(size), delta_output)
        delta_rows = delta_output.reshape(shape)
        _rescale(back.grad_h, grad_c.reshape(shape), delta_rows, back.exponent, squares[:, t], exponents[:, t])
        _through(grad_c, c[t].reshape(size), forget, through_time.delta_of(back, t, 0))
        _through(grad_c, candidate, input_gate, through_time.delta_of(back, t, 1))
        _through_candidate(grad_c, input_gate, candidate, through_time.delta_of(back, t, 3))
        through_time.through_gate(grad_c, forget)
        grad_h[:] = 0
        through_time.propagate_back(back, t, inputs, symbols, h, grad_inputs)
    through_time.write_weight_gradients(back, grad_in, grad_rec, grad_bias)
