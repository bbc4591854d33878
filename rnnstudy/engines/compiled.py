"""The compiled engine for the CPU: a Numba program runs one replica over all time steps; threads run the replicas.

A replica's bits depend neither on the number of threads nor on the other replicas, and a replica with numbers that are
not finite does not affect the others. The gradient that is propagated back always has an exponent beside its mantissa:
log10 ‖dL/ds_t‖ is right far beyond float32's range, and no time is lost in denormal arithmetic.
"""

import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.engines.block_float import LOG10_2
from rnnstudy.engines.buffers import BufferPool
from rnnstudy.engines.engine import Engine, LayerRun, Need, Trajectory, installed, require_gradient
from rnnstudy.engines.explicit_backward import has_explicit_backward
from rnnstudy.spec import RequestError

logger = logging.getLogger("rnnstudy")

COMPILING = "compiling the kernels of "
"""How the line that says so begins; reports leave it out."""

ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear")
"""In the order in which the Elman kernels number them."""

BLOCKS: dict[type[Cell], int] = {Elman: 1, LSTM: 4, GRU: 4}
"""The cells that have kernels, and how many blocks a step computes: gates, and for a GRU h_{t−1} W_hh̃ + b_hn."""

KERNELS = "rnnstudy.engines.numba_kernels"
"""The package with a module of kernels for each cell."""

BUFFERS = BufferPool()


class Norms:
    """‖dL/ds_t‖² = squares·4^exponents for each state (state, replica, time, batch), after the backward pass."""

    squares_and_exponents: tuple[np.ndarray, np.ndarray] | None = None


class CompiledTrajectory(Trajectory):
    """Keeps the squared norms, with their exponents, and not the gradients themselves."""

    def __init__(self, outputs: Tensor, states: tuple[str, ...], norms: Norms) -> None:
        self.outputs = outputs
        self._states = states
        self._norms = norms

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        norms = self._norms.squares_and_exponents
        require_gradient(state, self._states, norms is not None)
        assert norms is not None
        squares, exponents = (torch.from_numpy(array[self._states.index(state)]).double() for array in norms)
        return (squares.log10() / 2 + LOG10_2 * exponents).transpose(0, 1)


class CompiledEngine(Engine):
    """Elman, LSTM and GRU in float32 on the CPU."""

    name = "compiled"

    @classmethod
    def require(cls, device: torch.device) -> None:
        if device.type != "cpu":
            raise RequestError(f"the compiled engine trains on the CPU, not on {device}; use --engine auto or graph")
        if not installed("numba"):
            raise RequestError(
                "the compiled engine needs numba, which is not installed; use --engine auto or reference"
            )

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Elman, GRU, and LSTM with its forget gate, unless a method cuts the gradient or needs it itself."""
        return not needs and _has_kernels(cell)

    def compiles(self, cell: Cell) -> bool:
        """Whether the cell's kernels are neither loaded nor cached on disk."""
        name = type(cell).__name__.lower()
        if f"{KERNELS}.{name}" in sys.modules:
            return False
        from rnnstudy.engines.numba_kernels.compiling import cache_folder

        return not any(cache_folder().rglob(f"{name}.backward-*.nbi"))

    def unroll_layer(self, run: LayerRun) -> CompiledTrajectory:
        """As for every engine. Raises `RuntimeError` for a cell without kernels and unless it is float32 on the CPU.

        The first call for a cell compiles its kernels, logs that (logger `rnnstudy`), and caches them on disk.
        """
        cell = run.cell
        if run.changes_gradients or not _has_kernels(cell):
            what = f"{cell!r}{' with changed gradients' if run.changes_gradients else ''}"
            raise RuntimeError(f"no compiled kernels for {what}; use ReferenceEngine")
        require_float32_on_cpu(run, self.name)
        norms, weights = Norms(), kernel_weights(cell, run.parameters)
        observed = cell.states if run.observed else ()
        if not torch.is_grad_enabled():
            return CompiledTrajectory(_evaluated(cell, run.output_steps, run.inputs, *weights), observed, norms)
        # Makes the outputs differentiable where only the gradient through time is needed and no weight's gradient.
        anchor = torch.zeros((), requires_grad=True) if run.observed else None
        outputs = _Unrolled.apply(cell, run.output_steps, norms, anchor, run.inputs, *weights)
        return CompiledTrajectory(outputs, observed, norms)


@dataclass(frozen=True)
class _Read:
    """What one replica reads, as the kernels take it: numbers, or symbols and rows of W_xh that they name.

    Attributes:
        inputs: x_t (time, batch, features); without features where symbols are read.
        symbols: (time, batch), rows of `w_in`, or −1 for nothing; without time steps where numbers are read.
        w_in: W_xh; where it has more rows than there are symbols to read, the rows of those that occur.
        rows: which rows of W_xh those are.
    """

    inputs: np.ndarray
    symbols: np.ndarray
    w_in: np.ndarray
    rows: np.ndarray | slice

    @staticmethod
    def of_symbols(symbols: np.ndarray, w_in: np.ndarray) -> "_Read":
        """From symbols (time, batch, 1) and the whole W_xh.

        Raises `IndexError` for a symbol that has no row: the kernels look up without checking.
        """
        time, batch, _ = symbols.shape
        if symbols.min() < NOTHING or symbols.max() >= len(w_in):
            raise IndexError(f"symbols from {symbols.min()} to {symbols.max()}; W_xh has {len(w_in)} rows")
        no_numbers = np.empty((time, batch, 0), np.float32)
        if symbols.size >= len(w_in):
            return _Read(no_numbers, symbols.reshape(time, batch).astype(np.int32), w_in, slice(None))
        found, places = np.unique(symbols, return_inverse=True)
        # Nothing, which is below every symbol, has no row.
        absent = np.count_nonzero(found == NOTHING)
        rows = (places.reshape(time, batch) - absent).astype(np.int32)
        return _Read(no_numbers, rows, w_in[found[absent:]], found[absent:])


class _Layer:
    """A layer's inputs and weights, as the kernels take them for each replica."""

    def __init__(self, cell: Cell, tensors: Sequence[Tensor]) -> None:
        """From inputs or symbols, W_xh, W_hh and the bias."""
        self.inputs, self.w_in, *self._weights = (tensor.detach().contiguous().numpy() for tensor in tensors)
        self.time, self.replicas, self.batch, self.features = self.inputs.shape
        self.kernels = kernels_of(type(cell))
        self._are_symbols = not tensors[0].is_floating_point()
        self._no_symbols = np.empty((0, self.batch), np.int32)
        self._activation = ACTIVATIONS.index(cell.activation) if isinstance(cell, Elman) else 0

    def read(self, r: int) -> _Read:
        """What replica r reads."""
        if self._are_symbols:
            return _Read.of_symbols(self.inputs[:, r], self.w_in[r])
        return _Read(self.inputs[:, r], self._no_symbols, self.w_in[r], slice(None))

    def arguments(self, r: int, read: _Read) -> tuple[Any, ...]:
        """The first arguments of both kernels."""
        w_rec, bias = self._weights
        return read.inputs, read.symbols, read.w_in, w_rec[r], bias[r], self._activation


def _evaluated(cell: Cell, steps: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """The outputs at these steps. Of what the backward pass would need, only the newest step is kept."""
    layer = _Layer(cell, tensors)
    outputs = np.empty((len(steps), layer.replicas, layer.batch, cell.width), np.float32)
    shapes = buffer_shapes(cell, 1, 1, layer.batch)
    if steps != (layer.time - 1,):
        shapes[0] = buffer_shapes(cell, 1, layer.time, layer.batch)[0]
    # The first state in a buffer of all steps is h_0; a shorter one is written from its beginning again.
    places = [(step + 1) % shapes[0][1] for step in steps]

    def run(r: int) -> None:
        buffers = BUFFERS.acquire(shapes)
        saved = tuple(array[0] for array in buffers.arrays)
        layer.kernels.forward(*layer.arguments(r, layer.read(r)), saved)
        outputs[:, r] = saved[0][places, :, : cell.width]

    for_each_replica(layer.replicas, run)
    return torch.from_numpy(outputs)


class _Unrolled(torch.autograd.Function):
    """From (inputs or symbols, W_xh, W_hh, bias), with blocks in the kernels' order, to outputs at the output steps."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, steps: tuple[int, ...], norms: Norms, _: Any, *tensors: Tensor) -> Tensor:
        layer = _Layer(cell, tensors)
        buffers = BUFFERS.acquire(buffer_shapes(cell, layer.replicas, layer.time, layer.batch))
        reads: dict[int, _Read] = {}

        def run(r: int) -> None:
            reads[r] = layer.read(r)
            layer.kernels.forward(*layer.arguments(r, reads[r]), tuple(array[r] for array in buffers.arrays))

        for_each_replica(layer.replicas, run)
        ctx.cell, ctx.steps, ctx.norms, ctx.buffers, ctx.reads = cell, steps, norms, buffers, reads
        ctx.save_for_backward(*tensors)
        # The first state in the buffer is h_0.
        indices = torch.tensor(steps, dtype=torch.long) + 1
        return torch.from_numpy(buffers.arrays[0])[:, indices, :, : cell.width].transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors, states = ctx.saved_tensors, len(ctx.cell.states)
        layer, arrays = _Layer(ctx.cell, tensors), ctx.buffers.arrays
        time, replicas, batch = layer.time, layer.replicas, layer.batch
        empty = functools.partial(torch.empty, dtype=torch.float32)
        # No time steps where the gradient of the inputs is not needed.
        at_inputs = empty(time if ctx.needs_input_grad[4] else 0, replicas, batch, layer.features)
        w_in, *others = (tensor.shape for tensor in tensors[1:])
        # Zero in the rows of symbols that do not occur.
        gradients = [at_inputs, empty(w_in).zero_(), *map(empty, others)]
        grad_inputs, grad_in, *grad_weights = (gradient.numpy() for gradient in gradients)
        slots = np.full(time, -1, np.int32)
        slots[list(ctx.steps)] = np.arange(len(ctx.steps))
        direct = at_outputs.detach().contiguous().numpy()
        squares = np.empty((states, replicas, time, batch), np.float32)
        exponents = np.empty(squares.shape, np.int32)

        def run(r: int) -> None:
            saved, read = tuple(array[r] for array in arrays), ctx.reads[r]
            at_rows = np.empty_like(read.w_in)
            at_weights = (at_rows, *(gradient[r] for gradient in grad_weights))
            written = (grad_inputs[:, r], *at_weights, squares[:, r], exponents[:, r])
            layer.kernels.backward(*layer.arguments(r, read), saved, direct[:, r], slots, *written)
            grad_in[r][read.rows] = at_rows

        for_each_replica(replicas, run)
        ctx.norms.squares_and_exponents = squares, exponents
        needed = zip(gradients, ctx.needs_input_grad[4:], strict=True)
        return None, None, None, None, *(gradient if wanted else None for gradient, wanted in needed)


def require_float32_on_cpu(run: LayerRun, engine: str) -> None:
    """Raises `RuntimeError` for parameters, or inputs that are not symbols, of another type or on another device."""
    for values in (*run.parameters.values(), *([] if run.vocabulary is not None else [run.inputs])):
        if values.dtype != torch.float32 or values.device.type != "cpu":
            raise RuntimeError(f"the {engine} engine takes float32 on the CPU, not {values.dtype} on {values.device}")


def _has_kernels(cell: Cell) -> bool:
    return type(cell) in BLOCKS and has_explicit_backward(cell)


def kernel_weights(cell: Cell, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """W_xh, W_hh and the bias, with their blocks in the order that the cell's kernels expect."""
    w_in, w_rec, bias = (parameters[name] for name in ("W_xh", "W_hh", "b_h"))
    if not isinstance(cell, GRU):
        return w_in, w_rec, bias
    # From r, z, h̃ to h̃, r, z: the blocks that read the input come first, those that read the state last.
    return w_in.roll(cell.width, -1), w_rec, torch.cat([bias.roll(cell.width, -1), parameters["b_hn"]], -1)


def buffer_shapes(cell: Cell, replicas: int, time: int, batch: int) -> list[tuple[int, ...]]:
    """Shapes of what the backward pass needs: the states (h first) and, where there are gates, their blocks."""
    from rnnstudy.engines.numba_kernels.tiles import padded

    blocks, width = BLOCKS[type(cell)], padded(cell.width)
    states = [(replicas, time + 1, batch, width)] * len(cell.states)
    return states if blocks == 1 else [*states, (replicas, time, blocks * batch, width)]


@functools.cache
def kernels_of(cell: type[Cell]) -> ModuleType:
    """The module with a cell's `forward` and `backward`; importing it compiles them unless they are cached on disk."""
    return compiled_module(cell.__name__.lower(), cell.__name__)


def compiled_module(name: str, words: str) -> ModuleType:
    """A module of kernels. When importing it compiles them, that is logged once: the kernels of `words`."""
    from numba.core import event

    class Announcement(event.Listener):
        announced = False

        def on_start(self, event: Any) -> None:
            if not self.announced:
                logger.warning("%s%s, once on this machine: up to half a minute", COMPILING, words)
                self.announced = True

        def on_end(self, event: Any) -> None:
            """Nothing to log."""

    with event.install_listener("numba:compile", Announcement()):
        return importlib.import_module(f"{KERNELS}.{name}")


def for_each_replica(replicas: int, run: Callable[[int], None]) -> None:
    """run(r) for every replica r, in as many threads as torch uses, this one included; denormals count as zero."""
    helpers = torch.get_num_threads() - 1
    remaining = iter(range(replicas))

    @denormals_are_zero()
    def work() -> None:
        for r in remaining:
            run(r)

    futures = [_thread_pool(helpers).submit(work) for _ in range(min(helpers, replicas - 1))]
    work()
    for future in futures:
        future.result()


@contextmanager
def denormals_are_zero() -> Iterator[None]:
    """Denormal numbers count as zero in this thread: the setting is the thread's, and results must not depend on it."""
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@functools.cache
def _thread_pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, "rnnstudy")


# A forked process has only the thread that forked, so it must make its own pool.
os.register_at_fork(after_in_child=_thread_pool.cache_clear)
