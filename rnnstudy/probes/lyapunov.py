"""Lyapunov exponents: how fast a small disturbance of the state grows or decays, in every direction."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass, Moment, Probe, batch_quantiles
from rnnstudy.probes.reading import MEDIAN, Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least

ROUNDING = 1e-14
"""A direction that one step shrinks by this factor relative to the largest one has vanished; the rest is rounding."""


class LyapunovExponents(Probe):
    """The Lyapunov spectrum of a network driven by the task's sequences, natural logarithm per step.

    With J_t = ∂s_t/∂s_{t−1} for all states of a layer side by side (the LSTM's c and h together) and Q_0 = I,

        Q_t R_t = J_t Q_{t−1}  (QR decomposition),   λ_i = 1/τ Σ_{t=1..τ} ln |R_t|_ii,

    up to the last supervised step τ of each sequence, in descending order. Σ λ_i is the mean of ln |det J_t|. These are
    finite-time exponents that include transients. The inputs of a layer are held fixed.

    Readings on `sequences` fixed sequences, quantiles over them: `lyapunov/exponents` over axes `quantile` and `index`
    (largest first, from 0), `_initial` or `_final` appended outside training; `lyapunov_largest`, the median of the
    largest exponent (a summary outside training). Unit: ln per step. Absent for directions that vanish in a step: the
    rank of the Jacobian of a Jordan network is at most its number of outputs.

    Source: Benettin et al. 1980 for the method; Engelken, Wolf & Abbott 2023 and Vogt et al. 2022 for recurrent nets.
    """

    source: ClassVar[str] = "Benettin et al. 1980; Vogt et al. 2022; Engelken et al. 2023"
    needs_jacobians: ClassVar[bool] = True

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 4

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        for label, layer in batch.labelled_layers():
            values = exponents(layer, batch).permute(2, 0, 1)
            quantiles = batch_quantiles(values, torch.ones_like(values, dtype=torch.bool))
            name = moment.curve(label("lyapunov/exponents"))
            readings.append(Reading(name, quantiles, ("quantile", "index"), "ln per step"))
            largest = moment.named(label("lyapunov_largest"))
            readings.append(Reading(largest, quantiles[:, MEDIAN, 0], (), "ln per step"))
        return readings


def exponents(layer: ScaledTrajectory, batch: BackwardPass) -> Float[Tensor, "replica batch index"]:
    """The exponents of every sequence, largest first."""
    size = sum(layer.widths.values())
    q = torch.eye(size, dtype=torch.float64, device=batch.last.device).expand(*batch.last.shape, size, size)
    total = q.new_zeros(*batch.last.shape, size)
    finite = torch.ones_like(batch.last, dtype=torch.bool)
    for t, jacobian in enumerate(layer.jacobians()):
        within = (t <= batch.last)[..., None]
        finite = finite & jacobian.isfinite().flatten(2).all(2)
        q, r = torch.linalg.qr(torch.where(finite[..., None, None], jacobian, 0.0) @ q)
        stretch = r.diagonal(dim1=-2, dim2=-1).abs()
        vanished = stretch < ROUNDING * stretch.amax(-1, keepdim=True)
        total = total + torch.where(within, torch.where(vanished, 0.0, stretch).log(), 0.0)
    known = torch.where(finite[..., None], total / (batch.last + 1)[..., None], torch.nan)
    return known.sort(dim=-1, descending=True).values
