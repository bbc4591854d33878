"""The two scans of a diagonal recurrence, s_t = a_t ⊙ s_{t−1} + b_t: one loop each, without a matrix product.

All arrays hold some consecutive steps of one replica, (step, batch, units). A complex state has all real parts first,
then all imaginary parts.
"""

import numpy as np
from numba import boolean, float32, int32, njit, void

from rnnstudy.engines.numba_kernels.compiling import FAST_MATH, kernel
from rnnstudy.engines.numba_kernels.numbers import add_to_row, align_rows, rescale_rows

STEPS, ROWS, COUNTS = float32[:, :, ::1], float32[:, ::1], int32[:, ::1]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _advance(a, b, before, after):
    """after = a before + b."""
    for j in range(a.shape[0]):
        after[j] = a[j] * before[j] + b[j]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _advance_complex(a, b, before, after):
    """As `_advance`, of complex numbers."""
    half = a.shape[0] // 2
    a_re, a_im, s_re, s_im = a[:half], a[half:], before[:half], before[half:]
    for j in range(half):
        after[j] = a_re[j] * s_re[j] - a_im[j] * s_im[j] + b[j]
    imaginary, b_im = after[half:], b[half:]
    for j in range(half):
        imaginary[j] = a_re[j] * s_im[j] + a_im[j] * s_re[j] + b_im[j]


@kernel(void(STEPS, STEPS, STEPS, boolean))
def forward(a, b, s, is_complex):
    """Write s_1, … to s[1:], from s_0 in s[0]; `s` has one step more than `a` and `b`."""
    for t in range(a.shape[0]):
        if is_complex:
            for row in range(a.shape[1]):
                _advance_complex(a[t, row], b[t, row], s[t, row], s[t + 1, row])
        else:
            size = a[t].size
            _advance(a[t].reshape(size), b[t].reshape(size), s[t].reshape(size), s[t + 1].reshape(size))


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step_back(grad, a, before, at_a, at_b):
    """From G_t in `grad`: dL/db_t = G_t, dL/da_t = G_t s_{t−1}, and G_t a_t in place of G_t."""
    for j in range(grad.shape[0]):
        at_b[j] = grad[j]
    for j in range(grad.shape[0]):
        at_a[j] = grad[j] * before[j]
    for j in range(grad.shape[0]):
        grad[j] = grad[j] * a[j]


@njit(nogil=True, error_model="numpy", fastmath=FAST_MATH)
def _step_back_complex(grad, a, before, at_a, at_b):
    """As `_step_back`: of real and imaginary parts, so that G_t is multiplied by the conjugates of s_{t−1} and a_t."""
    half = grad.shape[0] // 2
    re, im, a_re, a_im, s_re, s_im = grad[:half], grad[half:], a[:half], a[half:], before[:half], before[half:]
    at_a_im, at_b_im = at_a[half:], at_b[half:]
    for j in range(half):
        at_b[j] = re[j]
        at_b_im[j] = im[j]
    for j in range(half):
        at_a[j] = re[j] * s_re[j] + im[j] * s_im[j]
        at_a_im[j] = im[j] * s_re[j] - re[j] * s_im[j]
    for j in range(half):
        old = re[j]
        re[j] = old * a_re[j] + im[j] * a_im[j]
        im[j] = im[j] * a_re[j] - old * a_im[j]


@kernel(void(STEPS, STEPS, STEPS, int32[::1], ROWS, int32[::1], STEPS, STEPS, ROWS, COUNTS, boolean))
def backward(a, s, direct, slots, grad, exponent, at_a, at_b, squares, exponents, is_complex):
    """The gradient at s_t from the last of these steps to the first, G_t = direct_t + ā_{t+1} ⊙ G_{t+1}.

    s: s_0, s_1, … as `forward` writes them.
    direct, slots: what is added to G_t at each step: the index into `direct` (slot, batch, units), −1 for nothing.
    grad, exponent: ā_{t+1} ⊙ G_{t+1} = grad·2^exponent (batch) before the last step; replaced by that after the first.
    at_a, at_b: dL/da_t and dL/db_t without the factors 2^exponents, written.
    squares, exponents: ‖G_t‖² = squares·4^exponents (step, batch), written.
    """
    no_other_state = np.zeros((grad.shape[0], 0), np.float32)
    for t in range(a.shape[0] - 1, -1, -1):
        if slots[t] >= 0:
            for row in range(grad.shape[0]):
                exponent[row] = add_to_row(grad[row], exponent[row], direct[slots[t], row], no_other_state[row])
        rescale_rows(grad, exponent, squares[t], exponents[t])
        if is_complex:
            for row in range(grad.shape[0]):
                _step_back_complex(grad[row], a[t, row], s[t, row], at_a[t, row], at_b[t, row])
        else:
            size = grad.size
            _step_back(
                grad.reshape(size), a[t].reshape(size), s[t].reshape(size), at_a[t].reshape(size), at_b[t].reshape(size)
            )


@kernel(void(ROWS, int32[::1], int32))
def align(rows, exponents, shared):
    """Rescale rows·2^exponents to rows·2^shared."""
    align_rows(rows, exponents, shared)


@kernel(void(ROWS, float32[::1], int32[::1]))
def norms(rows, squares, exponents):
    """‖row‖² = squares·4^exponents of each row; `rows` are overwritten."""
    zero = np.zeros(rows.shape[0], np.int32)
    rescale_rows(rows, zero, squares, exponents)
