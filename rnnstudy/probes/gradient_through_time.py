"""The gradient through time: how much the loss changes with a small change of a state at an earlier step."""

import math
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.probes.probe import BackwardPass, Moment, Probe, Stage, batch_quantiles
from rnnstudy.probes.reading import MEDIAN, Reading
from rnnstudy.probes.schedule import Every
from rnnstudy.spec import at_least

MOST_LAGS_FOR_SLOPE = 400
"""The Theil–Sen slope uses all pairs of lags; of more lags than this, only evenly spaced ones are used."""


class GradientThroughTime(Probe):
    """log10 ‖dℓ_b/ds_t‖ for every state s of every layer, where d/ds_t is the *total* derivative.

    The derivative is taken where step t computes s_t, before anything else in the step reads it, so that dℓ/dc_t
    includes the path through h_t. Norms are per sequence; then quantiles over the batch (axis `quantile`).

    During training, by time t = 1..T, for the mean loss ℓ_b of each sequence of the training batch:
    `through_time/<state>`. Before and after training, by lag τ_b − t on `sequences` fixed sequences, for the loss of
    the last supervised step τ_b alone: `profile/<state>_initial` and `_final`; and normalised, log10 ‖g_t‖ −
    log10 ‖g_τ‖ per sequence before the quantiles: `profile/<state>_initial_normalised`. Exact zeros and non-finite
    values are absent; the readings `…_zeros` and `…_nonfinite` are their shares.

    The reverse direction of a bidirectional layer (`h_reverse`) reads each sequence from step τ_b to step 1. By time
    its readings stand at the time t of the input that a state has read last. By lag, its profile is the mirror image of
    the forward one: the lag of the state at time t is t − 1. A task supervised at step τ_b alone reads the reverse
    state of step 1, for the same loss; in a task supervised from step 1 on, the loss is that of step 1 alone, where the
    reverse direction ends as the forward one does at τ_b.

    Summaries: `log10_ratio_<stage>`, the median normalised value at t = 1 (decades); `rate_<stage>`, the Theil–Sen
    slope of the median normalised profile over lags (decades per step); `half_life_<stage>` = log10 2 / (−rate), in
    steps, absent where the rate is not negative. States other than the output state add their name:
    `log10_ratio_initial_c`.

    Source: Hochreiter 1991; Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013, equations 3 to 5.
    """

    source: ClassVar[str] = "Hochreiter 1991; Bengio et al. 1994; Pascanu et al. 2013, eq. 3-5"
    observes: ClassVar[bool] = True

    every: Every = 10
    sequences: Annotated[int, at_least(1)] = 32

    def read(self, moment: Moment) -> list[Reading]:
        if moment.stage == "training":
            return self._by_time(moment.through_time) if moment.through_time is not None else []
        return self._by_lag(moment.side_batch(self.sequences), moment.stage)

    def _by_time(self, gradients: BackwardPass) -> list[Reading]:
        readings = []
        for label, log_norms in gradients.labelled():
            time = torch.arange(log_norms.shape[0], device=log_norms.device)[:, None, None]
            readings += _quantile_readings(f"through_time/{label}", log_norms, time <= gradients.last, "time")
        return readings

    def _by_lag(self, gradients: BackwardPass, stage: Stage) -> list[Reading]:
        readings = []
        for label, log_norms in gradients.labelled():
            by_lag, measured = aligned_by_lag(log_norms, gradients.last)
            normalised = by_lag - by_lag[0]
            readings += _quantile_readings(f"profile/{label}_{stage}", by_lag, measured, "lag")
            profile = batch_quantiles(normalised, measured)
            readings.append(Reading(f"profile/{label}_{stage}_normalised", profile, ("quantile", "lag"), "log10"))
            suffix = stage if label == gradients.states[-1] else f"{stage}_{label}"
            ratio = batch_quantiles((log_norms[0] - by_lag[0])[None], torch.ones_like(measured[:1]))
            readings.append(Reading(f"summary/log10_ratio_{suffix}", ratio[:, MEDIAN, 0], (), "log10"))
            rates = torch.tensor([theil_sen(curve) for curve in profile[:, MEDIAN].cpu().numpy()], dtype=torch.float64)
            readings.append(Reading(f"summary/rate_{suffix}", rates, (), "log10 per step"))
            half_lives = torch.where(rates < 0, math.log10(2) / -rates, torch.nan)
            readings.append(Reading(f"summary/half_life_{suffix}", half_lives, (), "steps"))
        return readings


def aligned_by_lag(
    log_norms: Float[Tensor, "time replica batch"], last: Int[Tensor, "replica batch"]
) -> tuple[Tensor, Tensor]:
    """Values (lag, replica, batch) at step τ_b − lag, and a mask: True where this step exists."""
    lags = torch.arange(log_norms.shape[0], device=log_norms.device)[:, None, None]
    step = last - lags
    return log_norms.gather(0, step.clamp(min=0)), step >= 0


def theil_sen(curve: np.ndarray) -> float:
    """The median slope over all pairs of finite points of `curve` (position); NaN for fewer than two points."""
    positions = np.flatnonzero(np.isfinite(curve))
    if len(positions) < 2:
        return math.nan
    if len(positions) > MOST_LAGS_FOR_SLOPE:
        positions = positions[np.linspace(0, len(positions) - 1, MOST_LAGS_FOR_SLOPE).round().astype(int)]
    first, second = np.triu_indices(len(positions), 1)
    values = curve[positions]
    return float(np.median((values[second] - values[first]) / (positions[second] - positions[first])))


def _quantile_readings(name: str, log_norms: Tensor, measured: Tensor, axis: str) -> list[Reading]:
    """Quantiles over the batch, and the shares of exact zeros and of non-finite values among the measured entries."""
    count = measured.sum(-1).clamp(min=1)
    zeros = ((log_norms == -torch.inf) & measured).sum(-1) / count
    non_finite = ((log_norms.isnan() | (log_norms == torch.inf)) & measured).sum(-1) / count
    return [
        Reading(name, batch_quantiles(log_norms, measured), ("quantile", axis), "log10"),
        Reading(f"{name}_zeros", zeros.T, (axis,), "share"),
        Reading(f"{name}_nonfinite", non_finite.T, (axis,), "share"),
    ]
