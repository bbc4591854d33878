"""The Triton engine: on NVIDIA GPUs, a program for each replica and tile of the batch, the loop over time inside."""

import functools
import importlib
import importlib.util
import logging
import os
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.block_float import LOG10_2, BlockFloat
from rnnstudy.engines.cuda_graph import CapturingEngine
from rnnstudy.engines.engine import Need
from rnnstudy.engines.explicit_backward import written_out
from rnnstudy.engines.layer_pass import BatchedProducts, LayerGradients, LayerPass, align
from rnnstudy.engines.triton_kernels.table import TABLE, Launch, padded

logger = logging.getLogger("rnnstudy")

GATES: dict[type[Cell], int] = {Elman: 1, LSTM: 4}
"""The cells that have kernels, and their blocks: gates side by side in a weight matrix."""

LEAST = -(2**28)
"""The kernels' exponent of an exact zero."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU: for tests; set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class TritonPass(LayerPass):
    """Float32. Keeps h (and for an LSTM c and the gates) padded: width to the kernel's, batch to whole tiles.

    A gradient that falls by more than 2⁻⁷⁵ in a single step counts as zero from there on: one reduction over its
    squares gives both the norm and the exponent.
    """

    _gates: Tensor
    _h: Tensor
    _c: Tensor | None = None

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        time, replicas, batch, _ = inputs.shape
        self._replicas, self._time, self._batch = replicas, time, batch
        self._launch = launch(self.cell)
        wide = padded(type(self.cell).__name__, self.cell.width)
        assert wide is not None
        self._wide = wide
        self._tall = -(-batch // self._launch.rows) * self._launch.rows
        self._rows = inputs.new_zeros(replicas, time, self._tall, inputs.shape[-1])
        self._rows[:, :, :batch] = inputs.transpose(0, 1)
        self._weights = {name: self._packed(parameters[name]) for name in ("W_xh", "W_hh", "b_h")}
        self._weights["W_hh"] = torch.nn.functional.pad(
            self._weights["W_hh"], (0, 0, 0, self._wide - self.cell.width)
        ).contiguous()
        projected = self.cell.project(self._weights, self._rows.flatten(1, 2))
        self._gates = projected.view(replicas, time, self._tall, -1)
        self._run_forward()
        h = self._h[:, :, :batch, : self.cell.width].transpose(0, 1)
        return h.contiguous() if len(self.wanted) == time else torch.stack([h[step] for step in self.wanted])

    def _run_forward(self) -> None:
        place, options = self._grid(), self._options()
        kernels = kernels_of(self.cell)
        if isinstance(self.cell, Elman):
            self._h = self._gates
            with torch.cuda.device_of(self._h):
                kernels.forward[place](self._h, self._weights["W_hh"], self._time, **options)
            return
        self._h = self._gates.new_empty(*self._gates.shape[:-1], self._wide)
        self._c = self._gates.new_empty(self._replicas, self._time + 1, self._tall, self._wide)
        self._c[:, 0] = 0
        with torch.cuda.device_of(self._h):
            kernels.forward[place](self._gates, self._c, self._h, self._weights["W_hh"], self._time, **options)

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        at_projected, squares, exponents = self._run_backward(at_outputs)
        width, batch = self.cell.width, self._batch
        at_inputs = None
        if self.at_inputs:
            at_rows = at_projected.flatten(1, 2) @ self._weights["W_xh"].transpose(1, 2)
            at_inputs = BlockFloat(at_rows.view(*exponents.shape, -1), exponents).values()
            at_inputs = at_inputs[:, :, :batch].transpose(0, 1)
        shared = align(at_projected, exponents)
        at_rows = at_projected.flatten(1, 2)
        before, later = self._h[:, :-1].flatten(1, 2), at_projected[:, 1:].flatten(1, 2)
        found = {
            "W_xh": self._rows.flatten(1, 2).transpose(1, 2) @ at_rows,
            "W_hh": (before.transpose(1, 2) @ later)[:, :width],
            "b_h": at_rows.sum(1),
        }
        plain = {name: BlockFloat(self._unpacked(value), shared).values() for name, value in found.items()}
        log_norms = None
        if self.observed:
            halves = squares.double().log10() / 2
            log_norms = (halves + LOG10_2 * exponents.double())[..., :batch].transpose(1, 2)
        return LayerGradients(at_inputs, plain, log_norms)

    def _run_backward(self, at_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dL/dp as mantissas (replica, time, batch, gates), ‖dL/ds‖² likewise (state, …), and exponents."""
        steps, direct = len(self.wanted), BlockFloat.of(at_outputs, 3)
        added = self._h.new_zeros(self._replicas, steps, self._tall, self._wide)
        added[:, :, : self._batch, : self.cell.width] = direct.mantissa.transpose(0, 1)
        shape = (self._replicas, self._time, self._tall)
        own = torch.full((self._replicas, steps, self._tall), LEAST, dtype=torch.int32, device=added.device)
        own[:, :, : self._batch] = direct.exponent.clamp(min=LEAST).transpose(0, 1)
        slots = torch.full((self._time,), -1, dtype=torch.int32, device=added.device)
        for slot, step in enumerate(self.wanted):
            slots[step : step + 1].fill_(slot)
        at_projected = torch.empty_like(self._gates)
        squares = added.new_empty(len(self.cell.states), *shape)
        exponents = torch.empty(shape, dtype=torch.int32, device=added.device)
        given = (self._weights["W_hh"], added, own, slots, at_projected)
        numbers = (self._time, steps)
        place, options = self._grid(), self._options()
        with torch.cuda.device_of(added):
            kept = (self._h,) if self._c is None else (self._gates, self._c)
            kernels_of(self.cell).backward[place](*kept, *given, *squares.unbind(0), exponents, *numbers, **options)
        return at_projected, squares, exponents

    def _grid(self) -> tuple[int, int]:
        return self._replicas, self._tall // self._launch.rows

    def _options(self) -> dict[str, int | str]:
        own = {"ACTIVATION": self.cell.activation} if isinstance(self.cell, Elman) else {}
        return {
            **own,
            "BATCH": self._tall,
            "WIDTH": self._wide,
            "ROWS": self._launch.rows,
            "PRECISION": self._launch.precision,
            "num_warps": self._launch.warps,
            "num_stages": self._launch.stages,
        }

    def _packed(self, values: Tensor) -> Tensor:
        """(…, gates · width) → (…, padded width · gates): the gates of a unit side by side."""
        gates = values.unflatten(-1, (GATES[type(self.cell)], self.cell.width)).transpose(-1, -2)
        return torch.nn.functional.pad(gates, (0, 0, 0, self._wide - self.cell.width)).flatten(-2).contiguous()

    def _unpacked(self, values: Tensor) -> Tensor:
        gates = values.unflatten(-1, (self._wide, GATES[type(self.cell)]))[..., : self.cell.width, :]
        return gates.transpose(-1, -2).flatten(-2)


def kernels_of(cell: Cell) -> Any:
    """The module with a cell's `forward` and `backward`; only here is Triton needed."""
    return importlib.import_module(f"rnnstudy.engines.triton_kernels.{type(cell).__name__.lower()}")


def launch(cell: Cell) -> Launch:
    """How the kernels of `cell` are launched. Raises `KeyError` where it has none."""
    name = type(cell).__name__
    wide = padded(name, cell.width)
    if wide is None:
        raise KeyError(f"{name} of width {cell.width}")
    return TABLE[name, wide]


class TritonEngine(CapturingEngine):
    """Elman to a width of 128 and LSTM with its forget gate to 64, in float32 on CUDA.

    Products take each factor as three TF32 products that add up to float32's precision, never as one. The gradient
    carried back has an exponent for each sequence.
    """

    name = "triton"
    kind: ClassVar[type[LayerPass]] = TritonPass

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        return (
            not needs
            and type(cell) in GATES
            and written_out(cell)
            and padded(type(cell).__name__, cell.width) is not None
        )


TOLERANCE = 1e-4
"""Of outputs and gradients, beside their largest; of log norms, in decades. Plain TF32 errs by more."""


@functools.cache
def proven(cell: Cell, device: torch.device) -> bool:
    """Whether the kernels of `cell` agree on `device` with the batched products in float64; says so once if not.

    A tiny population, in less than a second once the kernels are compiled. An error is a disagreement too.
    """
    try:
        reason = _disagreement(cell, device)
    # Whatever a compiler or a driver raises: the run goes on without these kernels.
    except Exception as error:
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    if reason:
        logger.warning("the Triton kernels of %s are not used, the graph engine trains instead: %s", cell, reason)
    return not reason


def _disagreement(cell: Cell, device: torch.device) -> str:
    """What differs, in words; empty when nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    source = torch.Generator().manual_seed(0)
    time, replicas, batch, features = 24, 2, 5, 3
    shapes = {name: one.shape for name, one in cell.parameters(features, 1).items()}
    # Wide enough a spread that TF32 would be seen, and not so wide that the network is chaotic.
    drawn = {
        name: torch.randn(replicas, *shape, generator=source) * (shape[0] ** -0.5 if len(shape) > 1 else 0.1)
        for name, shape in shapes.items()
    }
    inputs = torch.randn(time, replicas, batch, features, generator=source)
    wanted = (3, time // 2, time - 1)
    judge = torch.randn(len(wanted), replicas, batch, cell.width, generator=source)
    results = []
    for kind, dtype in ((TritonPass, torch.float32), (BatchedProducts, torch.float64)):
        one = kind(cell, wanted, observed=True, at_inputs=True)
        outputs = one.forward(
            inputs.to(device, dtype), {name: value.to(device, dtype) for name, value in drawn.items()}
        )
        found = one.backward(judge.to(device, dtype))
        assert found.inputs is not None
        assert found.log_norms is not None
        results.append(({"outputs": outputs, "inputs": found.inputs, **found.parameters}, found.log_norms))
    (values, norms), (expected, expected_norms) = results
    for name, value in values.items():
        error = ((value - expected[name]).abs().max() / expected[name].abs().max()).item()
        if not error < TOLERANCE:
            return f"{name} differs by {error:.1e} of its largest entry"
    there = expected_norms.isfinite()
    differs = (norms - expected_norms)[there].abs().max().item()
    if not (differs < TOLERANCE and torch.equal(norms.isfinite(), there)):
        return f"log10 norms differ by {differs:.1e}"
    return ""
