"""Which engine trains a run: chosen before the first step, and kept for the whole run."""

import functools
import logging

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.engines import ENGINE_NAMES, EngineName
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.engine import Engine, Need, installed
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.triton import TritonEngine, verified
from rnnstudy.errors import RequestError, nearest, shown

ENGINE_CLASSES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (ReferenceEngine, CompiledEngine, ScanEngine, GraphEngine, TritonEngine)
}
"""The class of every engine name but `auto`."""

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


def choose(cell: Cell, needs: frozenset[Need], device: torch.device, name: EngineName = "auto") -> Engine:
    """The engine that trains `cell` on `device` with methods that require `needs`.

    `auto` means the compiled engine on the CPU, or the scan engine for diagonal cells, and the graph engine on CUDA. If
    the named engine does not serve the cell, the reference engine trains; instead of `triton`, the graph engine if it
    serves. The Triton kernels are first compared with a float64 computation on the device. Raises `RequestError` as
    `require` does; without Numba, `auto` logs that once and means the reference engine.
    """
    require(name, device)
    for candidate in _fastest(device) if name == "auto" else (name, "graph") if name == "triton" else (name,):
        engine = ENGINE_CLASSES[candidate]()
        if engine.serves(cell, needs) and (candidate != "triton" or verified(cell, device)):
            return engine
    return ReferenceEngine()


def _fastest(device: torch.device) -> tuple[EngineName, ...]:
    """What `auto` means: the first that serves. Not `triton`, as long as no benchmark shows that it is the fastest."""
    if device.type == "cuda":
        return ("graph",)
    if installed("numba"):
        return ("compiled", "scan")
    _warn_without_numba()
    return ("reference",)


@functools.cache
def _warn_without_numba() -> None:
    logger.warning("numba is not installed: the reference engine trains, several times slower")
