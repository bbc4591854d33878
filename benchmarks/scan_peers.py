"""Diagonal recurrences against the parallel scans that people use, in seconds of one core.

Forward and backward of one layer of minGRU and of LRU, the loss read at the last output. The others return the
gradients of the weights and nothing else; ours also records log10 ‖dL/ds_t‖ of every state at every step and sequence.
Theirs, written out here:

- *torch, by doubling*: s_t = a_t s_{t-1} + b_t in ⌈log₂ T⌉ passes over all steps, and the backward pass as the same
  scan in reverse (Hillis & Steele 1986; so do public ports of Mamba to PyTorch).
- *torch, in logarithms*: log s_t = A_t + logcumsumexp(log b_t − A_t) with A the cumulative sum of log a, for the
  positive minGRU alone (Heinsen 2023; so do public ports of minGRU).
- *JAX*: `jax.lax.associative_scan` under jit, vmap over replicas, and grad.

All compute all replicas at once. The time is the process's own; they take turns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import jax_scan
from benchmarks.scan import FEATURES, Drawn, Step, drawn, recorded, seconds
from rnnstudy.cells import LRU, MinGRU
from rnnstudy.cells.cell import Parameters
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.choice import LEAST_SECONDS_TRACED, Load, choose
from rnnstudy.engines.engine import Engine

CELLS: tuple[DiagonalCell, ...] = (MinGRU(), LRU())
SIZES = ((1000, 20), (10_000, 4))
"""T and batch: fewer sequences where they are long, so that every side's memory suffices."""
REPLICAS, ROUNDS = 8, 3


def engine_for(cell: DiagonalCell, length: int, batch: int) -> Engine:
    """What `auto` takes for a long run."""
    numbers = length * batch * sum(cell.state_width(state, 4) for state in cell.states)
    return choose(cell, frozenset(), torch.device("cpu"), "auto", Load(LEAST_SECONDS_TRACED, numbers))


def in_torch(cell: DiagonalCell, given: Drawn, states: Callable[[Parameters, Tensor], Tensor]) -> Step:
    """`states` of weights and projected inputs (replica, time · batch, gates) gives those of the recurrence."""
    parameters, inputs = given
    length, replicas, batch, _ = inputs.shape
    rows = inputs.transpose(0, 1).reshape(replicas, length * batch, FEATURES)

    def step() -> dict[str, Any]:
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        projected = cell.project(leaves, rows)
        last = states(leaves, projected)[:, -1]
        if len(cell.states) > 1:
            last = cell.read(leaves, projected.view(replicas, length, batch, -1)[:, -1], last)
        last.sum().backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    return step


def by_doubling(cell: DiagonalCell, given: Drawn) -> Step:
    replicas, batch = given[1].shape[1:3]

    def states(parameters: Parameters, projected: Tensor) -> Tensor:
        a, b = cell.coefficients(parameters, projected)
        a, b = (one.view(replicas, -1, batch if one.shape[1] > 1 else 1, one.shape[-1]) for one in (a, b))
        if cell.complex_state:
            a, b = (torch.complex(*one.chunk(2, dim=-1)) for one in (a, b))
        found = Doubled.apply(a.expand_as(b), b)
        return torch.cat([found.real, found.imag], dim=-1) if cell.complex_state else found

    return in_torch(cell, given, states)


class Doubled(torch.autograd.Function):
    """s_t = a_t s_{t-1} + b_t along the second axis."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        states = _doubling(a.clone(), b.clone())
        ctx.save_for_backward(a, states)
        return states

    @staticmethod
    def backward(ctx: Any, direct: Tensor) -> tuple[Tensor, Tensor]:
        a, states = ctx.saved_tensors
        # dL/ds_t = ∂⁺L/∂s_t + ā_{t+1} dL/ds_{t+1}: the scan of the reversed steps, with a one step later.
        later = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1).conj().flip(1).resolve_conj()
        total = _doubling(later.clone(), direct.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        return total * before.conj(), total


def _doubling(a: Tensor, s: Tensor) -> Tensor:
    """Each pass joins every step with that `reach` steps before; in place."""
    reach = 1
    while reach < s.shape[1]:
        s[:, reach:] += a[:, reach:] * s[:, :-reach]
        a[:, reach:] = a[:, reach:] * a[:, :-reach]
        reach *= 2
    return s


def in_logarithms(cell: DiagonalCell, given: Drawn) -> Step:
    replicas, batch = given[1].shape[1:3]

    def states(parameters: Parameters, projected: Tensor) -> Tensor:
        gate, candidate = projected.view(replicas, -1, batch, projected.shape[-1]).chunk(2, dim=-1)
        log_a = -functional.softplus(gate)
        positive = torch.where(candidate >= 0, (candidate.relu() + 0.5).log(), functional.logsigmoid(candidate))
        log_b = -functional.softplus(-gate) + positive
        kept = log_a.cumsum(1)
        return (kept + (log_b - kept).logcumsumexp(1)).exp()

    return in_torch(cell, given, states)


def in_jax(cell: DiagonalCell, given: Drawn) -> Step:
    import jax
    import jax.numpy as jnp

    def scanned(a: Any, b: Any) -> Any:
        return jax.lax.associative_scan(
            lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1]), (a, b)
        )[1]

    def min_gru(weights: Any, x: Any) -> Any:
        gate, candidate = jnp.split(x @ weights["W_xh"] + weights["b_h"], 2, axis=-1)
        store = jax.nn.sigmoid(gate)
        positive = jnp.where(candidate >= 0, candidate + 0.5, jax.nn.sigmoid(candidate))
        return scanned(1 - store, store * positive)[-1].sum()

    def lru(weights: Any, x: Any) -> Any:
        factor = jnp.exp(-jnp.exp(weights["nu"]) + 1j * jnp.exp(weights["theta"]))
        real, imaginary = jnp.split(x @ weights["W_B"], 2, axis=-1)
        driven = (real + 1j * imaginary) * jnp.exp(weights["log_gamma"])
        last = scanned(jnp.broadcast_to(factor, driven.shape), driven)[-1]
        joined = jnp.concatenate([last.real, last.imag], axis=-1)
        return (joined @ weights["W_C"] + x[-1] @ weights["W_D"]).sum()

    weights = {name: jnp.asarray(value.numpy()) for name, value in given[0].items()}
    x = jnp.asarray(given[1].numpy())
    compiled = jax.jit(jax.vmap(jax.grad(lru if isinstance(cell, LRU) else min_gru), in_axes=(0, 1)))

    def step() -> dict[str, Any]:
        return jax.block_until_ready(compiled(weights, x))

    return step


def sides(cell: DiagonalCell, given: Drawn) -> dict[str, Step]:
    """Name to step: ours first."""
    length, _, batch, _ = given[1].shape
    found = {
        "ours": recorded(engine_for(cell, length, batch), cell, given),
        "torch, by doubling": by_doubling(cell, given),
    }
    if isinstance(cell, MinGRU):
        found["torch, in logarithms"] = in_logarithms(cell, given)
    if jax_scan.there():
        found["JAX associative_scan"] = in_jax(cell, given)
    return found


def measure() -> list[dict[str, Any]]:
    """The best of a few rounds of each, with eight replicas, and the ratios."""
    found = []
    for length, batch in SIZES:
        for cell in CELLS:
            given = drawn(cell, length, batch, REPLICAS)
            steps = sides(cell, given)
            for step in steps.values():
                step()
            rounds = [{name: seconds(step) for name, step in steps.items()} for _ in range(ROUNDS)]
            best = {name: min(times[name] for times in rounds) for name in steps}
            row = {"cell": repr(cell), "length": length, "batch": batch, "replicas": REPLICAS, "seconds": best}
            row["engine"] = engine_for(cell, length, batch).name
            row["times_faster"] = {name: best[name] / best["ours"] for name in steps if name != "ours"}
            found.append(row)
            print(row, flush=True)
    return found
