"""Multi-lag regression: white noise, and at every step a weighted sum of what was read at a few fixed lags."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.spec import SpecError, at_least
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task, mean_over_supervised


class MultiLagRegression(Task):
    """White noise; the target at every step is a sum over a few lags of a coefficient times the input of that lag.

        x_t ~ N(0, I) in D = `channels` dimensions,   z_t = u·x_t,   u = (1, …, 1)/√D
        y_t = Σ_k c_k z_{t−ℓ_k} + ε_t,                ε_t ~ N(0, `noise`²)

    with ℓ_k the `lags` and c_k the `coefficients`; terms that lie before the first step are 0. One linear output,
    squared error at all T steps. Nothing of the target can be known from recent inputs: each lag is learned or missed
    by itself. Whoever answers lag ℓ at every step holds the ℓ last values of z in its state, so a network with fewer
    numbers in its state than the longest lag is not expected to learn that one.

    The published code has T = 1024, D = 16, the lags 32, 64, 128, 192 and 256, and these coefficients and noise. There,
    u is drawn at random once; the inputs have no preferred direction, so that a fixed one is the same task. The
    defaults here are an eighth of the published lags.

    Error: Σ_t (output − y_t + ε_t)² over its mean for the output 0, the share of the signal's variance that is left
    unexplained; 1 is chance. Also reported, for each lag: `gain_at_lag_8`, Σ_t output·z_{t−8}/(c (T − 8)). Its mean is
    the coefficient that the network gives this lag relative to the right one: 0 missed, 1 learned. The criterion of
    10 % is ours.

    A row of targets holds y_t, then y_t − ε_t, then z_{t−ℓ} for every lag.

    Raises `SpecError` for a length that the longest lag does not fit into, lags that repeat, other numbers of lags and
    coefficients, and a coefficient of 0.

    >>> import torch
    >>> task = MultiLagRegression(length=6, channels=1, lags=(1, 3), coefficients=(0.5, 1.0), noise=0.0)
    >>> drawn = task.sample(1, torch.Generator().manual_seed(0))
    >>> print("input ", " ".join(f"{value:5.2f}" for value in drawn.inputs[:, 0, 0].tolist()))
    input   1.54 -0.29 -2.18  0.57 -1.08 -1.40
    >>> print("target", " ".join(f"{value:5.2f}" for value in drawn.targets[:, 0, 0].tolist()))
    target  0.00  0.77 -0.15  0.45 -0.01 -2.72
    """

    source: ClassVar[str] = "Livi 2025 (learnability window), code: lorenzolivi/learnability"
    loss_unit: ClassVar[str] = "squared error"
    outputs: ClassVar[int] = 1
    criterion: ClassVar[Criterion] = Criterion(
        0.1, "less than 10 % of the signal's variance unexplained (ours)", "share of the signal's variance unexplained"
    )

    channels: Annotated[int, at_least(1)] = 4
    lags: tuple[Annotated[int, at_least(1)], ...] = (4, 8, 16, 24, 32)
    coefficients: tuple[float, ...] = (0.6, 0.5, 0.4, 0.32, 0.26)
    noise: Annotated[float, at_least(0)] = 0.3

    def check(self) -> None:
        name = type(self).__name__
        if not self.lags or len(set(self.lags)) < len(self.lags):
            raise SpecError(f"{name}.lags is {self.lags}; it must name at least one lag, and none twice")
        if len(self.coefficients) != len(self.lags):
            raise SpecError(
                f"{name}.coefficients has {len(self.coefficients)} numbers for {len(self.lags)} lags; it must have one "
                "for each lag"
            )
        if 0 in self.coefficients:
            raise SpecError(
                f"{name}.coefficients is {self.coefficients}; a lag with coefficient 0 is none; leave it out"
            )
        self.require_length(max(self.lags) + 1, "so that the longest lag occurs")

    @property
    def features(self) -> int:
        return self.channels

    @property
    def signal_variance(self) -> float:
        """The mean over the steps of the variance of y_t − ε_t: Σ_k c_k² (T − ℓ_k)/T."""
        terms = zip(self.coefficients, self.lags, strict=True)
        return sum(c**2 * (self.length - lag) / self.length for c, lag in terms)

    @property
    def chance(self) -> Chance:
        """The output 0, the target's mean. Its loss is the target's variance, signal and noise."""
        return Chance(loss=self.signal_variance + self.noise**2, error=1.0)

    @property
    def least_loss(self) -> float:
        """The variance of the noise, which no predictor knows."""
        return self.noise**2

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        return targets[..., 1:2]

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        inputs = torch.randn(self.steps, batch, self.channels, generator=generator)
        noise = self.noise * torch.randn(self.steps, batch, generator=generator)
        along = inputs.sum(-1) / self.channels**0.5
        past = torch.stack([torch.cat([torch.zeros(lag, batch), along[:-lag]]) for lag in self.lags], dim=-1)
        signal = past @ torch.tensor(self.coefficients, dtype=past.dtype)
        everywhere = torch.ones(self.steps, batch, dtype=torch.bool)
        return Batch(
            inputs=inputs,
            targets=torch.cat([torch.stack([signal + noise, signal], dim=-1), past], dim=-1),
            mask=everywhere,
            lengths=torch.full((batch,), self.steps),
            # A later input is not read by any target.
            informative=everywhere & (torch.arange(self.steps)[:, None] < self.steps - min(self.lags)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[..., 0] - targets[..., 0]).square()

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        answer, signal, past = outputs[..., 0], targets[..., 1], targets[..., 2:]
        found = {"error": mean_over_supervised((answer - signal).square(), mask) / self.signal_variance}
        for index, (lag, coefficient) in enumerate(zip(self.lags, self.coefficients, strict=True)):
            occurs = (self.length - lag) / self.length
            mean = mean_over_supervised(answer * past[..., index], mask)
            found[f"gain_at_lag_{lag}"] = mean / (coefficient * occurs)
        return found
