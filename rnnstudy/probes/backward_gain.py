"""What the gradient loses at each step back: to the activation function, to the recurrent matrix, to the gates."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.gradient_through_time import aligned_by_lag
from rnnstudy.probes.probe import BackwardPass, Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class BackwardGain(Probe):
    """By how many decades each step back changes the gradient's norm, and which factor of the step does it.

    With G_t the gradient that arrives at all states of step t, and δ_t = dL/da_t that at the pre-activations a_t,

        log10 ‖(∂s_t/∂s_{t−1})ᵀ G_t‖/‖G_t‖ = log10 ‖δ_t‖/‖G_t‖ + log10 ‖(∂s_t/∂s_{t−1})ᵀ G_t‖/‖δ_t‖.

    In a vanilla RNN the first term is what φ′ takes (δ_t = G_t ⊙ φ′(a_t)), and the second what W_hh adds or takes
    (δ_t W_hhᵀ). Means over the sequences: for the loss of the last supervised step, their sum over the lags below k is
    the mean log10 ‖g_{τ−k}‖ − log10 ‖g_τ‖. A gate that multiplies the old state takes log10 of its value at each unit.

    Readings by lag k = τ_b − t, for every layer, on `sequences` fixed sequences, with `_initial` or `_final` appended
    outside training: `gain/step` (log10); of a cell with one matrix, also `gain/activation` and `gain/matrix`; and for
    every bounded unit or gate u (f, i, o, r, z, …; see `Cell.bounded`) `gates/u`, its mean over units and sequences.
    Absent where a gradient is an exact zero, and at lags that fewer than half of the sequences have.

    Source: Pascanu, Mikolov & Bengio 2013, equation 5 and section 2.1, where the two factors are bounded; gates:
    Hochreiter & Schmidhuber 1997, section 3; Gers, Schmidhuber & Cummins 2000.
    """

    source: ClassVar[str] = "Pascanu et al. 2013, eq. 5 and section 2.1; Gers, Schmidhuber & Cummins 2000"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        for label, layer in batch.labelled_layers():
            for name, values in gains(layer).items():
                curve = moment.curve(f"gain/{label(name)}")
                readings.append(Reading(curve, mean_by_lag(values, batch), ("lag",), "log10"))
            for name, units in layer.bounded().items():
                curve = moment.curve(f"gates/{label(name)}")
                readings.append(Reading(curve, mean_by_lag(units.values.mean(-1), batch), ("lag",), "value"))
        return readings


def gains(layer: ScaledTrajectory) -> dict[str, Tensor]:
    """log10 of each factor of a step back (time, replica, batch); not finite where a gradient is an exact zero."""
    arriving, departing = layer.arriving().log_norms(), layer.departing().log_norms()
    factors = {"step": departing - arriving}
    matrices = [item for item in layer.unroll.cell.parameters(1, 1).values() if item.role == "recurrent"]
    if len(matrices) == 1 and len(matrices[0].blocks) == 1:
        at_activation = layer.gate_gradient().log_norms()
        factors |= {"activation": at_activation - arriving, "matrix": departing - at_activation}
    return factors


def mean_by_lag(values: Tensor, batch: BackwardPass) -> Tensor:
    """Means (replica, lag) over the sequences that have a lag, of values (time, replica, batch)."""
    by_lag, exists = aligned_by_lag(values, batch.last)
    count = exists.sum(-1)
    means = torch.where(exists, by_lag, 0.0).sum(-1) / count
    return torch.where(means.isfinite() & (2 * count >= exists.shape[-1]), means, torch.nan).T
