"""The traced engine for the CPU: a cell's own step and its vector-Jacobian product, traced once and compiled.

The step, written in torch operations, becomes a C program that runs some sequences of one replica over all time steps.
With s_t all states of a layer and ∂⁺L/∂s_t what is added to their gradient from outside,

    G_t = ∂⁺L/∂s_t + (∂s_{t+1}/∂s_t)ᵀ G_{t+1} = m_t · 2^{e_t}

with one exponent e for each sequence and step. What the gradients of parameters are sums of is written down for all
steps, and summed by torch afterwards. `Cell.project` and `Cell.prepared` stay the cell's own code, differentiated by
autograd. A step for which no program can be made is trained by the reference engine.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from rnnstudy.cells.cell import Cell, Parameters
from rnnstudy.cells.one_hot import vectors
from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.buffers import BufferPool
from rnnstudy.engines.compiled import (
    CompiledTrajectory,
    Norms,
    denormals_are_zero,
    for_each_replica,
    require_float32_on_cpu,
)
from rnnstudy.engines.engine import Engine, LayerRun, Need, as_rows
from rnnstudy.engines.step_kernels import Segment, StepKernels, step_kernels
from rnnstudy.engines.step_library import CompilingError, addresses, call, compiler, library, library_path
from rnnstudy.engines.step_source import padded
from rnnstudy.engines.step_trace import Evaluation, StepSizes, UntraceableError, traced_step
from rnnstudy.spec import RequestError

logger = logging.getLogger("rnnstudy")

SEQUENCES = 32
"""The most sequences that a program runs at once: their numbers of a step should stay in the fastest cache."""

BUFFERS = BufferPool()


class TracedEngine(Engine):
    """Every cell whose step can be traced and put into C, in float32 on the CPU."""

    name = "traced"

    @classmethod
    def require(cls, device: torch.device) -> None:
        if device.type != "cpu":
            raise RequestError(f"the traced engine trains on the CPU, not on {device}; use --engine auto or graph")
        if compiler() is None:
            raise RequestError(
                "the traced engine needs a C compiler (cc, gcc or clang), and there is none; use --engine auto or "
                "reference"
            )

    def serves(self, cell: Cell, needs: frozenset[Need]) -> bool:
        """Every cell with a step that can be traced, unless a method cuts the gradient or needs it itself."""
        return not needs and not why_not(cell)

    def compiles(self, cell: Cell) -> bool:
        try:
            return not library_path(_kernels(cell, StepSizes.example(cell)).text).exists()
        except UntraceableError:
            return False

    def unroll_layer(self, run: LayerRun) -> CompiledTrajectory:
        """As for every engine. Raises `RuntimeError` for a step that cannot be traced and unless it is float32 on the
        CPU.

        The first call compiles the step, logs that (logger `rnnstudy`), and keeps the program on disk.
        """
        if run.changes_gradients:
            raise RuntimeError(f"no traced step for {run.cell!r} with changed gradients; use ReferenceEngine")
        require_float32_on_cpu(run, self.name)
        widths = {state: run.widths[state] for state in run.cell.states}
        layer = _Layer(
            run.cell, tuple(run.parameters), run.output_steps, widths, run.observed, run.vocabulary, Norms()
        )
        if torch.is_grad_enabled():
            # Makes the outputs differentiable where only the gradient through time is needed and no weight's gradient.
            anchor = torch.zeros((), requires_grad=True) if run.observed else None
            outputs = _Unrolled.apply(layer, anchor, run.inputs, *run.parameters.values())
        else:
            outputs = _evaluated(layer, run)
        return CompiledTrajectory(outputs, run.cell.states if run.observed else (), layer.norms)


@denormals_are_zero()
def _evaluated(layer: "_Layer", run: LayerRun) -> Tensor:
    """The outputs, with nothing kept for a backward pass."""
    return _Pass(layer, run.inputs, list(run.parameters.values()), keep=False).outputs


@functools.cache
def why_not(cell: Cell) -> str:
    """Why no program can be made of the cell's step; empty where one can."""
    if compiler() is None:
        return "there is no C compiler (cc, gcc or clang)"
    try:
        _kernels(cell, StepSizes.example(cell))
    except UntraceableError as error:
        return str(error)
    return ""


@functools.lru_cache(maxsize=64)
def _kernels(cell: Cell, sizes: StepSizes) -> StepKernels:
    return step_kernels(traced_step(cell, sizes), cell.output)


@dataclass(frozen=True)
class _Layer:
    """What the forward and the backward pass of a layer share."""

    cell: Cell
    names: tuple[str, ...]
    steps: tuple[int, ...]
    widths: dict[str, int]
    observed: bool
    vocabulary: int | None
    norms: Norms

    def slots(self, time: int) -> np.ndarray:
        """For each step, its place among the output steps; −1 for the others."""
        slots = np.full(time, -1, np.int32)
        slots[list(self.steps)] = np.arange(len(self.steps))
        return slots


class _Replica:
    """One replica of a layer: what the cell's own code computes once for all steps, and its gradients."""

    def __init__(self, layer: _Layer, inputs: Tensor, values: Sequence[Tensor]) -> None:
        """`inputs` (time, 1, batch, features) or symbols, and the parameters' `values`, each (1, …)."""
        self.layer, self.values, self._rows = layer, values, as_rows(inputs)
        with torch.no_grad():
            self.prepared, self.projected = self._computed(values, self._rows)

    def _computed(self, values: Sequence[Tensor], rows: Tensor) -> tuple[Parameters, Tensor]:
        """What the cell prepares, and p_t of all rows (1, time · batch, gates)."""
        cell, parameters = self.layer.cell, dict(zip(self.layer.names, values, strict=True))
        return cell.prepared(parameters), cell.project(parameters, vectors(rows, self.layer.vocabulary, parameters))

    def constants(self, kernels: StepKernels) -> list[np.ndarray]:
        """What the program reads that is the same for all rows."""
        step = kernels.step
        self.evaluation = Evaluation(step, {node: self.prepared[name] for name, node in step.parameters.items()}, 1)
        found = []
        for node, how in kernels.constants.items:
            value = self.evaluation.value(node)
            value = value.reshape(1, -1) if how == "numbers" else value.reshape(value.shape[-2:])
            value = value.mT if how == "transposed" else value
            found.append(pad(value, (0, padded(value.shape[-1]) - value.shape[-1])).contiguous().numpy())
        return found

    def differentiate(self, needed: Sequence[bool]) -> None:
        """Compute again, now for autograd, what depends on the inputs and parameters that need a gradient."""
        with torch.enable_grad():
            values = [one.clone().requires_grad_(wanted) for one, wanted in zip(self.values, needed[1:], strict=True)]
            self._rows = self._rows.clone().requires_grad_() if needed[0] else self._rows
            self.prepared, self.projected = self._computed(values, self._rows)
        self._leaves = [value for value in values if value.requires_grad]

    def input_gradient(self, at_projected: Tensor | None, exponents: Tensor) -> Tensor:
        """dL/dx_t (1, time · batch, features) as plain numbers, from mantissas and the exponent of each row."""
        if at_projected is None or not self.projected.requires_grad:
            return torch.zeros_like(self._rows)
        [found] = torch.autograd.grad(
            self.projected, [self._rows], at_projected, retain_graph=True, materialize_grads=True
        )
        return BlockFloat(found, exponents).values()

    def parameter_gradients(
        self, at_projected: Tensor | None, at_prepared: Mapping[str, Tensor], exponent: int
    ) -> list[Tensor]:
        """dL/dθ of each parameter that needs one, as plain numbers, from mantissas that share one exponent."""
        pairs = [(self.prepared[name], at) for name, at in at_prepared.items()]
        pairs += [] if at_projected is None else [(self.projected, at_projected)]
        pairs = [(result, at.view(result.shape)) for result, at in pairs if result.requires_grad]
        if not pairs or not self._leaves:
            return [torch.zeros_like(leaf) for leaf in self._leaves]
        results, at_results = zip(*pairs, strict=True)
        found = torch.autograd.grad(results, self._leaves, at_results, materialize_grads=True)
        return [BlockFloat(value, torch.full((1,), exponent)).values() for value in found]


class _Pass:
    """One forward pass over all time steps, and what the backward pass reads of it if `keep`.

    Attributes:
        outputs: (step, replica, batch, width).
    """

    def __init__(self, layer: _Layer, inputs: Tensor, values: Sequence[Tensor], keep: bool) -> None:
        self.layer = layer
        self.time, count, self.batch, _ = inputs.shape
        self.replicas = [
            _Replica(layer, inputs[:, r : r + 1], [value[r : r + 1] for value in values]) for r in range(count)
        ]
        first = self.replicas[0]
        try:
            self.kernels = _kernels(layer.cell, StepSizes.of(first.prepared, first.projected, layer.widths))
            self.library = library(self.kernels.text, type(layer.cell).__name__)
        except (UntraceableError, CompilingError) as error:
            raise RuntimeError(f"no traced step for {layer.cell!r}: {error}; use ReferenceEngine") from error
        self.constants = [one.constants(self.kernels) for one in self.replicas]
        of_rows = (count, self.time, self.batch)
        self.given = BUFFERS.acquire([(*of_rows, self.kernels.given)])
        self.kept = BUFFERS.acquire([(count, self.time + 1 if keep else 2, self.batch, self.kernels.kept)])
        for array, one in zip(self.given.arrays[0], self.replicas, strict=True):
            gates = one.projected.shape[-1]
            torch.from_numpy(array)[..., :gates] = one.projected.view(self.time, self.batch, gates)
            # Its memory is used again by the next replica.
            one.projected = torch.empty(0)
        self.outputs = self._forward(keep)

    def _for_each_job(self, run: Callable[[int, int, int], None]) -> None:
        """run(replica, first sequence, sequence after the last) for all sequences, some at once."""
        begins = range(0, self.batch, SEQUENCES)
        jobs = [(r, begin, min(begin + SEQUENCES, self.batch)) for r in range(len(self.replicas)) for begin in begins]
        for_each_replica(len(jobs), lambda job: run(*jobs[job]))

    def _forward(self, keep: bool) -> Tensor:
        layer, slots = self.layer, self.layer.slots(self.time)
        outputs = np.empty(
            (len(self.replicas), len(layer.steps), self.batch, layer.widths[layer.cell.output]), np.float32
        )
        [given], [kept] = self.given.arrays, self.kept.arrays

        def run(r: int, first: int, last: int) -> None:
            own = (given[r], addresses(self.constants[r]), kept[r], slots, outputs[r])
            call(self.library.forward, self.time, self.batch, first, last, int(keep), *own)

        self._for_each_job(run)
        return torch.from_numpy(outputs).transpose(0, 1).contiguous()

    def backward(self, at_outputs: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, list[Tensor]]:
        """dL/dx_t (time, replica, batch, features) and dL/dθ, as plain numbers, where they are `needed`.

        `at_outputs` is the gradient at the outputs (step, replica, batch, width).
        """
        layer, slots = self.layer, self.layer.slots(self.time)
        direct = at_outputs.detach().transpose(0, 1).contiguous().numpy()
        of_rows = (len(self.replicas), self.time, self.batch)
        buffers = BUFFERS.acquire([(*of_rows, self.kernels.written)])
        exponents = np.empty(of_rows, np.int32)
        squares = np.zeros((len(self.replicas), len(layer.widths), self.time, self.batch), np.float32)
        of_squares = np.zeros(squares.shape, np.int32)
        [given], [kept], [written] = self.given.arrays, self.kept.arrays, buffers.arrays

        def run(r: int, first: int, last: int) -> None:
            own = (given[r], addresses(self.constants[r]), kept[r], direct[r], slots)
            found = (written[r], exponents[r], squares[r], of_squares[r])
            call(self.library.backward, self.time, self.batch, first, last, int(layer.observed), *own, *found)

        self._for_each_job(run)
        layer.norms.squares_and_exponents = squares.swapaxes(0, 1), of_squares.swapaxes(0, 1)
        at_inputs, gradients = [], []
        for r, replica in enumerate(self.replicas):
            replica.differentiate(needed)
            at_projected = self._part(written[r], self.kernels.at_projected)
            if needed[0]:
                of_each = torch.from_numpy(exponents[r]).long().view(1, -1)
                at_inputs.append(replica.input_gradient(at_projected, of_each))
            shared = int(exponents[r].max())
            call(self.library.align, exponents[r].size, self.kernels.written, written[r], exponents[r], shared)
            at_prepared = self._sums(r, written[r]) if any(needed[1:]) else {}
            gradients.append(replica.parameter_gradients(at_projected, at_prepared, shared))
        found = [torch.cat(parts) for parts in zip(*gradients, strict=True)]
        if not needed[0]:
            return None, found
        return torch.cat(at_inputs).view(*of_rows, -1).transpose(0, 1), found

    def _part(self, rows: np.ndarray, segment: Segment | None) -> Tensor | None:
        """A segment of all rows (1, time · batch, number) of (time, batch, …); None without one."""
        if segment is None:
            return None
        numbers = torch.from_numpy(rows)[..., segment.offset : segment.offset + segment.size]
        return numbers.flatten(0, 1).unsqueeze(0)

    def _sums(self, r: int, written: np.ndarray) -> dict[str, Tensor]:
        """The gradients of what a replica prepared, as mantissas: sums over all steps and sequences."""
        step, [kept], [given] = self.kernels.step, self.kept.arrays, self.given.arrays
        arrays = {"before": kept[r, :-1], "kept": kept[r, 1:], "projected": given[r], "written": written}
        known = {}
        for node, (array, segment) in self.kernels.sources.items():
            rows, shape = self._part(arrays[array], segment), node.meta["val"].shape
            assert rows is not None
            axis = list(shape).index(step.batch)
            inner = [size for i, size in enumerate(shape) if i != axis]
            known[node] = rows[0].unflatten(-1, inner).movedim(0, axis) if inner else rows[0].squeeze(-1)
        evaluation = self.replicas[r].evaluation.extended(known, self.time * self.batch)
        return {name: evaluation.value(node) for name, node in step.at_parameters.items() if node is not None}


class _Unrolled(torch.autograd.Function):
    """From inputs or symbols, and parameters, to the outputs at the output steps."""

    @staticmethod
    @denormals_are_zero()
    def forward(ctx: Any, layer: _Layer, _: Any, inputs: Tensor, *values: Tensor) -> Tensor:
        ctx.one = _Pass(layer, inputs.detach(), [value.detach() for value in values], keep=True)
        return ctx.one.outputs

    @staticmethod
    @once_differentiable
    @denormals_are_zero()
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        at_inputs, gradients = ctx.one.backward(at_outputs, needed)
        found = iter(gradients)
        return None, None, at_inputs, *(next(found) if wanted else None for wanted in needed[1:])
