"""The compiled CPU engine: one program for each replica, the loop over time inside, threads over replicas.

A replica's bits depend neither on the number of threads nor on its companions, and a replica that leaves the finite
numbers leaves the others as they are. The gradient carried back keeps an exponent beside it, always, so that
log10 ‖dL/ds_t‖ is right far beyond float32's range and no time is lost in denormal arithmetic.
"""

import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.buffers import BufferPool
from rnnstudy.engines.engine import Cuts, Engine, Need, Trajectory

logger = logging.getLogger("rnnstudy")

ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear")
"""In the order in which the Elman kernels number them."""

BLOCKS: dict[type[Cell], int] = {Elman: 1, LSTM: 4, GRU: 4}
"""The cells that have kernels, and the blocks that a step computes: gates, and what of them the backward pass needs."""


SHELF = BufferPool()


class Norms:
    """‖dL/ds_t‖² = squares·4^exponents for each state (state, replica, time, batch); empty before the backward pass."""

    squares: np.ndarray | None = None
    exponents: np.ndarray | None = None


class CompiledTrajectory(Trajectory):
    """Keeps the squared norms, with their exponents, and not the gradients themselves."""

    def __init__(self, outputs: Tensor, states: tuple[str, ...], norms: Norms) -> None:
        self.outputs = outputs
        self._states = states
        self._norms = norms

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        if state not in self._states:
            raise RuntimeError(f"state '{state}' was not observed; observed: {', '.join(self._states) or 'none'}")
        squares, exponents = self._norms.squares, self._norms.exponents
        if squares is None or exponents is None:
            raise RuntimeError("the gradient through time exists only after the backward pass")
        place = self._states.index(state)
        halves = torch.from_numpy(squares[place]).double().log10() / 2
        return (halves + math.log10(2) * torch.from_numpy(exponents[place]).double()).transpose(0, 1)


class CompiledEngine(Engine):
    """Elman, LSTM and GRU in float32 on the CPU."""

    name = "compiled"

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Elman, GRU, and LSTM with its forget gate, without methods that cut the gradient or ask for it whole."""
        return not needs and _has_kernels(cell)

    def unroll(
        self,
        cell: Cell,
        parameters: Parameters,
        inputs: Float[Tensor, "time replica batch features"],
        *,
        widths: dict[str, int],
        observed: bool,
        steps: Sequence[int] | None = None,
        cuts: Cuts | None = None,
    ) -> CompiledTrajectory:
        """As for every engine. Raises `RuntimeError` for a cell without kernels and for other than float32 on the CPU.

        The first call of a cell compiles its kernels, says so to the logger `rnnstudy`, and keeps them on disk.
        """
        if cuts or not _has_kernels(cell):
            raise RuntimeError(f"no compiled kernels for {cell!r}{' with cuts' if cuts else ''}; use ReferenceEngine")
        if inputs.dtype != torch.float32 or inputs.device.type != "cpu":
            raise RuntimeError(f"the compiled engine takes float32 on the CPU, not {inputs.dtype} on {inputs.device}")
        norms = Norms()
        # Makes the outputs differentiable where only the gradient through time is wanted and no weight's gradient.
        anchor = torch.zeros((), requires_grad=True) if observed else None
        wanted = tuple(range(inputs.shape[0]) if steps is None else sorted(set(steps)))
        outputs = _Unrolled.apply(cell, wanted, norms, anchor, inputs, *_arranged(cell, parameters))
        return CompiledTrajectory(outputs, cell.states if observed else (), norms)


class _Unrolled(torch.autograd.Function):
    """(inputs, W_xh, W_hh, bias), as the kernels order them, to the outputs at the wanted steps."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, steps: tuple[int, ...], norms: Norms, _: Any, *tensors: Tensor) -> Tensor:
        kernels = _kernels(type(cell))
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        inputs, *weights = arrays
        time, replicas, batch, _ = inputs.shape
        kept = SHELF.take(_shapes(cell, replicas, time, batch, kernels.padded(cell.width)))

        def run(r: int) -> None:
            states = tuple(one[r] for one in kept.arrays)
            kernels.forward(inputs[:, r], *(weight[r] for weight in weights), _variant(cell), states)

        each(replicas, run)
        ctx.cell, ctx.steps, ctx.norms, ctx.kept = cell, steps, norms, kept
        ctx.save_for_backward(*tensors)
        later = torch.tensor(steps, dtype=torch.long) + 1
        return torch.from_numpy(kept.arrays[0])[:, later, :, : cell.width].transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, added: Tensor) -> tuple[Tensor | None, ...]:
        cell, kept, norms = ctx.cell, ctx.kept.arrays, ctx.norms
        kernels = _kernels(type(cell))
        tensors = [tensor.detach().contiguous() for tensor in ctx.saved_tensors]
        inputs, *weights = (tensor.numpy() for tensor in tensors)
        time, replicas, batch, _ = inputs.shape
        # No time steps where the gradient of the inputs is not wanted.
        shapes = [tensors[0] if ctx.needs_input_grad[4] else tensors[0][:0], *tensors[1:]]
        gradients = [torch.empty_like(shape) for shape in shapes]
        by_input, *by_weight = (gradient.numpy() for gradient in gradients)
        slots = np.full(time, -1, np.int32)
        slots[list(ctx.steps)] = np.arange(len(ctx.steps))
        direct = added.detach().contiguous().numpy()
        squares = np.empty((len(cell.states), replicas, time, batch), np.float32)
        exponents = np.empty(squares.shape, np.int32)

        def run(r: int) -> None:
            states = tuple(one[r] for one in kept)
            found = (by_input[:, r], *(gradient[r] for gradient in by_weight), squares[:, r], exponents[:, r])
            given = (inputs[:, r], *(weight[r] for weight in weights), _variant(cell), states)
            kernels.backward(*given, direct[:, r], slots, *found)

        each(replicas, run)
        norms.squares, norms.exponents = squares, exponents
        wanted = [
            gradient if needed else None for gradient, needed in zip(gradients, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, None, None, None, *wanted


def _has_kernels(cell: Cell) -> bool:
    # A subclass may compute something else.
    return type(cell) in BLOCKS and (not isinstance(cell, LSTM) or cell.variant == "forget gate")


def _variant(cell: Cell) -> int:
    return ACTIVATIONS.index(cell.activation) if isinstance(cell, Elman) else 0


def _arranged(cell: Cell, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """W_xh, W_hh and the bias, their blocks in the order in which the cell's kernels have them."""
    w_in, w_rec, bias = (parameters[name] for name in ("W_xh", "W_hh", "b_h"))
    if not isinstance(cell, GRU):
        return w_in, w_rec, bias
    # r, z, h̃ to h̃, r, z: what the input gives stands first, and what the state gives last.
    return w_in.roll(cell.width, -1), w_rec, torch.cat([bias.roll(cell.width, -1), parameters["b_hn"]], -1)


def _shapes(cell: Cell, replicas: int, time: int, batch: int, width: int) -> list[tuple[int, ...]]:
    """What the backward pass needs: h, another state where there is one, and where there are gates, their blocks."""
    blocks = BLOCKS[type(cell)]
    states = [(replicas, time + 1, batch, width)] * len(cell.states)
    return states if blocks == 1 else [*states, (replicas, time, blocks * batch, width)]


@functools.cache
def _kernels(cell: type[Cell]) -> ModuleType:
    """The module with a cell's `forward` and `backward`; importing it compiles, unless that was done before."""
    from numba.core import event

    class Announcement(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                logger.warning("compiling the kernels of %s, once on this machine: up to half a minute", cell.__name__)
                self.said = True

        def on_end(self, event: Any) -> None:
            """The end is not told."""

    with event.install_listener("numba:compile", Announcement()):
        if cell is LSTM:
            from rnnstudy.engines.numba_kernels import lstm as kernels
        elif cell is GRU:
            from rnnstudy.engines.numba_kernels import gru as kernels
        else:
            from rnnstudy.engines.numba_kernels import elman as kernels
    return kernels


def each(replicas: int, run: Callable[[int], None]) -> None:
    """run(r) for every replica r, on torch's number of threads, this one among them; denormals count as zero."""
    helpers = torch.get_num_threads() - 1
    turns = iter(range(replicas))

    def some() -> None:
        # Set for each thread, and must not depend on who calls.
        before = sys.float_info.min / 2 == 0.0
        torch.set_flush_denormal(True)
        try:
            for r in turns:
                run(r)
        finally:
            torch.set_flush_denormal(before)

    waiting = [_pool(helpers).submit(some) for _ in range(min(helpers, replicas - 1))]
    some()
    for helper in waiting:
        helper.result()


@functools.cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, "rnnstudy")


# A forked process has no threads but the one that forked.
os.register_at_fork(after_in_child=_pool.cache_clear)
