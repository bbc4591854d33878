"""The traced engine for the CPU: a cell's own step and its vector-Jacobian product, traced once and compiled.

The step, written in torch operations, becomes a C program that runs some sequences of one replica over all time steps.
With s_t all states of a layer and ∂⁺L/∂s_t what is added to their gradient from outside,

    G_t = ∂⁺L/∂s_t + (∂s_{t+1}/∂s_t)ᵀ G_{t+1} = m_t · 2^{e_t}

with one exponent e for each sequence and step. The gradients of parameters are sums over steps and sequences, which the
program takes with one exponent for each replica. `Cell.project` is a part of the step, unless symbols are read, and
`Cell.prepared` stays the cell's own code, differentiated by autograd. A step for which no program can be made is
trained by the reference engine.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import Node
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
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.step_compiler.kernels import StepKernels, step_kernels
from rnnstudy.engines.step_compiler.library import CompilingError, addresses, call, compiler, library, library_path
from rnnstudy.engines.step_compiler.rows import name_of
from rnnstudy.engines.step_compiler.source import padded
from rnnstudy.engines.step_compiler.trace import BATCHES, Evaluation, StepSizes, UntraceableError, traced_step
from rnnstudy.spec import RequestError

logger = logging.getLogger("rnnstudy")

SEQUENCES = 32
"""The most sequences that a program runs at once: their numbers of a step should stay in the fastest cache."""

PROOF_STEPS, TOLERANCE = 4, 1e-3
"""Of the comparison before the first use: steps, and what may differ beside the largest entry."""

BUFFERS = BufferPool()


class NoProgramError(RuntimeError):
    """Why there is no program for a cell's step, in words."""


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

    def unfit(self, cell: Cell, features: int, outputs: int) -> str:
        """Compile the program for so many features, and compare it with the reference engine in float64."""
        return disagreement(cell, features, outputs)

    def unroll_layer(self, run: LayerRun) -> CompiledTrajectory:
        """As for every engine. Raises `NoProgramError` for a step that cannot be traced or compiled, and `RuntimeError`
        unless it is float32 on the CPU.

        The first call compiles the step, logs that (logger `rnnstudy`), and keeps the program on disk.
        """
        if run.changes_gradients:
            raise RuntimeError(f"no traced step for {run.cell!r} with changed gradients; use ReferenceEngine")
        require_float32_on_cpu(run, self.name)
        widths = {state: run.widths[state] for state in run.cell.states}
        layer = _Layer(run.cell, tuple(run.parameters), run.output_steps, widths, run.observed, run.vocabulary, Norms())
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
    values = [value.detach() for value in run.parameters.values()]
    return _Pass(layer, run.inputs.detach(), values, keep=False).forward()


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
def disagreement(cell: Cell, features: int, outputs: int) -> str:
    """Why the program made of a cell's step cannot train it: it cannot be compiled, or it computes something else."""
    source = torch.Generator().manual_seed(0)
    widths = {state: cell.state_width(state, outputs) for state in cell.states}
    drawn = {
        name: 0.3 * torch.randn(2, *one.shape, generator=source)
        for name, one in cell.parameters(features, outputs).items()
    }
    inputs = torch.randn(PROOF_STEPS, 2, 3, features, generator=source)
    judge = torch.randn(PROOF_STEPS, 2, 3, widths[cell.output], generator=source)
    found = []
    for engine, dtype in ((TracedEngine(), torch.float32), (ReferenceEngine(), torch.float64)):
        parameters = {name: value.to(dtype, copy=True).requires_grad_() for name, value in drawn.items()}
        try:
            with torch.enable_grad():
                trajectory = engine.unroll(cell, parameters, inputs.to(dtype), widths=widths, observed=True)
                (trajectory.outputs * judge.to(dtype)).sum().backward()
        except NoProgramError as error:
            return str(error)
        gradients = {name: value.grad for name, value in parameters.items() if value.grad is not None}
        found.append({"outputs": trajectory.outputs.detach(), **gradients})
    for name, expected in found[1].items():
        scale = expected.abs().max()
        error = (found[0].get(name, torch.zeros(())).double() - expected).abs().max() / scale
        # Drawn at random, the parameters of some cells are out of their range; nothing is compared then.
        if scale > 0 and bool(scale.isfinite()) and not bool(error < TOLERANCE):
            return f"the program made of its step computes other numbers ({name} differs by {error:.1e})"
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

    def projected(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """p_t of all rows (replica, time · batch, gates), where it is no part of the step."""
        return self.cell.project(parameters, vectors(as_rows(inputs), self.vocabulary, parameters))


class _Pass:
    """One forward pass over all time steps, and what the backward pass reads of it if `keep`.

    Numbers that a layer reads are projected in the step; symbols are looked up before, for all steps at once.
    """

    def __init__(
        self, layer: _Layer, inputs: Tensor, values: Sequence[Tensor], keep: bool, input_gradient: bool = False
    ) -> None:
        """`values` are those of the parameters; `inputs` and they need no gradient."""
        self.layer, self.inputs = layer, inputs
        self.parameters = dict(zip(layer.names, values, strict=True))
        self.time, self.replicas, self.batch, _ = inputs.shape
        prepared = layer.cell.prepared(self.parameters)
        projects = layer.vocabulary is None
        read = as_rows(inputs) if projects else layer.projected(self.parameters, inputs)
        differentiates = keep and (input_gradient or not projects)
        try:
            sizes = StepSizes.of(self.parameters, prepared, layer.widths, read.shape[-1], projects, differentiates)
            self.kernels = _kernels(layer.cell, sizes)
            self.library = library(self.kernels.text, type(layer.cell).__name__)
        except (UntraceableError, CompilingError) as error:
            raise NoProgramError(str(error)) from error
        self.constants = self._constants(prepared)
        of_rows = (self.replicas, self.time, self.batch)
        self.read = BUFFERS.acquire([(*of_rows, self.kernels.read)])
        self.kept = BUFFERS.acquire([(self.replicas, self.time + 1 if keep else 2, self.batch, self.kernels.kept)])
        into = torch.from_numpy(self.read.arrays[0])[..., : read.shape[-1]]
        into.copy_(read.view(*of_rows, -1))
        self.keep = keep

    def _constants(self, prepared: Parameters) -> list[list[np.ndarray]]:
        """For each replica, what the program reads that is the same for all rows."""
        step = self.kernels.step
        known = {node: self.parameters[name] for name, node in step.parameters.items()}
        known |= {node: prepared[name] for name, node in step.prepared.items()}
        self.evaluations = [
            Evaluation(step, {node: value[r % len(value)].unsqueeze(0) for node, value in known.items()})
            for r in range(self.replicas)
        ]
        found = []
        for node, how in self.kernels.constants.items:
            if node in known:
                value = known[node]
            else:
                value = torch.cat([one.value(node).unsqueeze(0) for one in self.evaluations])
            value = value.to(torch.float32)
            value = value.reshape(len(value), -1) if how == "numbers" else value.reshape(-1, *value.shape[-2:])
            value = value.mT if how == "transposed" else value
            array = pad(value, (0, padded(value.shape[-1]) - value.shape[-1])).contiguous().numpy()
            found.append([array[r % len(array)] for r in range(self.replicas)])
        return [list(own) for own in zip(*found, strict=True)] or [[] for _ in range(self.replicas)]

    def _jobs(self) -> list[tuple[int, int, int]]:
        """(replica, first sequence, sequence after the last) of every run of a program."""
        begins = range(0, self.batch, SEQUENCES)
        return [(r, begin, min(begin + SEQUENCES, self.batch)) for r in range(self.replicas) for begin in begins]

    def forward(self) -> Tensor:
        """The outputs (step, replica, batch, width). They are not kept here: they refer to what keeps the pass."""
        layer, slots, jobs = self.layer, self.layer.slots(self.time), self._jobs()
        outputs = np.empty((self.replicas, len(layer.steps), self.batch, layer.widths[layer.cell.output]), np.float32)
        [read], [kept] = self.read.arrays, self.kept.arrays

        def run(job: int) -> None:
            r, first, last = jobs[job]
            own = (read[r], addresses(self.constants[r]), kept[r], slots, outputs[r])
            call(self.library.forward, self.time, self.batch, first, last, int(self.keep), *own)

        for_each_replica(len(jobs), run)
        return torch.from_numpy(outputs).transpose(0, 1).contiguous()

    def backward(self, at_outputs: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, list[Tensor]]:
        """dL/dx_t (time, replica, batch, features) and the gradients of the parameters that need one, as plain numbers.

        `at_outputs` is the gradient at the outputs (step, replica, batch, width); `needed`: of the inputs, and of each
        parameter.
        """
        layer, slots, jobs = self.layer, self.layer.slots(self.time), self._jobs()
        direct = at_outputs.detach().transpose(0, 1).contiguous().numpy()
        of_rows = (self.replicas, self.time, self.batch)
        differentiates = self.kernels.step.at_read is not None
        buffers = BUFFERS.acquire([(*of_rows, self.kernels.read)] if differentiates else [(self.replicas, 0)])
        exponents = np.empty(of_rows, np.int32)
        squares = np.zeros((self.replicas, len(layer.widths), self.time, self.batch), np.float32)
        of_squares = np.zeros(squares.shape, np.int32)
        totals = np.empty((len(jobs), max(1, self.kernels.totals)), np.float32)
        of_totals = np.empty(len(jobs), np.int32)
        [read], [kept], [at_read] = self.read.arrays, self.kept.arrays, buffers.arrays

        def run(job: int) -> None:
            r, first, last = jobs[job]
            own = (read[r], addresses(self.constants[r]), kept[r], direct[r], slots)
            found = (at_read[r], exponents[r], squares[r], of_squares[r], totals[job], of_totals[job : job + 1])
            call(self.library.backward, self.time, self.batch, first, last, int(layer.observed), *own, *found)

        for_each_replica(len(jobs), run)
        layer.norms.squares_and_exponents = squares.swapaxes(0, 1), of_squares.swapaxes(0, 1)
        at_inputs = None
        at_rows = None
        if differentiates:
            width = self.inputs.shape[-1] if layer.vocabulary is None else self.kernels.step.read.meta["val"].shape[-1]
            at_rows = BlockFloat(torch.from_numpy(at_read)[..., :width], torch.from_numpy(exponents).long())
        if needed[0]:
            # A step that does not depend on its inputs has no such gradient.
            at_inputs = torch.zeros_like(self.inputs) if at_rows is None else at_rows.values().transpose(0, 1)
        return at_inputs, self._parameter_gradients(totals, of_totals, at_rows, needed[1:])

    def _parameter_gradients(
        self, totals: np.ndarray, of_totals: np.ndarray, at_rows: BlockFloat | None, needed: Sequence[bool]
    ) -> list[Tensor]:
        layer = self.layer
        of_jobs = BlockFloat(
            torch.from_numpy(totals).view(self.replicas, -1, totals.shape[-1]),
            torch.from_numpy(of_totals).long().view(self.replicas, -1),
        )
        mantissas, shared = (
            of_jobs.aligned((1,)) if of_jobs.exponent.shape[1] > 1 else (of_jobs.mantissa, of_jobs.exponent)
        )
        sums, exponent = mantissas.sum(1), shared.view(-1)
        at_raw, at_prepared = self._gradients_of_sums(sums)
        leaves = {
            name: value.clone().requires_grad_(wanted)
            for (name, value), wanted in zip(self.parameters.items(), needed, strict=True)
        }
        with torch.enable_grad():
            prepared = layer.cell.prepared(leaves)
            projected = None if layer.vocabulary is None else layer.projected(leaves, self.inputs)
        results = [(leaves[name], at) for name, at in at_raw.items()]
        results += [(prepared[name], at) for name, at in at_prepared.items()]
        if projected is not None and layer.vocabulary is not None and at_rows is not None:
            # Sums over rows have one exponent, which must not be below that of any row.
            larger = torch.maximum(at_rows.exponent.amax((1, 2)), exponent)
            results = [(one, BlockFloat(at, exponent - larger).values()) for one, at in results]
            own = BlockFloat(at_rows.mantissa, at_rows.exponent - larger.view(-1, 1, 1)).values()
            results.append((projected, own.flatten(1, 2)))
            exponent = larger
        found = [leaf for leaf in leaves.values() if leaf.requires_grad]
        results = [(one, at.reshape(one.shape)) for one, at in results if one.requires_grad]
        if not found or not results:
            return [torch.zeros_like(leaf) for leaf in found]
        outputs, at_outputs = zip(*results, strict=True)
        gradients = torch.autograd.grad(outputs, found, at_outputs, materialize_grads=True)
        return [BlockFloat(one, exponent).values() for one in gradients]

    def _gradients_of_sums(self, sums: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The gradients of the parameters and of what was prepared (replica, …), as mantissas, from all the totals."""
        step = self.kernels.step
        known = {}
        for one in self.kernels.sums:
            columns, rows = one.right.segment.size, 1 if one.left is None else one.left.segment.size
            own = sums[:, one.offset : one.offset + rows * padded(columns)]
            known[one.node] = own.view(self.replicas, rows, -1)[..., :columns]
        evaluations = []
        for r in range(self.replicas):
            own = {node: _as_node(node, value[r]) for node, value in known.items()}
            evaluations.append(self.evaluations[r].extended(own))

        def gradients(nodes: Mapping[str, Node | None]) -> dict[str, Tensor]:
            return {
                name: torch.stack([_one(evaluation.value(node)) for evaluation in evaluations])
                for name, node in nodes.items()
                if node is not None
            }

        return gradients(step.at_parameters), gradients(step.at_prepared)


def _one(value: Tensor) -> Tensor:
    """Without the axis of the one replica."""
    return value.squeeze(0)


def _as_node(node: Node, value: Tensor) -> Tensor:
    """A sum over sequences as the operation returns it; `value` has summed over the batch alone."""
    shape = node.meta["val"].shape
    if name_of(node) != "sum":
        return value.reshape(shape)
    # The other axes, too, may be summed over.
    argument = node.all_input_nodes[0].meta["val"].shape
    batch = next(axis for axis, size in enumerate(argument) if size in BATCHES)
    alone = value.reshape([1 if axis == batch else size for axis, size in enumerate(argument)])
    return torch.ops.aten.sum.dim_IntList(alone, *node.args[1:], **node.kwargs)


class _Unrolled(torch.autograd.Function):
    """From inputs or symbols, and parameters, to the outputs at the output steps."""

    @staticmethod
    @denormals_are_zero()
    def forward(ctx: Any, layer: _Layer, _: Any, inputs: Tensor, *values: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[2]
        ctx.one = _Pass(layer, inputs.detach(), [value.detach() for value in values], True, needed)
        return ctx.one.forward()

    @staticmethod
    @once_differentiable
    @denormals_are_zero()
    def backward(ctx: Any, at_outputs: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        at_inputs, gradients = ctx.one.backward(at_outputs, needed)
        found = iter(gradients)
        return None, None, at_inputs, *(next(found) if wanted else None for wanted in needed[1:])
