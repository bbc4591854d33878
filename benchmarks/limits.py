"""How near the compiled kernels come to what the processor gives, and what holds them up.

Of one forward and one backward pass of a replica are counted: the operations of its matrix products, the exponentials
of its gates, and the bytes that the forward pass leaves for the backward pass. The same processor is asked how fast it
does each alone, with the same code: products of one size in the fastest cache, the elementary function over a row in
the fastest cache, and a pass of writing and reading over memory as large as a population's. The sum of the three times
is the floor that kernels would have which wasted nothing, hid nothing behind anything else, and did nothing else. Wall
times, on one core; the shortest of many, since everything else on a machine only adds to them.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

import rnnstudy.engines.compiled as compiled_engine
from benchmarks.training_step import compiled, spread
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.numba_kernels import numbers, tiles

FEATURES, LENGTH, REPLICAS, ROUNDS = 6, 200, 8, 30
SIZES = ((20, 50), (128, 128))
BLOCKS = {Elman: 1, LSTM: 4, GRU: 3}
FUNCTIONS = {Elman: 1, LSTM: 6, GRU: 3}
"""Elementary functions for each unit and step, forward and back; an LSTM computes tanh c twice."""


def shortest(what: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Seconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        what()
        found.append(time.perf_counter() - began)
    return min(found)


@njit(nogil=True)
def _products(a, w, out, times):
    for _ in range(times):
        tiles.add_product(a, w, out)


@njit(nogil=True)
def _functions(row, times):
    for _ in range(times):
        for j in range(row.shape[0]):
            row[j] = numbers.sigmoid(row[j])


@njit(nogil=True)
def _write(memory, value):
    for j in range(memory.shape[0]):
        memory[j] = value


# Without these flags a sum is one chain of additions, each of which waits for the one before.
@njit(nogil=True, fastmath=True)
def _read(memory):
    total = np.float32(0)
    for j in range(memory.shape[0]):
        total += memory[j]
    return total


def operations_a_second() -> float:
    """Multiplications and additions of the products' own code, whose operands stay in the fastest cache."""
    rows, depth, columns, times = 16, 64, 4 * tiles.LANES, 2000
    a, w = np.ones((rows, depth), np.float32), np.ones((depth, columns), np.float32)
    out = np.zeros((rows, columns), np.float32)
    _products(a, w, out, 1)
    return 2 * rows * depth * columns * times / shortest(lambda: _products(a, w, out, times))


def functions_a_second() -> float:
    """Sigmoids; a hyperbolic tangent takes about as long."""
    row, times = np.zeros(1024, np.float32), 1000
    _functions(row, 1)
    return row.size * times / shortest(lambda: _functions(row, times))


def bytes_a_second(size: int) -> float:
    """Bytes of memory of this size that are written and later read again."""
    memory = np.zeros(size // 4, np.float32)
    _write(memory, np.float32(1))
    _read(memory)
    return 4 * memory.size / (shortest(lambda: _write(memory, np.float32(1)), 9) + shortest(lambda: _read(memory), 9))


def with_two_threads() -> list[dict[str, Any]]:
    """How many times sooner two threads do the same work than one: the products' own code and memory, each alone."""
    size = 24 * 2**18
    operands = [
        (np.ones((16, 64), np.float32), np.ones((64, 64), np.float32), np.zeros((16, 64), np.float32)) for _ in range(2)
    ]
    memories = [np.zeros(size, np.float32) for _ in range(2)]

    def products(half: int) -> None:
        _products(*operands[half], 20_000)

    def memory(half: int) -> None:
        for _ in range(4):
            _write(memories[half], np.float32(1))
            _read(memories[half])

    rows = []
    with ThreadPoolExecutor(2) as pool:
        for what in (products, memory):
            ratios = []
            for _ in range(10):
                began = time.perf_counter()
                what(0)
                what(1)
                between = time.perf_counter()
                list(pool.map(what, range(2)))
                ratios.append((between - began) / (time.perf_counter() - between))
            # The first round compiles.
            rows.append({"what": what.__name__, "times_faster": spread(ratios[1:])})
    return rows


def counted(cell: Cell, batch: int, length: int = LENGTH) -> dict[str, float]:
    """Operations, functions and bytes of a replica. A product of (B, n) and (n, m) takes 2 B n m operations."""
    width, blocks = cell.width, BLOCKS[type(cell)]
    into, recurrent = 2 * batch * FEATURES * blocks * width, 2 * batch * width * blocks * width
    # Forward; back to the state before; and the gradients of both matrices.
    operations = length * ((into + recurrent) + recurrent + (into + recurrent))
    arrays = compiled_engine.buffer_shapes(cell, 1, length, batch)
    return {
        "operations": operations,
        "functions": length * batch * width * FUNCTIONS[type(cell)],
        "bytes": 4 * sum(int(np.prod(shape)) for shape in arrays),
    }


def kernel_seconds(cell: Cell, batch: int) -> dict[str, float]:
    """Seconds of the kernels for each replica of a population, within whole training steps."""
    spent = {"forward": 0.0, "backward": 0.0}
    kernels_of = compiled_engine.kernels_of

    class Timed:
        def __init__(self, kind: type[Cell]) -> None:
            self.kernels = kernels_of(kind)

        def forward(self, *arguments: Any) -> None:
            began = time.perf_counter()
            self.kernels.forward(*arguments)
            spent["forward"] += time.perf_counter() - began

        def backward(self, *arguments: Any) -> None:
            began = time.perf_counter()
            self.kernels.backward(*arguments)
            spent["backward"] += time.perf_counter() - began

    compiled_engine.kernels_of = Timed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        step = compiled(cell, LENGTH, batch, REPLICAS)
        found = []
        for _ in range(ROUNDS if batch < 100 else 8):
            spent.update(forward=0.0, backward=0.0)
            began = time.perf_counter()
            step()
            whole = time.perf_counter() - began
            found.append((whole, *spent.values()))
    finally:
        compiled_engine.kernels_of = kernels_of
    whole, forward, backward = (value / REPLICAS for value in min(found))
    return {"step": whole, "forward": forward, "backward": backward}


def measure() -> list[dict[str, Any]]:
    """Each cell at each size: what it needs, what that would take alone, and what its kernels take."""
    operations, functions = operations_a_second(), functions_a_second()
    rows = []
    for batch, width in SIZES:
        for kind in BLOCKS:
            cell = kind(width=width)
            needed = counted(cell, batch)
            alone = {
                "products": needed["operations"] / operations,
                "functions": needed["functions"] / functions,
                "memory": needed["bytes"] / bytes_a_second(int(needed["bytes"] * REPLICAS)),
            }
            taken = kernel_seconds(cell, batch)
            rates = {"operations_a_second": operations, "functions_a_second": functions}
            floor = sum(alone.values())
            row = {"cell": kind.__name__, "batch": batch, "width": width, "length": LENGTH, "replicas": REPLICAS}
            row |= {"needed": needed, "rates": rates, "seconds_alone": alone, "seconds": taken}
            rows.append(row | {"share": floor / (taken["forward"] + taken["backward"])})
            print(rows[-1], flush=True)
    return rows
