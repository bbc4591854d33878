"""The scan engine for the CPU: recurrences that are linear and diagonal in their state, by two compiled scans.

With s_t = a_t ⊙ s_{t−1} + b_t, where a_t and b_t depend on the input alone, both the state and the gradient are scans:

    G_t = dL/ds_t = ∂⁺L/∂s_t + ā_{t+1} ⊙ G_{t+1} = m_t · 2^{e_t},   dL/da_t = G_t ⊙ s̄_{t−1},   dL/db_t = G_t

with one exponent e for each sequence and step. Everything outside the two scans, from the input to a_t and b_t and from
s_t to the output, is the cell's own code, differentiated by autograd for many steps at once.

Steps are taken in pieces, replica by replica. The forward pass keeps s_t at the borders of the pieces
alone; the backward pass computes a piece again. Time and memory therefore grow linearly with the number of steps.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.cells.one_hot import vectors
from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.compiled import (
    CompiledTrajectory,
    Norms,
    compiled_module,
    denormals_are_zero,
    require_float32_on_cpu,
)
from rnnstudy.engines.engine import Engine, LayerRun, Need, installed
from rnnstudy.spec import RequestError

NUMBERS_IN_PIECE = 2**18
"""Numbers of the state in a piece of consecutive steps: many, since each piece costs about a millisecond besides, but
few
enough for its arrays to stay in the last-level cache."""


class ScanEngine(Engine):
    """Every `DiagonalCell` in float32 on the CPU."""

    name = "scan"

    @classmethod
    def require(cls, device: torch.device) -> None:
        if device.type != "cpu":
            raise RequestError(f"the scan engine trains on the CPU, not on {device}; use --engine auto or reference")
        if not installed("numba"):
            raise RequestError("the scan engine needs numba, which is not installed; use --engine auto or reference")

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Every diagonal cell, unless a method cuts the gradient or needs it itself."""
        return not needs and isinstance(cell, DiagonalCell)

    def unroll_layer(self, run: LayerRun) -> CompiledTrajectory:
        """As for every engine. Raises `RuntimeError` for a cell that is not diagonal and unless it is float32 on the
        CPU.

        The first call compiles the kernels, logs that (logger `rnnstudy`), and caches them on disk.
        """
        cell, inputs = run.cell, run.inputs
        if run.changes_gradients or not isinstance(cell, DiagonalCell):
            what = f"{cell!r}{' with changed gradients' if run.changes_gradients else ''}"
            raise RuntimeError(f"no scan for {what}; use ReferenceEngine")
        require_float32_on_cpu(run, "scan")
        norms = Norms()
        # Makes the outputs differentiable where only the gradient through time is needed and no weight's gradient.
        anchor = torch.zeros((), requires_grad=True) if run.observed else None
        layer = _Layer(cell, tuple(run.parameters), run.output_steps, run.widths[cell.states[0]], norms, run.vocabulary)
        outputs = _Scanned.apply(layer, anchor, inputs, *run.parameters.values())
        return CompiledTrajectory(outputs, cell.states if run.observed else (), norms)


@functools.cache
def scan_kernels() -> ModuleType:
    """The module of the two scans; importing it compiles them unless they are cached on disk."""
    return compiled_module("scan", "diagonal recurrences")


@dataclass(frozen=True)
class _Layer:
    """What the forward and the backward pass of a layer share."""

    cell: DiagonalCell
    names: tuple[str, ...]
    steps: tuple[int, ...]
    units: int
    norms: Norms
    vocabulary: int | None

    def pieces(self, time: int, batch: int) -> list[tuple[int, int]]:
        """First step and step after the last of every piece."""
        length = max(1, NUMBERS_IN_PIECE // max(1, batch * self.units))
        return [(first, min(first + length, time)) for first in range(0, time, length)]

    def outputs_of(self, first: int, last: int) -> tuple[slice, list[int]]:
        """Which of the output steps lie in a piece, and where in the piece."""
        chosen = slice(*np.searchsorted(self.steps, [first, last]))
        return chosen, [step - first for step in self.steps[chosen]]

    def coefficients(self, parameters: Parameters, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The projected inputs, and a and b, each for every row."""
        projected = self.cell.project(parameters, vectors(rows, self.vocabulary, parameters))
        a, b = self.cell.coefficients(self.cell.prepared(parameters), projected)
        return projected, a.expand_as(b).contiguous(), b.contiguous()

    def output(self, parameters: Parameters, projected: Tensor, states: Tensor, within: list[int]) -> Tensor:
        """h at steps of a piece (1, step · batch, width), from s (step, batch, units)."""
        steps, batch, units = states.shape
        chosen = states[within].reshape(1, -1, units)
        if len(self.cell.states) == 1:
            return chosen
        of_inputs = projected.view(steps, batch, -1)[within].reshape(1, chosen.shape[1], -1)
        return self.cell.read(self.cell.prepared(parameters), of_inputs, chosen)


class _Scanned(torch.autograd.Function):
    """From inputs and parameters to the outputs at the output steps."""

    @staticmethod
    @denormals_are_zero()
    def forward(ctx: Any, layer: _Layer, _: Any, inputs: Tensor, *values: Tensor) -> Tensor:
        time, replicas, batch, _features = inputs.shape
        pieces, kernels = layer.pieces(time, batch), scan_kernels()
        length = max(last - first for first, last in pieces)
        borders = np.zeros((replicas, len(pieces), batch, layer.units), np.float32)
        states = np.empty((length + 1, batch, layer.units), np.float32)
        replicas_outputs = []
        for r in range(replicas):
            parameters = {name: value.detach()[r : r + 1] for name, value in zip(layer.names, values, strict=True)}
            states[0], outputs = 0, []
            for index, (first, last) in enumerate(pieces):
                borders[r, index] = states[0]
                rows = inputs.detach()[first:last, r].reshape(1, -1, inputs.shape[-1])
                projected, a, b = layer.coefficients(parameters, rows)
                own = states[: last - first + 1]
                kernels.forward(_by_step(a, batch), _by_step(b, batch), own, layer.cell.complex_state)
                _, within = layer.outputs_of(first, last)
                if within:
                    found = layer.output(parameters, projected, torch.from_numpy(own[1:]), within)
                    outputs.append(found.view(len(within), batch, -1).clone())
                states[0] = own[-1]
            replicas_outputs.append(torch.cat(outputs))
        ctx.layer, ctx.borders, ctx.pieces = layer, borders, pieces
        ctx.save_for_backward(inputs, *values)
        return torch.stack(replicas_outputs, dim=1)

    @staticmethod
    @once_differentiable
    @denormals_are_zero()
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        layer: _Layer = ctx.layer
        inputs, *values = ctx.saved_tensors
        time, replicas, batch, _ = inputs.shape
        input_needed, *needed = ctx.needs_input_grad[2:]
        at_inputs = torch.zeros_like(inputs) if input_needed else None
        count = len(layer.cell.states)
        squares = np.zeros((count, replicas, time, batch), np.float32)
        exponents = np.zeros((count, replicas, time, batch), np.int32)
        gradients: list[list[Tensor]] = []
        for r in range(replicas):
            one = _ReplicaBackward(layer, [value.detach()[r : r + 1] for value in values], needed)
            direct = at_outputs.detach()[:, r].contiguous()
            for index in reversed(range(len(ctx.pieces))):
                first, last = ctx.pieces[index]
                piece = inputs.detach()[first:last, r]
                written = (squares[0, r, first:last], exponents[0, r, first:last])
                at_piece = one.piece(first, piece, ctx.borders[r, index], direct, written, input_needed)
                if at_inputs is not None:
                    at_inputs[first:last, r] = at_piece
            if count == 2:
                _direct_norms(direct, layer.steps, squares[1, r], exponents[1, r])
            gradients.append(one.totals())
        layer.norms.squares_and_exponents = squares, exponents
        at_values: Iterator[Tensor] = (torch.cat(parts) for parts in zip(*gradients, strict=True))
        return None, None, at_inputs, *(next(at_values) if wanted else None for wanted in needed)


class _ReplicaBackward:
    """The backward pass of one replica, piece by piece from the last to the first."""

    def __init__(self, layer: _Layer, values: Sequence[Tensor], needed: Sequence[bool]) -> None:
        self.layer = layer
        self.parameters = {
            name: value.clone().requires_grad_(wanted)
            for name, value, wanted in zip(layer.names, values, needed, strict=True)
        }
        self.leaves = [value for value in self.parameters.values() if value.requires_grad]
        self._sums, self._shared = [torch.zeros_like(leaf) for leaf in self.leaves], ZERO_EXPONENT
        self._grad, self._exponent = np.zeros((0, 0), np.float32), np.zeros(0, np.int32)

    def totals(self) -> list[Tensor]:
        """The gradients of the parameters that need one, of the pieces done so far."""
        return [_rescaled(one, self._shared) for one in self._sums]

    def piece(
        self,
        first: int,
        inputs: Tensor,
        before: np.ndarray,
        direct: Tensor,
        written: tuple[np.ndarray, np.ndarray],
        input_needed: bool,
    ) -> Tensor | None:
        """Add what a piece contributes to the parameters' gradients, and return that of its inputs (step, batch, …).

        inputs: x (step, batch, features) of the piece, which begins at step `first`.
        before: s before the piece (batch, units).
        direct: dL/dh at the output steps of the whole sequence (step, batch, width).
        written: squares and exponents of ‖G_t‖² (step, batch).
        """
        layer, kernels, is_complex = self.layer, scan_kernels(), self.layer.cell.complex_state
        steps, batch, features = inputs.shape
        if not len(self._grad):
            self._grad, self._exponent = np.zeros((batch, layer.units), np.float32), np.zeros(batch, np.int32)
        rows = inputs.reshape(1, -1, features).clone().requires_grad_(input_needed)
        with torch.enable_grad():
            projected, a, b = layer.coefficients(self.parameters, rows)
        states = np.empty((steps + 1, batch, layer.units), np.float32)
        states[0] = before
        factors = _by_step(a.detach(), batch)
        kernels.forward(factors, _by_step(b.detach(), batch), states, is_complex)

        chosen, within = layer.outputs_of(first, first + steps)
        slots = np.full(steps, -1, np.int32)
        slots[within] = np.arange(len(within))
        at_states, at_rows = self._through_output(projected, rows, torch.from_numpy(states[1:]), direct[chosen], within)

        at_a, at_b = (np.empty((steps, batch, layer.units), np.float32) for _ in range(2))
        kernels.backward(
            factors, states, at_states, slots, self._grad, self._exponent, at_a, at_b, *written, is_complex
        )
        own = self._through_coefficients(a, b, rows, at_a, at_b, written[1])
        if not input_needed:
            return None
        assert own is not None
        return (own if at_rows is None else own + at_rows).view(steps, batch, features)

    def _through_output(
        self, projected: Tensor, rows: Tensor, states: Tensor, direct: Tensor, within: list[int]
    ) -> tuple[np.ndarray, Tensor | None]:
        """∂⁺L/∂s_t at the output steps of a piece, and what reaches the inputs past the state."""
        if not within or len(self.layer.cell.states) == 1:
            return direct.numpy(), None
        leaf = states.clone().requires_grad_()
        with torch.enable_grad():
            output = self.layer.output(self.parameters, projected, leaf, within)
        sources = [leaf, *([rows] if rows.requires_grad else []), *self.leaves]
        gradients = torch.autograd.grad(
            output, sources, direct.reshape(output.shape), retain_graph=True, materialize_grads=True
        )
        self._add(gradients[len(sources) - len(self.leaves) :], 0)
        return gradients[0][within].numpy(), gradients[1] if rows.requires_grad else None

    def _through_coefficients(
        self, a: Tensor, b: Tensor, rows: Tensor, at_a: np.ndarray, at_b: np.ndarray, exponents: np.ndarray
    ) -> Tensor | None:
        """Add the parameters' gradients through a and b, and return that of the inputs with each row's own exponent."""
        shared = int(exponents.max())
        alike = bool((exponents == shared).all())
        results = [(value, at) for value, at in ((a, at_a), (b, at_b)) if value.requires_grad]
        if not results:
            return torch.zeros_like(rows) if rows.requires_grad else None
        values, at_values = [value for value, _ in results], [torch.from_numpy(at).view(a.shape) for _, at in results]
        of_rows: Tensor | None = None
        if alike or not rows.requires_grad:
            self._align(at_a, at_b, exponents, shared, alike)
            sources = [*([rows] if rows.requires_grad else []), *self.leaves]
            gradients = torch.autograd.grad(values, sources, at_values, materialize_grads=True)
            self._add(gradients[len(sources) - len(self.leaves) :], shared)
            of_rows = gradients[0] if rows.requires_grad else None
        else:
            # With each row's own exponent for the inputs; then with one for the sum over rows.
            [of_rows] = torch.autograd.grad(values, [rows], at_values, retain_graph=True, materialize_grads=True)
            self._align(at_a, at_b, exponents, shared, alike)
            if self.leaves:
                self._add(torch.autograd.grad(values, self.leaves, at_values, materialize_grads=True), shared)
        if of_rows is None:
            return None
        return BlockFloat(of_rows, torch.from_numpy(exponents).view(1, -1).long()).values()

    @staticmethod
    def _align(at_a: np.ndarray, at_b: np.ndarray, exponents: np.ndarray, shared: int, alike: bool) -> None:
        if not alike:
            for rows in (at_a, at_b):
                scan_kernels().align(rows.reshape(exponents.size, -1), exponents.reshape(-1), shared)

    def _add(self, gradients: Sequence[Tensor], exponent: int) -> None:
        """Add gradients · 2^exponent to the sums, at the larger of the two exponents."""
        if exponent != self._shared:
            larger = max(exponent, self._shared)
            self._sums = [_rescaled(one, self._shared - larger) for one in self._sums]
            gradients = [_rescaled(one, exponent - larger) for one in gradients]
            self._shared = larger
        for total, gradient in zip(self._sums, gradients, strict=True):
            total += gradient


def _rescaled(values: Tensor, exponent: int) -> Tensor:
    """values · 2^exponent."""
    return BlockFloat(values, torch.tensor(exponent)).values() if exponent else values


def _by_step(rows: Tensor, batch: int) -> np.ndarray:
    """(1, step · batch, units) → (step, batch, units)."""
    return rows.view(-1, batch, rows.shape[-1]).numpy()


def _direct_norms(direct: Tensor, steps: tuple[int, ...], squares: np.ndarray, exponents: np.ndarray) -> None:
    """‖dL/dh_t‖² of an output that no later step reads: what the loss or the layer above adds, and zero elsewhere."""
    rows = direct.clone().numpy().reshape(-1, direct.shape[-1])
    own, shifts = np.empty(len(rows), np.float32), np.empty(len(rows), np.int32)
    scan_kernels().norms(rows, own, shifts)
    squares[list(steps)] = own.reshape(len(steps), -1)
    exponents[list(steps)] = shifts.reshape(len(steps), -1)
