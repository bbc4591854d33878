"""What all cells share on the way through time, forward and back, for one replica; a cell adds what a step computes.

What a step computes is kept in `blocks` blocks, each (batch, padded width), one after another: (block·batch, padded
width). The input's part x_t W_xh is added to the first of them and the recurrent part h_{t-1} W_hh to the last; where
both reach, they add up. Elman has one block and LSTM four, its gates; a GRU's are h̃, r, z, q, the input's part for the
first three.

A cell works on whole blocks as rows of numbers (batch·padded width): a loop over one long row is vector code without
interruption, while each short row, or view of one, costs as much as its arithmetic.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import float32, int32, njit, types, void

from rnnstudy.engines.numba_kernels.numbers import ZERO_EXPONENT, inject
from rnnstudy.engines.numba_kernels.tiles import set_products
from rnnstudy.engines.numba_kernels.weights import add_back, gather, pass_to_inputs, transposed, unscaled, widened

VECTOR, MATRIX, VIEW = float32[::1], float32[:, ::1], float32[:, :, :]


def forward_signature(kept: int) -> Any:
    """forward(inputs, w_in, w_rec, bias, activation, kept): fills the `kept` arrays from inputs x, (time, batch,
    features).

    kept[0] is h (1 + time, batch, padded width), h_0 = 0. The weights are (features, …·width) and (width, …·width) with
    their blocks in the order in which a step has them; the bias (blocks·width) is that of all blocks.
    """
    return void(VIEW, MATRIX, MATRIX, VECTOR, int32, _kept(kept))


def backward_signature(kept: int) -> Any:
    """backward(inputs, …, kept, added, slots, grad_inputs, grad_in, grad_rec, grad_bias, squares, exponents): the
    gradients of the weights and of the inputs, and the squared norms of dL/ds_t for each state s.

    added: what the loss adds to dL/dh_t directly (slot, batch, width).
    slots: the slot of each time step; −1 where there is none.
    grad_inputs: (time, batch, features) to be written; without time steps where it is not wanted.
    squares, exponents: ‖dL/ds_t‖² = squares·4^exponents (state, time, batch), to be written.
    """
    gradients = (VIEW, MATRIX, MATRIX, VECTOR)
    return void(*(VIEW, MATRIX, MATRIX, VECTOR, int32, _kept(kept), VIEW, int32[::1]), *gradients, VIEW, int32[:, :, :])


def _kept(count: int) -> Any:
    return types.UniTuple(float32[:, :, ::1], count)


Weights = namedtuple("Weights", "w_in w_rec bias")
"""Each (block, in, padded width), and the same of their gradients; a bias has one row in."""


@njit(nogil=True)
def begin(w_in, w_rec, bias, h):
    """What the steps forward need; h_0 = 0."""
    width = w_rec.shape[0]
    h[0] = 0
    return Weights(
        widened(w_in, w_in.shape[1] // width),
        widened(w_rec, w_rec.shape[1] // width),
        widened(bias.reshape(1, bias.shape[0]), bias.shape[0] // width),
    )


@njit(nogil=True)
def add_up(weights, x, before, lines):
    """The pre-activations of one step: lines = bias + x_t W_xh + h_{t-1} W_hh, each in its blocks."""
    batch, blocks = before.shape[0], weights.bias.shape[0]
    state = before[:, : weights.w_rec.shape[1]]
    for g in range(blocks):
        k = g - (blocks - weights.w_rec.shape[0])
        own = lines[g * batch : (g + 1) * batch]
        # Where a part does not reach, a product over no depth stands for it.
        if g >= weights.w_in.shape[0]:
            set_products(weights.bias[g, 0], x[:, :0], weights.w_in[0, :0], state, weights.w_rec[k], own)
        elif k < 0:
            set_products(weights.bias[g, 0], x, weights.w_in[g], state[:, :0], weights.w_rec[0, :0], own)
        else:
            set_products(weights.bias[g, 0], x, weights.w_in[g], state, weights.w_rec[k], own)


@njit(nogil=True)
def block(lines, g, size):
    """Block g of one step's lines as one row (batch·padded width) of `size` numbers."""
    return lines.reshape(lines.size)[g * size : (g + 1) * size]


Back = namedtuple("Back", "w_in w_rec steps delta delta_exponents by_h exponent room totals top")
"""What is carried back, and the weights' gradients so far.

Attributes:
    w_in, w_rec: the weights, transposed.
    steps: so many steps' δ are gathered into the weights' gradients at once.
    delta: dL/da_t of these steps (block, step·batch, padded width), to be multiplied by 2^delta_exponents (step·batch).
    by_h: dL/dh_t, to be multiplied by 2^exponent (batch).
    room: (batch, padded features), to be written over.
    totals: the weights' gradients, to be multiplied by 2^top, `top` an array of one.
"""


@njit(nogil=True)
def begin_back(w_in, w_rec, bias, h):
    """Nothing carried back yet."""
    batch, whole, width = h.shape[1], h.shape[2], w_rec.shape[0]
    blocks = bias.shape[0] // width
    # Lines that stay in the cache until they are gathered.
    steps = max(1, (256 if blocks == 1 else 128) // batch)
    back_in = transposed(w_in)
    return Back(
        back_in,
        transposed(w_rec),
        steps,
        np.zeros((blocks, steps * batch, whole), np.float32),
        np.zeros(steps * batch, np.int32),
        np.zeros((batch, whole), np.float32),
        np.full(batch, ZERO_EXPONENT, np.int32),
        np.zeros((batch, back_in.shape[1]), np.float32),
        Weights(
            np.zeros((w_in.shape[1] // width, w_in.shape[0], whole), np.float32),
            np.zeros((w_rec.shape[1] // width, width, whole), np.float32),
            np.zeros((blocks, 1, whole), np.float32),
        ),
        np.full(1, ZERO_EXPONENT, np.int32),
    )


@njit(nogil=True)
def receive(back, t, added, slots, companion):
    """Add what the loss gives to dL/dh_t directly.

    `companion` (batch, padded width) is the gradient of another state, under the same exponents.
    """
    if slots[t] >= 0:
        for b in range(back.by_h.shape[0]):
            back.exponent[b] = inject(back.by_h[b], back.exponent[b], added[slots[t], b], companion[b])


@njit(nogil=True)
def delta_of(back, t, g):
    """Block g of δ_t as one row (batch·padded width), to be written."""
    batch, whole = back.by_h.shape
    first = t % back.steps * batch * whole
    return back.delta[g].reshape(back.delta[g].size)[first : first + batch * whole]


@njit(nogil=True)
def pass_back(back, t, inputs, h, grad_inputs):
    """From δ_t to what goes on to step t − 1, added to `by_h`, to the inputs, and to the weights."""
    batch, whole = back.by_h.shape
    blocks = back.delta.shape[0]
    first, last = t % back.steps * batch, (t % back.steps + 1) * batch
    back.delta_exponents[first:last] = back.exponent
    add_back(back.delta[blocks - back.totals.w_rec.shape[0] :], first, last, back.w_rec, back.by_h)
    if grad_inputs.shape[0] > 0:
        of_input = back.delta[: back.totals.w_in.shape[0]]
        pass_to_inputs(of_input, first, last, back.exponent, back.w_in, back.room, grad_inputs[t])
    if first == 0:
        rows = h.reshape(h.shape[0] * batch, whole)
        end = min(t + back.steps, h.shape[0] - 1)
        exponents = back.delta_exponents[: (end - t) * batch]
        back.top[0] = gather(
            inputs[t:end], rows[t * batch : end * batch], back.delta, exponents, back.totals, back.top[0]
        )


@njit(nogil=True)
def finish(back, grad_in, grad_rec, grad_bias):
    """The weights' gradients out of their padding and exponent."""
    unscaled(back.totals.w_in, back.top[0], grad_in)
    unscaled(back.totals.w_rec, back.top[0], grad_rec)
    unscaled(back.totals.bias, back.top[0], grad_bias.reshape(1, grad_bias.shape[0]))
