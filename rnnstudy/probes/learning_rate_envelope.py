"""How much of a unit's state its own factors keep over ℓ steps, and over how many steps each unit decays."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Cell, States
from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least

LN10 = math.log(10)

MOST_LAGS = 32
"""Lags that are read when none are named."""

LEAST_LAGS_FITTED = 3
"""Lags that a time scale is fitted to at least."""


class LearningRateEnvelope(Probe):
    """The effective learning rates μ of a recurrence by lag, their envelope f, and each unit's time scale.

    Of a state s, with d_{t,n} = ∂s_{t,n}/∂s_{t−1,n} the diagonal of its one-step Jacobian, other states held fixed,

        μ_{t,ℓ,n} = d_{t,n} d_{t−1,n} ⋯ d_{t−ℓ+1,n},     f(ℓ) = 1/N Σ_n ⟨|μ_{t,ℓ,n}|⟩,

    where ⟨·⟩ is the mean over `sequences` fixed sequences and all steps t with ℓ < t ≤ τ, the last supervised one. d is
    the gate itself for the cell state of an LSTM (f_t) and for every linear diagonal recurrence (a_t; |a_t| where it is
    complex). In a GRU, a leaky or a plain RNN it is the gate plus what passes from the unit to itself through W_hh.
    What passes through other units is left out: f says what gates keep, and is no bound on the gradient. Of a plain
    RNN, which has no gate, next to all of the gradient is left out.

    The time scale of a unit, in steps, is τ_n = −1/b, with b the slope of the least-squares line of ln ⟨|μ_{t,ℓ,n}|⟩
    over the lags. A unit whose products do not decay has none: it ranks as the slowest, and is absent.

    `lags` names the lags; when empty, up to 32 of them are evenly spaced on a logarithmic scale. Lags that no sequence
    of the task has are left out.

    Readings, with `_initial` or `_final` appended outside training: `envelope/<state>`, log10 f by `lag`;
    `time_scales/<state>`, log10 τ_n by `index`, fastest first. Summary: `time_scale_<state>_<stage>`, the median τ_n.
    Of a linear diagonal recurrence the state s alone is read. An exact zero is absent.

    Source: Livi 2025 (learnability window, version of February 2026 and its code) for μ, f and τ. There, μ is the
    expansion of the product to first order in d minus the gate, that of an LSTM contains ∂h_t/∂c_t, and that of a GRU
    is a sum of products of the gates 1 − z, of r and of both; here it is the product, for every cell alike.
    """

    source: ClassVar[str] = "Livi 2025 (learnability window): effective learning rates"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 16
    lags: tuple[Annotated[int, at_least(1)], ...] = ()

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        lags = lags_read(batch.time, self.lags)
        if not lags:
            return []
        coordinates = {"lag": tuple(float(lag) for lag in lags)}
        for label, layer in batch.labelled_layers():
            for state, factors in self_factors(layer).items():
                by_unit = log_products(factors.abs().log(), batch.last, lags)
                mean = (by_unit.logsumexp(-1) - math.log(by_unit.shape[-1])) / LN10
                name = moment.curve(f"envelope/{label(state)}")
                readings.append(Reading(name, known(mean).T, ("lag",), "log10", coordinates))
                scales = time_scales(by_unit, lags).sort(dim=-1).values
                name = moment.curve(f"time_scales/{label(state)}")
                readings.append(Reading(name, known(scales.log10()), ("index",), "log10 steps"))
                if moment.stage != "training":
                    median = known(scales[:, (scales.shape[-1] - 1) // 2])
                    readings.append(Reading(moment.named(f"time_scale_{label(state)}"), median, (), "steps"))
        return readings


def known(values: Tensor) -> Tensor:
    """NaN, hence absent from the store, where a value is infinite."""
    return torch.where(values.isfinite(), values, torch.nan)


def lags_read(time: int, named: Sequence[int]) -> list[int]:
    """The named lags below `time`, ascending; where none is named, up to `MOST_LAGS`, log-spaced up to the longest."""
    longest = time - 1
    if named:
        return sorted({lag for lag in named if lag <= longest})
    if longest < 1:
        return []
    return sorted({round(longest ** (k / (MOST_LAGS - 1))) for k in range(MOST_LAGS)})


def self_factors(layer: ScaledTrajectory) -> dict[str, Float[Tensor, "time replica batch units"]]:
    """d_{t,n} by state; of complex factors, the modulus."""
    unroll = layer.unroll
    cell, inputs = unroll.cell, unroll.vectors(unroll.inputs)
    projected = cell.project(unroll.parameters, inputs)
    if isinstance(cell, DiagonalCell):
        factors, _ = cell.coefficients(unroll.prepared, projected)
        if cell.complex_state:
            real, imaginary = factors.chunk(2, dim=-1)
            factors = torch.hypot(real, imaginary)
        return {cell.states[0]: unroll.by_time(factors.expand(-1, projected.shape[1], -1).contiguous())}
    before = unroll.rows_of(unroll.states[:-1])
    return {
        state: unroll.by_time(_diagonal(cell, unroll.prepared, projected, before, state)) for state in cell.read_states
    }


def _diagonal(
    cell: Cell, prepared: Mapping[str, Tensor], projected: Tensor, before: States, state: str
) -> Float[Tensor, "replica rows width"]:
    """The diagonal of ∂s_t/∂s_{t−1} of one state, for every row."""
    leaf = before[state].detach().requires_grad_()
    with torch.enable_grad():
        after = cell.step(prepared, projected, {**before, state: leaf}, lambda _, value: value)[state]
    if not after.requires_grad:
        return torch.zeros_like(leaf)

    def product(left: Tensor) -> Tensor:
        [result] = torch.autograd.grad(after, leaf, left, retain_graph=True, materialize_grads=True)
        return result

    # A diagonal Jacobian shows all of it in one product; a random second one tells whether it is diagonal.
    sums = product(torch.ones_like(after))
    random = torch.randn(leaf.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    random = random.to(leaf)
    if torch.allclose(product(random.expand_as(after)), sums * random, rtol=1e-12, atol=1e-14):
        return sums
    units = torch.eye(leaf.shape[-1], dtype=leaf.dtype, device=leaf.device)
    return torch.stack([product(unit.expand_as(after))[..., n] for n, unit in enumerate(units)], dim=-1)


def log_products(
    logs: Float[Tensor, "time replica batch units"], last: Int[Tensor, "replica batch"], lags: Sequence[int]
) -> Float[Tensor, "lag replica units"]:
    """ln ⟨|μ_{t,ℓ,n}|⟩ from ln |d_{t,n}|; −inf where all products are zero, NaN where no sequence has the lag."""
    zero = logs == -torch.inf
    # The first factor leads from s_0, which is the same in every sequence.
    start = torch.zeros_like(logs[:1])
    sums = torch.cat([start, torch.where(zero, 0.0, logs)[1:]]).cumsum(0)
    zeros = torch.cat([start, zero[1:].to(logs.dtype)]).cumsum(0)
    steps = torch.arange(len(logs), device=last.device)[:, None, None]
    found = []
    for lag in lags:
        within = (steps[lag:] <= last).unsqueeze(-1)
        # A product with a zero factor counts in the mean, and adds nothing to it.
        products = torch.where(zeros[lag:] == zeros[:-lag], sums[lag:] - sums[:-lag], -torch.inf)
        total = torch.where(within, products, -torch.inf).logsumexp((0, 2))
        found.append(total - within.sum((0, 2)).to(logs.dtype).log())
    return torch.stack(found)


def time_scales(logs: Float[Tensor, "lag replica units"], lags: Sequence[int]) -> Float[Tensor, "replica units"]:
    """−1/b of each unit, with b the slope of a least-squares line through its `logs` (natural) over the lags.

    Infinite where the slope is not negative; NaN where fewer than `LEAST_LAGS_FITTED` lags are known.
    """
    used = logs.isfinite()
    lag = torch.tensor(lags, dtype=logs.dtype, device=logs.device)[:, None, None]
    count = used.sum(0)
    values, lag = torch.where(used, logs, 0.0), torch.where(used, lag, 0.0)
    centred = torch.where(used, lag - lag.sum(0) / count, 0.0)
    slope = (centred * values).sum(0) / centred.square().sum(0)
    scales = torch.where(slope < 0, -1 / slope, torch.inf)
    return torch.where(count >= LEAST_LAGS_FITTED, scales, torch.nan)
