"""The Triton engine for NVIDIA GPUs: one program per replica and tile of the batch, with the loop over time inside."""

import functools
import importlib
import logging
import os
from typing import Any, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.cells.one_hot import NOTHING, transposed_product, vectors
from rnnstudy.engines.block_float import LOG10_2, BlockFloat
from rnnstudy.engines.cuda_graph import CapturingEngine
from rnnstudy.engines.engine import Need, installed
from rnnstudy.engines.explicit_backward import has_explicit_backward
from rnnstudy.engines.layer_pass import BatchedProducts, LayerGradients, LayerPass, align, gradient_of_inputs
from rnnstudy.engines.triton_kernels.table import Launch, launch_of
from rnnstudy.spec import RequestError

logger = logging.getLogger("rnnstudy")

GATES: dict[type[Cell], int] = {Elman: 1, LSTM: 4}
"""The cells that have kernels, and their number of gates: the blocks of a weight matrix."""

ZERO_EXPONENT = -(2**28)
"""The kernels' exponent of an exact zero."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU, for tests; must be set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class TritonPass(LayerPass):
    """A pass in float32. Keeps h (and for an LSTM c and the gates) padded: width to the kernel's, batch to whole tiles.

    A gradient that shrinks by a factor below 2⁻⁷⁵ in one step counts as zero from then on, since both the norm and the
    exponent are computed from one sum of its squares.
    """

    _gates: Tensor
    _h: Tensor
    _c: Tensor | None = None

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        time, replicas, batch, _ = inputs.shape
        self._replicas, self._time, self._batch = replicas, time, batch
        self._padded_width, self._launch = launch(self.cell)
        self._padded_batch = -(-batch // self._launch.rows) * self._launch.rows
        nothing = 0 if self.vocabulary is None else NOTHING
        padded = inputs.new_full((replicas, time, self._padded_batch, inputs.shape[-1]), nothing)
        padded[:, :, :batch] = inputs.transpose(0, 1)
        self._rows = vectors(padded.flatten(1, 2), self.vocabulary, parameters)
        self._weights = {name: self._with_gates_innermost(parameters[name]) for name in ("W_xh", "W_hh", "b_h")}
        self._weights["W_hh"] = torch.nn.functional.pad(
            self._weights["W_hh"], (0, 0, 0, self._padded_width - self.cell.width)
        ).contiguous()
        projected = self.cell.project(self._weights, self._rows)
        self._gates = projected.view(replicas, time, self._padded_batch, -1)
        self._run_forward()
        h = self._h[:, :, :batch, : self.cell.width].transpose(0, 1)
        if len(self.output_steps) == time:
            return h.contiguous()
        return torch.stack([h[step] for step in self.output_steps])

    def _run_forward(self) -> None:
        if isinstance(self.cell, Elman):
            self._h = self._gates
            self._run("forward", self._h, self._weights["W_hh"], self._time)
            return
        self._h = self._gates.new_empty(*self._gates.shape[:-1], self._padded_width)
        self._c = self._gates.new_empty(self._replicas, self._time + 1, self._padded_batch, self._padded_width)
        self._c[:, 0] = 0
        self._run("forward", self._gates, self._c, self._h, self._weights["W_hh"], self._time)

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        at_projected, squares, exponents = self._run_backward(at_outputs)
        width, batch = self.cell.width, self._batch
        at_inputs = None
        if self.input_gradient:
            at_inputs = gradient_of_inputs(at_projected, exponents, self._weights["W_xh"])[:, :, :batch]
        shared = align(at_projected, exponents)
        at_rows = at_projected.flatten(1, 2)
        before, later = self._h[:, :-1].flatten(1, 2), at_projected[:, 1:].flatten(1, 2)
        mantissas = {
            "W_xh": transposed_product(self._rows, at_rows),
            "W_hh": (before.transpose(1, 2) @ later)[:, :width],
            "b_h": at_rows.sum(1),
        }
        parameters = {
            name: BlockFloat(self._with_gates_outermost(value), shared).values() for name, value in mantissas.items()
        }
        log_norms = None
        if self.observed:
            log_mantissas = squares.double().log10() / 2
            log_norms = (log_mantissas + LOG10_2 * exponents.double())[..., :batch].transpose(1, 2)
        return LayerGradients(at_inputs, parameters, log_norms)

    def _run_backward(self, at_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dL/dp_t as mantissas (replica, time, batch, gates), ‖dL/ds_t‖² likewise (state, …), and exponents."""
        steps, direct = len(self.output_steps), BlockFloat.of(at_outputs, 3)
        added = self._h.new_zeros(self._replicas, steps, self._padded_batch, self._padded_width)
        added[:, :, : self._batch, : self.cell.width] = direct.mantissa.transpose(0, 1)
        shape = (self._replicas, self._time, self._padded_batch)
        added_exponents = torch.full(added.shape[:-1], ZERO_EXPONENT, dtype=torch.int32, device=added.device)
        added_exponents[:, :, : self._batch] = direct.exponent.clamp(min=ZERO_EXPONENT).transpose(0, 1)
        slots = torch.full((self._time,), -1, dtype=torch.int32, device=added.device)
        for slot, step in enumerate(self.output_steps):
            slots[step : step + 1].fill_(slot)
        at_projected = torch.empty_like(self._gates)
        squares = added.new_empty(len(self.cell.states), *shape)
        exponents = torch.empty(shape, dtype=torch.int32, device=added.device)
        read = (self._weights["W_hh"], added, added_exponents, slots)
        written = (at_projected, *squares.unbind(0), exponents)
        saved = (self._h,) if self._c is None else (self._gates, self._c)
        self._run("backward", *saved, *read, *written, self._time, steps)
        return at_projected, squares, exponents

    def _run(self, kernel: str, *arguments: Tensor | int) -> None:
        """Launch a kernel of the cell: one program per replica and tile of the batch."""
        grid = self._replicas, self._padded_batch // self._launch.rows
        options = {
            **({"ACTIVATION": self.cell.activation} if isinstance(self.cell, Elman) else {}),
            "BATCH": self._padded_batch,
            "WIDTH": self._padded_width,
            "ROWS": self._launch.rows,
            "PRECISION": self._launch.precision,
            "num_warps": self._launch.warps,
            "num_stages": self._launch.stages,
        }
        with torch.cuda.device_of(self._h):
            getattr(kernels_of(self.cell), kernel)[grid](*arguments, **options)

    def _with_gates_innermost(self, values: Tensor) -> Tensor:
        """(…, gates · width) → (…, padded width · gates)."""
        gates = values.unflatten(-1, (GATES[type(self.cell)], self.cell.width)).transpose(-1, -2)
        return torch.nn.functional.pad(gates, (0, 0, 0, self._padded_width - self.cell.width)).flatten(-2).contiguous()

    def _with_gates_outermost(self, values: Tensor) -> Tensor:
        """(…, padded width · gates) → (…, gates · width)."""
        gates = values.unflatten(-1, (self._padded_width, GATES[type(self.cell)]))[..., : self.cell.width, :]
        return gates.transpose(-1, -2).flatten(-2)


def kernels_of(cell: Cell) -> Any:
    """The module with a cell's `forward` and `backward`; importing it needs Triton."""
    return importlib.import_module(f"rnnstudy.engines.triton_kernels.{type(cell).__name__.lower()}")


def launch(cell: Cell) -> tuple[int, Launch]:
    """The width to which the kernels of `cell` pad, and how they are launched. Raises `KeyError` if it has none."""
    name = type(cell).__name__
    found = launch_of(name, cell.width)
    if found is None:
        raise KeyError(f"{name} of width {cell.width}")
    return found


class TritonEngine(CapturingEngine):
    """Elman up to a width of 128 and LSTM with its forget gate up to 64, in float32 on CUDA.

    A matrix product is computed as three TF32 products that together have float32's precision, never as a single one.
    The gradient propagated back has one exponent per sequence.
    """

    name = "triton"
    kind: ClassVar[type[LayerPass]] = TritonPass

    @classmethod
    def require(cls, device: torch.device) -> None:
        if device.type != "cuda" and not interpreted():
            raise RequestError(f"the triton engine trains on CUDA, not on {device}; use --engine auto or graph")
        if not installed("triton"):
            raise RequestError("the triton engine needs triton, which is not installed; use --engine auto or graph")

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        has_kernels = type(cell) in GATES and launch_of(type(cell).__name__, cell.width) is not None
        return not needs and has_kernels and has_explicit_backward(cell)


TOLERANCE = 1e-4
"""Of outputs and gradients, relative to the largest entry; of log norms, in decades. Plain TF32 exceeds it."""


@functools.cache
def verified(cell: Cell, device: torch.device) -> bool:
    """Whether the kernels of `cell` agree on `device` with the batched products in float64; if not, logs it once.

    Uses a tiny population; takes less than a second once the kernels are compiled. An error counts as disagreement.
    """
    try:
        reason = _disagreement(cell, device)
    # Whatever a compiler or a driver raises, the run is trained without these kernels.
    except Exception as error:
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    if reason:
        logger.warning("the Triton kernels of %s are not used, the graph engine trains instead: %s", cell, reason)
    return not reason


def _disagreement(cell: Cell, device: torch.device) -> str:
    """A sentence about what differs; empty when nothing does."""
    if not installed("triton"):
        return "triton is not installed"
    source = torch.Generator().manual_seed(0)
    time, replicas, batch, features = 24, 2, 5, 3
    # Large enough weights that errors of TF32 would show, and small enough that the network is not chaotic.
    parameters = {
        name: torch.randn(replicas, *given.shape, generator=source)
        * (given.shape[0] ** -0.5 if len(given.shape) > 1 else 0.1)
        for name, given in cell.parameters(features, 1).items()
    }
    inputs = torch.randn(time, replicas, batch, features, generator=source)
    output_steps = (3, time // 2, time - 1)
    at_outputs = torch.randn(len(output_steps), replicas, batch, cell.width, generator=source)
    results = []
    for kind, dtype in ((TritonPass, torch.float32), (BatchedProducts, torch.float64)):
        layer = kind(cell, output_steps, observed=True, input_gradient=True)
        weights = {name: value.to(device, dtype) for name, value in parameters.items()}
        outputs = layer.forward(inputs.to(device, dtype), weights)
        gradients = layer.backward(at_outputs.to(device, dtype))
        assert gradients.inputs is not None
        assert gradients.log_norms is not None
        values = {"outputs": outputs, "inputs": gradients.inputs, **gradients.parameters}
        results.append((values, gradients.log_norms))
    (values, norms), (expected, expected_norms) = results
    for name, value in values.items():
        error = ((value - expected[name]).abs().max() / expected[name].abs().max()).item()
        if not error < TOLERANCE:
            return f"{name} differs by {error:.1e} of its largest entry"
    finite = expected_norms.isfinite()
    error = (norms - expected_norms)[finite].abs().max().item()
    if not (error < TOLERANCE and torch.equal(norms.isfinite(), finite)):
        return f"log10 norms differ by {error:.1e}"
    return ""
