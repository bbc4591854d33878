"""h_t = φ(p_t + h_{t−1} W_hh) and its backward pass."""

import triton
import triton.language as tl

from rnnstudy.engines.triton_kernels.numbers import ZERO_EXPONENT, half_exponent, power_of_two, sigmoid, tanh


@triton.jit
def _activation(a, ACTIVATION: tl.constexpr):
    if ACTIVATION == "tanh":
        value = tanh(a)
    elif ACTIVATION == "relu":
        # A comparison, so that NaN stays NaN.
        value = tl.where(a < 0.0, 0.0, a)
    elif ACTIVATION == "sigmoid":
        value = sigmoid(a)
    else:
        value = a
    return value


@triton.jit
def _times_slope(gradient, h, ACTIVATION: tl.constexpr):
    """gradient · φ′, with φ′ computed from h."""
    if ACTIVATION == "tanh":
        value = gradient * (1.0 - h * h)
    elif ACTIVATION == "relu":
        value = gradient * tl.where(h > 0.0, 1.0, 0.0)
    elif ACTIVATION == "sigmoid":
        value = gradient * (h * (1.0 - h))
    else:
        value = gradient
    return value


@triton.jit
def forward(
    states,  # (replica, time, batch, width): p on entry, h afterwards
    recurrent,  # (replica, width, width)
    time,
    ACTIVATION: tl.constexpr,
    BATCH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    replica = tl.program_id(0).to(tl.int64)
    rows, units = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    weights = tl.load(recurrent + replica * WIDTH * WIDTH + units[:, None] * WIDTH + units[None, :])
    pointers = states + replica * time * BATCH * WIDTH + rows[:, None] * WIDTH + units[None, :]
    h = tl.zeros((ROWS, WIDTH), tl.float32)
    for _ in range(time):
        h = _activation(tl.load(pointers) + tl.dot(h, weights, input_precision=PRECISION), ACTIVATION)
        tl.store(pointers, h)
        pointers += BATCH * WIDTH


@triton.jit
def backward(
    states,  # h, as `forward` left it
    recurrent,
    direct,  # (replica, step, batch, width): the gradient at the outputs, as mantissas
    direct_exponents,  # (replica, step, batch)
    slots,  # (time): index of the time step in `direct`, or −1
    at_projected,  # (replica, time, batch, width): dL/dp_t, as mantissas
    squares,  # (replica, time, batch): ‖dL/dh_t‖², as mantissas
    exponents,  # (replica, time, batch)
    time,
    steps,
    ACTIVATION: tl.constexpr,
    BATCH: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    replica = tl.program_id(0).to(tl.int64)
    rows, units = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    transposed = tl.load(recurrent + replica * WIDTH * WIDTH + units[:, None] + units[None, :] * WIDTH)
    gradient = tl.zeros((ROWS, WIDTH), tl.float32)
    exponent = tl.full((ROWS,), ZERO_EXPONENT, tl.int32)
    for back in range(time):
        t = time - 1 - back
        slot = tl.load(slots + t)
        if slot >= 0:
            direct_row = (replica * steps + slot) * BATCH + rows
            direct_exponent = tl.load(direct_exponents + direct_row)
            added = tl.load(direct + direct_row[:, None] * WIDTH + units[None, :])
            shared = tl.maximum(exponent, direct_exponent)
            gradient = (
                gradient * power_of_two(exponent - shared)[:, None]
                + added * power_of_two(direct_exponent - shared)[:, None]
            )
            exponent = shared
        row = (replica * time + t) * BATCH + rows
        offsets = row[:, None] * WIDTH + units[None, :]
        square = tl.sum(gradient * gradient, axis=1)
        shift = half_exponent(square)
        scale = power_of_two(-shift)
        # A zero must not keep a large exponent, beside which what is added later would be lost.
        gradient = tl.where((square == 0.0)[:, None], 0.0, gradient * scale[:, None])
        exponent = tl.where(square == 0.0, ZERO_EXPONENT, exponent + shift)
        tl.store(squares + row, square * scale * scale)
        tl.store(exponents + row, exponent)
        at_p = _times_slope(gradient, tl.load(states + offsets), ACTIVATION)
        tl.store(at_projected + offsets, at_p)
        gradient = tl.dot(at_p, transposed, input_precision=PRECISION)
