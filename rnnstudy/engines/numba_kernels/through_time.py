"""What the kernels of all cells share, forward and back through time, for one replica; a cell adds its own step.

The values that a step computes form blocks of (batch, padded width), one after another: (block·batch, padded width).
The input's part x_t W_xh is added to the first blocks and the recurrent part h_{t-1} W_hh to the last ones; a block may
receive both. Elman has one block, and LSTM has its four gates. A GRU's blocks are h̃, r, z, q: the first three receive
the input's part, and the last three the recurrent part.

A cell processes a whole block as one row of numbers (batch·padded width): a loop over one long row is pure vector code,
while each short row, or view of one, costs as much time as its arithmetic.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import float32, int32, njit, types, void

from rnnstudy.engines.numba_kernels import weights as matrices
from rnnstudy.engines.numba_kernels.compiling import FAST_MATH
from rnnstudy.engines.numba_kernels.numbers import ZERO_EXPONENT, add_to_row
from rnnstudy.engines.numba_kernels.tiles import add_product, set_products

VECTOR, MATRIX, VIEW = float32[::1], float32[:, ::1], float32[:, :, :]
SYMBOLS = int32[:, ::1]


def forward_signature(saved: int) -> Any:
    """forward(inputs, symbols, w_in, w_rec, bias, activation, saved): writes `saved`, which `backward` reads.

    Where nothing will be differentiated, an array in `saved` may be shorter: two states, and one step's blocks, are
    enough; step t is then written over an earlier one, at t modulo the length of the array.

    Inputs x are (time, batch, features). Where symbols (time, batch) are read instead, there are no features, and x_t
    W_xh is the row of `w_in` that the symbol names, or zero for −1; otherwise `symbols` has no time steps. saved[0] is
    h (1 + time, batch, padded width), h_0 = 0. The weights are (features, …·width) and (width, …·width) with their
    blocks in a step's order; the bias (blocks·width) covers all.
    """
    return void(VIEW, SYMBOLS, MATRIX, MATRIX, VECTOR, int32, _saved(saved))


def backward_signature(saved: int) -> Any:
    """backward(inputs, symbols, …, direct, slots, grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents).

    Computes the gradients of the weights and of the inputs, and the squared norms of dL/ds_t for each state s.

    direct: what the loss adds directly to dL/dh_t (slot, batch, width).
    slots: index into `direct` for each time step; −1 if nothing is added.
    grad_inputs: (time, batch, features), written; without time steps if it is not needed.
    grad_in, grad_rec, grad_bias: the weights' gradients, written; `grad_rec` without rows if they are not needed.
    squares, exponents: ‖dL/ds_t‖² = squares·4^exponents (state, time, batch), written.
    """
    read = (VIEW, SYMBOLS, MATRIX, MATRIX, VECTOR, int32, _saved(saved), VIEW, int32[::1])
    return void(*read, VIEW, MATRIX, MATRIX, VECTOR, VIEW, int32[:, :, :])


def _saved(count: int) -> Any:
    return types.UniTuple(float32[:, :, ::1], count)


Weights = namedtuple("Weights", "w_in w_rec bias")
"""Weights, or their gradients, each (block, in, padded width); for a bias, in = 1."""


@njit(nogil=True)
def prepare_forward(w_in, w_rec, bias, h):
    """The padded weights for the forward steps; sets h_0 = 0."""
    width = w_rec.shape[0]
    h[0] = 0
    return Weights(
        matrices.padded_blocks(w_in, w_in.shape[1] // width),
        matrices.padded_blocks(w_rec, w_rec.shape[1] // width),
        matrices.padded_blocks(bias.reshape(1, bias.shape[0]), bias.shape[0] // width),
    )


@njit(nogil=True)
def pre_activations(weights, inputs, symbols, t, before, out):
    """The pre-activations of step t: out = bias + x_t W_xh + h_{t-1} W_hh, each part in its blocks."""
    x = inputs[t]
    batch, blocks = before.shape[0], weights.bias.shape[0]
    state = before[:, : weights.w_rec.shape[1]]
    for g in range(blocks):
        k = g - (blocks - weights.w_rec.shape[0])
        own = out[g * batch : (g + 1) * batch]
        # A part that a block does not receive is an empty product.
        if symbols.shape[0] > 0 and g < weights.w_in.shape[0]:
            matrices.set_named_rows(weights.bias[g, 0], weights.w_in[g], symbols[t], own)
            if k >= 0:
                add_product(state, weights.w_rec[k], own)
        elif g >= weights.w_in.shape[0]:
            set_products(weights.bias[g, 0], x[:, :0], weights.w_in[0, :0], state, weights.w_rec[k], own)
        elif k < 0:
            set_products(weights.bias[g, 0], x, weights.w_in[g], state[:, :0], weights.w_rec[0, :0], own)
        else:
            set_products(weights.bias[g, 0], x, weights.w_in[g], state, weights.w_rec[k], own)


@njit(nogil=True)
def kept(array, t):
    """Where step t of `array` is, which holds all steps or the newest of them."""
    return array[t % array.shape[0]]


@njit(nogil=True)
def block(blocks, g, size):
    """Block g of one step's blocks as one row (batch·padded width) of `size` numbers."""
    return blocks.reshape(blocks.size)[g * size : (g + 1) * size]


BackwardState = namedtuple(
    "BackwardState", "w_in w_rec steps delta delta_exponents grad_h exponent scratch totals total_exponent"
)
"""The state of the backward pass: the gradient propagated back, and the sums of the weights' gradients so far.

Attributes:
    w_in, w_rec: the weights, transposed.
    steps: number of steps whose δ are added to the weights' gradients at once.
    delta: dL/da_t of these steps (block, step·batch, padded width), to be multiplied by 2^delta_exponents (step·batch).
    grad_h: dL/dh_t, to be multiplied by 2^exponent (batch).
    scratch: (batch, padded features), overwritten.
    totals: the weights' gradients, to be multiplied by 2^total_exponent, an array of one number.
"""


@njit(nogil=True)
def prepare_backward(w_in, w_rec, bias, h, grad_inputs, grad_rec):
    """The state before the last step: all gradients are zero. Without rows in `grad_rec`, no weight's gradient is
    computed; without time steps in `grad_inputs`, none of the inputs."""
    batch, padded_width, width = h.shape[1], h.shape[2], w_rec.shape[0]
    blocks = bias.shape[0] // width
    # Few enough that they stay in the cache until they are added.
    steps = max(1, (256 if blocks == 1 else 128) // batch) if grad_rec.shape[0] > 0 else 1
    back_in = matrices.transposed(w_in[: w_in.shape[0] if grad_inputs.shape[0] > 0 else 0])
    return BackwardState(
        back_in,
        matrices.transposed(w_rec),
        steps,
        np.zeros((blocks, steps * batch, padded_width), np.float32),
        np.zeros(steps * batch, np.int32),
        np.zeros((batch, padded_width), np.float32),
        np.full(batch, ZERO_EXPONENT, np.int32),
        np.zeros((batch, back_in.shape[1]), np.float32),
        Weights(
            np.zeros((w_in.shape[1] // width, w_in.shape[0], padded_width), np.float32),
            np.zeros((w_rec.shape[1] // width, grad_rec.shape[0], padded_width), np.float32),
            np.zeros((blocks, 1, padded_width), np.float32),
        ),
        np.full(1, ZERO_EXPONENT, np.int32),
    )


@njit(nogil=True)
def add_direct(back, t, direct, slots, other_state):
    """Add to dL/dh_t what the loss adds directly.

    `other_state` (batch, padded width) is the gradient of another state, which has the same exponents.
    """
    if slots[t] >= 0:
        for b in range(back.grad_h.shape[0]):
            back.exponent[b] = add_to_row(back.grad_h[b], back.exponent[b], direct[slots[t], b], other_state[b])


@njit(nogil=True)
def delta_of(back, t, g):
    """Block g of δ_t as one row (batch·padded width), to be written by the cell."""
    batch, padded_width = back.grad_h.shape
    first = t % back.steps * batch * padded_width
    return back.delta[g].reshape(back.delta[g].size)[first : first + batch * padded_width]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def through_gate(gradient, gate):
    """The part of dL/ds_{t-1} that comes from gate ⊙ s_{t-1} in s_t, in place of dL/ds_t."""
    for j in range(gradient.shape[0]):
        gradient[j] = gradient[j] * gate[j]


@njit(nogil=True)
def propagate_back(back, t, inputs, symbols, h, grad_inputs):
    """From δ_t, add to `grad_h` the gradient for step t − 1, and compute the gradients of the inputs and weights."""
    batch, padded_width = back.grad_h.shape
    blocks = back.delta.shape[0]
    first, last = t % back.steps * batch, (t % back.steps + 1) * batch
    for b in range(batch):
        back.delta_exponents[first + b] = back.exponent[b]
    recurrent = back.delta[blocks - back.totals.w_rec.shape[0] :]
    matrices.add_transposed_product(recurrent, first, last, back.w_rec, back.grad_h)
    if grad_inputs.shape[0] > 0:
        of_input = back.delta[: back.totals.w_in.shape[0]]
        matrices.input_gradient(of_input, first, last, back.exponent, back.w_in, back.scratch, grad_inputs[t])
    if first == 0 and back.totals.w_rec.shape[1] > 0:
        rows = h.reshape(h.shape[0] * batch, padded_width)
        end = min(t + back.steps, h.shape[0] - 1)
        exponents = back.delta_exponents[: (end - t) * batch]
        back.total_exponent[0] = matrices.accumulate_weight_gradients(
            inputs[t:end],
            symbols[t:end],
            rows[t * batch : end * batch],
            back.delta,
            exponents,
            back.totals,
            back.total_exponent[0],
        )


@njit(nogil=True)
def write_weight_gradients(back, grad_in, grad_rec, grad_bias):
    """Write the weights' gradients without padding and exponent."""
    if back.totals.w_rec.shape[1] == 0:
        return
    matrices.write_unpadded(back.totals.w_in, back.total_exponent[0], grad_in)
    matrices.write_unpadded(back.totals.w_rec, back.total_exponent[0], grad_rec)
    matrices.write_unpadded(back.totals.bias, back.total_exponent[0], grad_bias.reshape(1, grad_bias.shape[0]))
