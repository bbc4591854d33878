"""Which engine trains: decided before the first step, for the whole of a run."""

import functools
import importlib.util
import logging
from typing import Literal, get_args

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.spec import SpecError, nearest
from rnnstudy.unroll.reference import ReferenceEngine
from rnnstudy.unroll.trajectory import Engine, Need

Wanted = Literal["auto", "reference", "compiled"]

logger = logging.getLogger("rnnstudy")


def known(wanted: str) -> Wanted:
    """`wanted` as it is; raises `SpecError` when there is no such engine."""
    for name in get_args(Wanted):
        if wanted == name:
            return name
    raise SpecError(
        f"engine '{wanted}' is unknown{nearest(wanted, get_args(Wanted))}; it takes auto, reference, compiled"
    )


def choose(cell: Cell, needs: frozenset[Need], device: torch.device, wanted: Wanted = "auto") -> Engine:
    """The engine that trains `cell` on `device` with methods that ask for `needs`.

    The compiled engine on the CPU for what it serves, unless `wanted` is `reference`; otherwise the reference engine.
    Raises `SpecError` when `compiled` is wanted and Numba is not installed; `auto` then says so once and goes on.
    """
    if wanted == "reference" or device.type != "cpu":
        return ReferenceEngine()
    if importlib.util.find_spec("numba") is None:
        if wanted == "compiled":
            raise SpecError("the compiled engine needs numba, which is not installed; use --engine auto or reference")
        _say_without_numba()
        return ReferenceEngine()
    from rnnstudy.unroll.compiled import CompiledEngine

    compiled = CompiledEngine()
    return compiled if compiled.serves(cell, needs) else ReferenceEngine()


@functools.cache
def _say_without_numba() -> None:
    logger.warning("numba is not installed: the reference engine trains, several times slower")
