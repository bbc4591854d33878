"""Which engine trains: decided before the first step, for the whole of a run."""

import functools
import importlib.util
import logging
from typing import Literal, get_args

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.engine import Engine, Need
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.triton import TritonEngine, interpreted, proven
from rnnstudy.spec import SpecError, nearest

Wanted = Literal["auto", "reference", "compiled", "graph", "triton"]

logger = logging.getLogger("rnnstudy")


def known(wanted: str) -> Wanted:
    """`wanted` as it is; raises `SpecError` when there is no such engine."""
    for name in get_args(Wanted):
        if wanted == name:
            return name
    raise SpecError(
        f"engine '{wanted}' is unknown{nearest(wanted, get_args(Wanted))}; it takes {', '.join(get_args(Wanted))}"
    )


def require(wanted: Wanted, device: torch.device) -> None:
    """Raises `SpecError` when the engine cannot work on `device`, or lacks what it needs, for whatever cell."""
    if wanted == "compiled":
        if device.type != "cpu":
            raise SpecError(f"the compiled engine trains on the CPU, not on {device}; use --engine auto or graph")
        if not _installed("numba"):
            raise SpecError("the compiled engine needs numba, which is not installed; use --engine auto or reference")
    if wanted == "triton":
        if device.type != "cuda" and not interpreted():
            raise SpecError(f"the triton engine trains on CUDA, not on {device}; use --engine auto or graph")
        if not _installed("triton"):
            raise SpecError("the triton engine needs triton, which is not installed; use --engine auto or graph")


def choose(cell: Cell, needs: frozenset[Need], device: torch.device, wanted: Wanted = "auto") -> Engine:
    """The engine that trains `cell` on `device` with methods that ask for `needs`.

    `auto` takes the compiled engine on the CPU and the graph engine on CUDA. What the wanted engine does not serve, the
    reference engine trains; for `triton`, the graph engine where that serves. The Triton kernels are first held against
    the reference on the device. Raises `SpecError` as `require`; without Numba `auto` says so once and goes on.
    """
    require(wanted, device)
    if wanted == "auto":
        wanted = _fastest(device)
    engines: list[Engine] = []
    if wanted == "compiled":
        from rnnstudy.engines.compiled import CompiledEngine

        engines.append(CompiledEngine())
    if wanted == "triton" and TritonEngine().serves(cell, needs) and proven(cell, device):
        engines.append(TritonEngine())
    if wanted in ("graph", "triton"):
        engines.append(GraphEngine())
    return next((engine for engine in engines if engine.serves(cell, needs)), ReferenceEngine())


def _fastest(device: torch.device) -> Wanted:
    """What `auto` means. Triton's kernels are not among it as long as no measurement says that they win."""
    if device.type == "cuda":
        return "graph"
    if _installed("numba"):
        return "compiled"
    _say_without_numba()
    return "reference"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.cache
def _say_without_numba() -> None:
    logger.warning("numba is not installed: the reference engine trains, several times slower")
