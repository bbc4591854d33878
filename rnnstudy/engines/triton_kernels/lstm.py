"""The LSTM with its forget gate, and its backward pass.

The gates f, i, o, C̃ of a unit are side by side: column 4·unit + gate. One product then computes all four, and two
splits separate them without data leaving a thread.
"""

import triton
import triton.language as tl

from rnnstudy.engines.triton_kernels.numbers import ZERO_EXPONENT, half_exponent, power_of_two, sigmoid, tanh


@triton.jit
def _split_gates(gates, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """(rows, 4·width) → four tensors (rows, width)."""
    even, odd = tl.split(tl.reshape(gates, (ROWS, WIDTH, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _join_gates(first, second, third, fourth, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (ROWS, 4 * WIDTH))


@triton.jit
def forward(
    gates,  # (replica, time, batch, 4·width): p on entry, the gates' values afterwards
    c_states,  # (replica, time + 1, batch, width): c_0, …, c_T; c_0 is read
    h_states,  # (replica, time, batch, width): h_1, …, h_T
    recurrent,  # (replica, width, 4·width)
    time,
    BATCH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    replica = tl.program_id(0).to(tl.int64)
    rows, units, columns = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, 4 * WIDTH)
    weights = tl.load(recurrent + replica * WIDTH * 4 * WIDTH + units[:, None] * 4 * WIDTH + columns[None, :])
    h, c = tl.zeros((ROWS, WIDTH), tl.float32), tl.zeros((ROWS, WIDTH), tl.float32)
    for t in range(time):
        row = (replica * time + t) * BATCH + rows
        offsets = row[:, None] * (4 * WIDTH) + columns[None, :]
        arguments = tl.load(gates + offsets) + tl.dot(h, weights, input_precision=PRECISION)
        f, i, o, candidate = _split_gates(arguments, ROWS, WIDTH)
        f, i, o, candidate = sigmoid(f), sigmoid(i), sigmoid(o), tanh(candidate)
        c = f * c + i * candidate
        h = o * tanh(c)
        tl.store(gates + offsets, _join_gates(f, i, o, candidate, ROWS, WIDTH))
        tl.store(h_states + row[:, None] * WIDTH + units[None, :], h)
        c_row = (replica * (time + 1) + t + 1) * BATCH + rows
        tl.store(c_states + c_row[:, None] * WIDTH + units[None, :], c)


@triton.jit
def backward(
    gates,  # as `forward` left them
    c_states,
    recurrent,
    direct,  # (replica, step, batch, width): the gradient at the outputs, as mantissas
    direct_exponents,  # (replica, step, batch)
    slots,  # (time): index of the time step in `direct`, or −1
    at_projected,  # (replica, time, batch, 4·width): dL/dp_t, as mantissas
    squares_c,  # (replica, time, batch): ‖dL/dc_t‖², as mantissas
    squares_h,  # (replica, time, batch): ‖dL/dh_t‖², as mantissas
    exponents,  # (replica, time, batch)
    time,
    steps,
    BATCH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    replica = tl.program_id(0).to(tl.int64)
    rows, units, columns = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, 4 * WIDTH)
    # One product per gate: a single product over all gates would hold all of dL/dp_t in every warp's registers.
    weights = recurrent + replica * WIDTH * 4 * WIDTH + 4 * units[:, None] + units[None, :] * 4 * WIDTH
    of_f, of_i, of_o, of_candidate = tl.load(weights), tl.load(weights + 1), tl.load(weights + 2), tl.load(weights + 3)
    at_h, at_c = tl.zeros((ROWS, WIDTH), tl.float32), tl.zeros((ROWS, WIDTH), tl.float32)
    exponent = tl.full((ROWS,), ZERO_EXPONENT, tl.int32)
    for back in range(time):
        t = time - 1 - back
        slot = tl.load(slots + t)
        if slot >= 0:
            direct_row = (replica * steps + slot) * BATCH + rows
            direct_exponent = tl.load(direct_exponents + direct_row)
            added = tl.load(direct + direct_row[:, None] * WIDTH + units[None, :])
            shared = tl.maximum(exponent, direct_exponent)
            keep = power_of_two(exponent - shared)[:, None]
            at_h = at_h * keep + added * power_of_two(direct_exponent - shared)[:, None]
            at_c = at_c * keep
            exponent = shared
        row = (replica * time + t) * BATCH + rows
        offsets = row[:, None] * (4 * WIDTH) + columns[None, :]
        f, i, o, candidate = _split_gates(tl.load(gates + offsets), ROWS, WIDTH)
        c_offsets = ((replica * (time + 1) + t) * BATCH + rows)[:, None] * WIDTH + units[None, :]
        tanh_c = tanh(tl.load(c_states + c_offsets + BATCH * WIDTH))
        # The total derivative: c_t is read by h_t of the same step.
        at_c += at_h * o * (1.0 - tanh_c * tanh_c)
        square_h, square_c = tl.sum(at_h * at_h, axis=1), tl.sum(at_c * at_c, axis=1)
        square = square_h + square_c
        shift = half_exponent(square)
        scale = power_of_two(-shift)
        # A zero must not keep a large exponent, beside which what is added later would be lost.
        zero = (square == 0.0)[:, None]
        at_h = tl.where(zero, 0.0, at_h * scale[:, None])
        at_c = tl.where(zero, 0.0, at_c * scale[:, None])
        exponent = tl.where(square == 0.0, ZERO_EXPONENT, exponent + shift)
        tl.store(squares_c + row, square_c * scale * scale)
        tl.store(squares_h + row, square_h * scale * scale)
        tl.store(exponents + row, exponent)
        at_f = at_c * tl.load(c_states + c_offsets) * f * (1.0 - f)
        at_i = at_c * candidate * i * (1.0 - i)
        at_o = at_h * tanh_c * o * (1.0 - o)
        at_candidate = at_c * i * (1.0 - candidate * candidate)
        at_p = _join_gates(at_f, at_i, at_o, at_candidate, ROWS, WIDTH)
        tl.store(at_projected + offsets, at_p)
        at_c = at_c * f
        at_h = tl.dot(at_f, of_f, input_precision=PRECISION)
        at_h = tl.dot(at_i, of_i, at_h, input_precision=PRECISION)
        at_h = tl.dot(at_o, of_o, at_h, input_precision=PRECISION)
        at_h = tl.dot(at_candidate, of_candidate, at_h, input_precision=PRECISION)
