"""From how many sequences a step along the gradient of one lag can be told from noise, and up to which lag."""

import math
from typing import Annotated, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.engines.block_float import LOG10_2, BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.learning_rate_envelope import known, lags_read
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import above, at_least

TAIL_INDICES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0)
SPREAD_RATIOS = (6.3138, 5.2229, 4.4509, 3.8865, 3.4656, 3.1498, 2.9140, 2.7394, 2.6099, 2.5128, 2.4387)
QUARTILE_RANGES = (2.0000, 1.9777, 1.9631, 1.9528, 1.9447, 1.9379, 1.9315, 1.9255, 1.9195, 1.9136, 1.9077)
"""Of symmetric stable laws of scale 1, by α: McCulloch's ratio (q₉₅ − q₀₅)/(q₇₅ − q₂₅), and q₇₅ − q₂₅."""

SMALLEST_BLOCK, LARGEST_BLOCK, FEWEST_MEANS = 4, 32, 16
"""Sequences in a mean whose spread is measured, and how many such means there are at least."""


class LearnabilityWindow(Probe):
    """Signal, noise and tail of the gradient by lag, and the sequences that the signal needs to exceed the noise.

    With C_{ℓ,b} = ∂⁺ℓ_b/∂θ what step t = τ_b − ℓ adds to the gradient of all parameters θ of a layer, for the loss of
    the last supervised step τ_b, the statistic of sequence b at lag ℓ is

        ψ_b(ℓ) = w_ℓ · C_{ℓ,b},     w_ℓ = Σ_{b′} C_{ℓ,b′} / ‖Σ_{b′} C_{ℓ,b′}‖,

    with b′ the sequences of the other half of `sequences` fixed ones: how much a step along the gradient of this lag,
    taken from other sequences, lowers the loss of b. With m the mean of ψ over all sequences, α and σ the tail index
    and scale of a symmetric stable law by McCulloch's quantiles, and κ = α/(α − 1), the mean of n sequences approaches
    m as n^(−1/κ), and

        N(ℓ) = (ε σ/m)^κ,     H = max{ℓ : N(ℓ) ≤ `budget`}

    are the sequences from which m is ε = `ratio` times as large as their noise, and the longest lag that needs at most
    `budget` of them. Where m is not positive the other half's gradient does not help, and N is absent: the sequences do
    not show a signal. Estimates of N far above `sequences` are extrapolated.

    McCulloch's α describes the body of a distribution as well as its tail: below 2, it need not mean that the variance
    is infinite (of a product of two independent normal numbers, which has all moments, it is 1.2). So the exponent is
    also measured: `concentration` is −slope of log (q₇₅ − q₂₅) of the means of n = 4, 8, … 32 sequences against log n,
    as long as there are 16 means (of 256 sequences: up to n = 16). It tends to 1 − 1/α for a stable law and to ½ where
    the variance is finite; with so few sequences it scatters by 0.2 or so. `samples_by_variance` is (ε s/m)², s the
    standard deviation. Part of the signal is the same at every lag: an untrained readout errs in the same direction
    everywhere.

    Readings by `lag`, with `_initial` or `_final` appended outside training: `learnability/signal`, log10 m;
    `learnability/noise`, log10 σ; `learnability/tail_index`, α from 1 to 2; `learnability/concentration`;
    `learnability/samples`, log10 N; `learnability/samples_by_variance`, log10. Summary: `learnability_window_<stage>`,
    H in steps, 0 where no lag needs so few. `lags` as in `LearningRateEnvelope`. Absent where a lag is not in every
    sequence. Raises `RequestError` for a cell without forward derivatives (ExpRNN's exponential).

    Source: N, κ and H as in Livi 2025 (learnability window) and its code; McCulloch 1986 for α and σ. The code projects
    on one random direction, with the effective learning rates in place of the gradient; w_ℓ and the exact gradient are
    this project's, and so is the measured exponent.
    """

    source: ClassVar[str] = "Livi 2025 (learnability window); McCulloch 1986 for the tail index"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(128)] = 256
    lags: tuple[Annotated[int, at_least(1)], ...] = ()
    ratio: Annotated[float, above(0)] = 1.0
    budget: Annotated[int, at_least(1)] = 1000

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        lags = lags_read(batch.time, self.lags)
        if not lags:
            return []
        coordinates = {"lag": tuple(float(lag) for lag in lags)}
        for label, layer in batch.labelled_layers():
            found = [statistics(*along_other_half(layer, batch.last, lag)) for lag in lags]
            by_lag = {name: torch.stack([getattr(one, name) for one in found], dim=1) for name in Statistics._fields}
            alike = Statistics(**by_lag)
            exponent = alike.tail_index / (alike.tail_index - 1)
            # Means of a law with α = 1 do not concentrate: the exponent is infinite, and N absent.
            samples = known(exponent * (math.log10(self.ratio) + alike.noise - alike.signal))
            by_variance = 2 * (math.log10(self.ratio) + alike.deviation - alike.signal)
            for name, values, unit in (
                ("signal", alike.signal, "log10"),
                ("noise", alike.noise, "log10"),
                ("tail_index", alike.tail_index, ""),
                ("concentration", alike.concentration, ""),
                ("samples", samples, "log10 sequences"),
                ("samples_by_variance", by_variance, "log10 sequences"),
            ):
                name = moment.curve(f"learnability/{label(name)}")
                readings.append(Reading(name, known(values), ("lag",), unit, coordinates))
            if moment.stage != "training":
                window = longest_within(samples, lags, math.log10(self.budget))
                readings.append(Reading(moment.named(label("learnability_window")), window, (), "steps"))
        return readings


class Statistics(NamedTuple):
    """Of ψ over the sequences, for each replica; `signal`, `noise` and `deviation` as log10 of m, σ and s."""

    signal: Tensor
    noise: Tensor
    deviation: Tensor
    tail_index: Tensor
    concentration: Tensor


def along_other_half(
    layer: ScaledTrajectory, last: Int[Tensor, "replica batch"], lag: int
) -> tuple[Float[Tensor, "replica batch"], Float[Tensor, " replica"], Bool[Tensor, " replica"]]:
    """ψ under one power of ten for each replica, that power's log10, and whether all sequences have the lag."""
    steps = last - lag
    exists = steps >= 0
    first = torch.arange(last.shape[1], device=last.device) < last.shape[1] // 2
    parts = []
    for half in (first, ~first):
        direction = _unit(layer.parameter_gradients_of(steps.clamp(min=0), exists & ~half))
        along = layer.gradients_along(direction, steps.clamp(min=0))
        parts.append((half, along))
    mantissa = torch.where(parts[0][0], parts[0][1].mantissa, parts[1][1].mantissa)
    values, shared = BlockFloat(mantissa, parts[0][1].exponent).aligned((1,))
    return values, shared.squeeze(1).double() * LOG10_2, exists.all(1)


def _unit(gradients: dict[str, BlockFloat]) -> dict[str, Tensor]:
    """The gradients of all parameters as one vector of length 1 for each replica; of length 0 if they are zero."""
    largest = torch.stack([one.normalised().exponent for one in gradients.values()]).amax(0)
    scaled = {
        name: BlockFloat(one.normalised().mantissa, one.normalised().exponent - largest).values()
        for name, one in gradients.items()
    }
    square = torch.stack([value.flatten(1).square().sum(1) for value in scaled.values()]).sum(0)
    length = torch.where(square > 0, square, 1.0).sqrt()
    return {name: value / length.view(-1, *(1,) * (value.ndim - 1)) for name, value in scaled.items()}


def statistics(
    values: Float[Tensor, "replica batch"], shift: Float[Tensor, " replica"], complete: Bool[Tensor, " replica"]
) -> Statistics:
    """The statistics of 10^shift · values; NaN where a replica is not `complete`, or all its values are the same."""
    mean = values.mean(1)
    tail_index, scale = stable_by_quantiles(values)
    found = Statistics(
        signal=torch.where(mean > 0, mean, torch.nan).log10() + shift,
        noise=scale.log10() + shift,
        deviation=values.std(1).log10() + shift,
        tail_index=tail_index,
        concentration=concentration(values),
    )
    usable = complete & (quartile_range(values) > 0)
    return Statistics(*(torch.where(usable, value, torch.nan) for value in found))


def stable_by_quantiles(
    values: Float[Tensor, "replica batch"],
) -> tuple[Float[Tensor, " replica"], Float[Tensor, " replica"]]:
    """Tail index α, between 1 and 2, and scale of a symmetric stable law, by McCulloch's ratio of quantiles.

    The scale c is that of the characteristic function exp(−|c t|^α): of a normal law, its standard deviation / √2.
    """
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95]).to(values), dim=1)
    quartiles = quartile_range(values)
    ratio = (high - low) / torch.where(quartiles > 0, quartiles, torch.nan)
    # The ratio falls with α; the table is read backwards.
    alpha = _interpolated(ratio, SPREAD_RATIOS[::-1], TAIL_INDICES[::-1])
    return alpha, quartiles / _interpolated(alpha, TAIL_INDICES, QUARTILE_RANGES)


def quartile_range(values: Float[Tensor, "replica batch"]) -> Float[Tensor, " replica"]:
    """q₇₅ − q₂₅."""
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75]).to(values), dim=1)
    return high - low


def _interpolated(at: Tensor, positions: tuple[float, ...], values: tuple[float, ...]) -> Tensor:
    """Linear interpolation in a table of ascending positions; its ends beyond them, and NaN at NaN."""
    x, y = (torch.tensor(one, dtype=at.dtype, device=at.device) for one in (positions, values))
    right = torch.searchsorted(x, at.nan_to_num(positions[0])).clamp(1, len(x) - 1)
    share = ((at - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
    return y[right - 1] + share * (y[right] - y[right - 1])


def concentration(values: Float[Tensor, "replica batch"]) -> Float[Tensor, " replica"]:
    """−slope of log (q₇₅ − q₂₅) of the means of n consecutive values against log n, n = 4, 8, … up to 32."""
    spreads, sizes = [], []
    size = SMALLEST_BLOCK
    while size <= LARGEST_BLOCK and values.shape[1] // size >= FEWEST_MEANS:
        means = values[:, : values.shape[1] // size * size].unflatten(1, (-1, size)).mean(-1)
        spreads.append(quartile_range(means).log())
        sizes.append(math.log(size))
        size *= 2
    at = torch.tensor(sizes, dtype=values.dtype, device=values.device)
    centred = at - at.mean()
    return -(centred[:, None] * torch.stack(spreads)).sum(0) / centred.square().sum()


def longest_within(samples: Float[Tensor, "replica lag"], lags: list[int], most: float) -> Float[Tensor, " replica"]:
    """The longest lag with `samples` at most `most`; 0 where there is none."""
    at = torch.tensor(lags, dtype=samples.dtype, device=samples.device)
    return torch.where(samples <= most, at, 0.0).amax(1)
