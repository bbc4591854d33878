"""Which engine trains a run: chosen before the first step, and kept for the whole run."""

import functools
import logging
from typing import NamedTuple

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.engines import ENGINE_NAMES, EngineName
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.engine import Engine, Need, installed
from rnnstudy.engines.explicit_backward import has_explicit_backward
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.traced import TracedEngine, why_not
from rnnstudy.engines.triton import TritonEngine, verified
from rnnstudy.errors import RequestError, nearest, shown

ENGINE_CLASSES: dict[str, type[Engine]] = {
    engine.name: engine
    for engine in (ReferenceEngine, CompiledEngine, ScanEngine, TracedEngine, GraphEngine, TritonEngine)
}
"""The class of every engine name but `auto`."""

LEAST_SECONDS_TRACED = 10.0
"""What a run must take on the reference engine for `auto` to mean the traced one. In each process tracing takes two or
three seconds, and on each machine compiling as many again; then an update of one run takes a quarter of the time, and
one of many at once a third to a half."""

MOST_NUMBERS_TRACED = 5e6
"""Numbers of states up to which `auto` means the traced engine for a recurrence that the scan engine runs as well: the
traced one is up to four times faster, and keeps about ten numbers for each of them; the scan keeps few."""


class Load(NamedTuple):
    """What one run asks of its engine.

    Attributes:
        seconds: what its updates and tests take the reference engine.
        numbers: of the states of all its recurrences, over all steps and sequences of a batch.
    """

    seconds: float = 0.0
    numbers: float = 0.0


NO_LOAD = Load()

logger = logging.getLogger("rnnstudy")


def engine_name(text: str) -> EngineName:
    """`text` as an engine's name; raises `RequestError` when there is no such engine."""
    if text in ENGINE_NAMES:
        return text
    raise RequestError(
        f"engine {shown(text)} is unknown{nearest(text, ENGINE_NAMES)}; the engines are {', '.join(ENGINE_NAMES)}"
    )


def require(name: EngineName, device: torch.device) -> None:
    """Raises `RequestError` when the engine cannot work on `device` or lacks a library, whatever the cell."""
    if name != "auto":
        ENGINE_CLASSES[name].require(device)


def choose(
    cell: Cell, needs: frozenset[Need], device: torch.device, name: EngineName = "auto", load: Load = NO_LOAD
) -> Engine:
    """The engine that trains `cell` on `device` with methods that require `needs`.

    `auto` means, on the CPU, the compiled engine; for cells without its kernels the traced engine, where one run would
    take the reference engine so long that it gains; for diagonal recurrences else the scan engine. On CUDA it means the
    graph engine, for cells with an explicit backward pass. If no engine that is named or meant serves the cell, the
    reference engine trains; instead of `triton`, the graph engine if it serves. Why a cell's step cannot be traced is
    then logged once. The Triton kernels are first compared with a float64 computation on the device. Raises
    `RequestError` as `require` does; without Numba, `auto` logs that once and means the reference engine.
    """
    require(name, device)
    reason = ""
    for candidate in _fastest(device, load) if name == "auto" else (name, "graph") if name == "triton" else (name,):
        if candidate == "graph" and name == "auto" and not has_explicit_backward(cell):
            # No benchmark shows yet that autograd captured in a CUDA graph is the faster one.
            continue
        engine = ENGINE_CLASSES[candidate]()
        if candidate == "traced" and not needs:
            reason = why_not(cell)
        if engine.serves(cell, needs) and (candidate != "triton" or verified(cell, device)):
            return engine
    if reason:
        say_reference_trains(type(cell).__name__, reason)
    return ReferenceEngine()


@functools.cache
def say_reference_trains(words: str, reason: str) -> None:
    """Log, once, that the reference engine trains `words`, and why."""
    logger.warning("the reference engine trains %s, several times slower: %s", words, reason)


def _fastest(device: torch.device, load: Load) -> tuple[EngineName, ...]:
    """What `auto` means: the first that serves. Not `triton`, as long as no benchmark shows that it is the fastest."""
    if device.type == "cuda":
        return ("graph",)
    if installed("numba"):
        if load.seconds < LEAST_SECONDS_TRACED:
            return ("compiled", "scan")
        return ("compiled", "traced", "scan") if load.numbers <= MOST_NUMBERS_TRACED else ("compiled", "scan", "traced")
    _warn_without_numba()
    return ("reference",)


@functools.cache
def _warn_without_numba() -> None:
    logger.warning("numba is not installed: the reference engine trains, several times slower")
