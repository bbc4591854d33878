"""The norms of a module's state gradients by the compiled kernels: float32 on the CPU, one layer, from zero states."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from rnnstudy.cells import GRU, LSTM, Elman
from rnnstudy.cells.cell import Cell
from rnnstudy.engines.buffers import BufferPool
from rnnstudy.engines.compiled import buffer_shapes, kernels_of
from rnnstudy.engines.engine import installed
from rnnstudy.watching.recurrences import Weights

BUFFERS = BufferPool(most_bytes=2**27)

ACTIVATIONS = {"tanh": 0, "relu": 1}
"""The numbers of the kernels."""


def cell_of(module: nn.RNNBase) -> Cell:
    """The cell whose kernels run the module."""
    if isinstance(module, nn.LSTM):
        return LSTM(width=module.hidden_size)
    if isinstance(module, nn.GRU):
        return GRU(width=module.hidden_size)
    return Elman(width=module.hidden_size, activation=module.nonlinearity)


def serve(module: nn.RNNBase, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels can serve a module, if it was given no initial states, and c_n has no gradient."""
    on_cpu = device.type == "cpu" and dtype == torch.float32
    return on_cpu and module.num_layers == 1 and not module.proj_size and installed("numba")


def log_norms(
    module: nn.RNNBase, weights: Weights, inputs: Tensor, outputs: Tensor | None, direct: Tensor, arrives: Tensor
) -> dict[str, Tensor]:
    """log10 ‖dL/ds_t‖ (time, batch) for each state, in float64; −inf for an exact zero.

    Args:
        module: its kind and width.
        weights: those of the direction.
        inputs: (time, batch, features), in the direction's own order.
        outputs: (time, batch, width), the states h in the same order, which spare an nn.RNN its forward pass; None
            where they are not known.
        direct: (slot, batch, width), what the loss receives directly from h at some of the steps.
        arrives: indices of these steps.
    """
    cell, (time, batch, _) = cell_of(module), inputs.shape
    kernels = kernels_of(type(cell))
    buffers = BUFFERS.acquire(buffer_shapes(cell, 1, time, batch))
    saved = tuple(array[0] for array in buffers.arrays)
    activation = ACTIVATIONS[module.nonlinearity] if isinstance(module, nn.RNN) else 0
    no_symbols = np.empty((0, batch), np.int32)
    read = (inputs.contiguous().numpy(), no_symbols, *_in_kernel_order(module, weights), activation, saved)
    if isinstance(module, nn.RNN) and outputs is not None:
        # The one state of the cell; units and steps that the kernel adds for its vectors are zero.
        (states,), width = saved, module.hidden_size
        states[0], states[1:, :, :width], states[1:, :, width:] = 0, outputs.numpy(), 0
    else:
        kernels.forward(*read)
    slots = np.full(time, -1, np.int32)
    slots[arrives.numpy()] = np.arange(len(arrives), dtype=np.int32)
    squares = np.empty((len(cell.states), time, batch), np.float32)
    exponents = np.empty(squares.shape, np.int32)
    nothing = np.empty((0, batch, inputs.shape[2]), np.float32)
    no_weights = np.empty((0, 0), np.float32)
    kernels.backward(
        *read, direct.contiguous().numpy(), slots,
        nothing, no_weights, no_weights, np.empty(0, np.float32), squares, exponents,
    )  # fmt: skip
    norms = torch.from_numpy(squares).double().log10() / 2 + math.log10(2) * torch.from_numpy(exponents).double()
    return dict(zip(cell.states, norms, strict=True))


def _in_kernel_order(module: nn.RNNBase, weights: Weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W_xh, W_hh (in, blocks · width) and the bias; the blocks of an LSTM are f, i, o, C̃, those of a GRU h̃, r, z, q."""
    width = module.hidden_size
    zero = weights.weight_ih.new_zeros(len(weights.weight_ih))
    b_ih = zero if weights.bias_ih is None else weights.bias_ih
    b_hh = zero if weights.bias_hh is None else weights.bias_hh
    in_order = hidden_order = list(range(len(weights.weight_ih) // width))
    if isinstance(module, nn.LSTM):
        in_order = hidden_order = [1, 0, 3, 2]
    elif isinstance(module, nn.GRU):
        in_order, hidden_order = [2, 0, 1], [0, 1, 2]

    def blocks(values: Tensor, order: list[int]) -> Tensor:
        return torch.cat([values[block * width : (block + 1) * width] for block in order])

    bias = blocks(b_ih + b_hh, in_order)
    if isinstance(module, nn.GRU):
        # The candidate's own recurrent bias is multiplied by the reset gate.
        bias = torch.cat([b_ih[2 * width :], (b_ih + b_hh)[: 2 * width], b_hh[2 * width :]])
    w_in, w_rec = blocks(weights.weight_ih, in_order), blocks(weights.weight_hh, hidden_order)
    return w_in.T.contiguous().numpy(), w_rec.T.contiguous().numpy(), bias.numpy()
