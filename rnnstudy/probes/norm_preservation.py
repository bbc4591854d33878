"""How well a step back in time preserves the norm of the gradient: Omega of Pascanu et al. as a measurement."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import above, at_least


class NormPreservation(Probe):
    """Omega, and the live share: the share of steps at which the gradient has not vanished.

    With δ_{t,b} = dL/dh_t the total derivative of the mean loss L of the batch, and the effect of one step back,

        n_{t,b} = ‖(∂h_t/∂h_{t−1})ᵀ δ_{t,b}‖²  ( = ‖(δ_{t,b} ⊙ φ′_t) W_hhᵀ‖² for a vanilla RNN),   d_{t,b} = ‖δ_{t,b}‖²,

        Omega = Σ_{t,b} (n/d − 1)² [d ≥ `bound`] / Σ_{t,b} [d ≥ `bound`],

    as in the published code: squared norms inside the bracket (equation 10; equation 9 does not square them). The live
    share counts the (t, b) up to the last supervised step with d ≥ `bound`, "steps in the past" in the code. Omega is
    absent where there are none.

    For a cell with several states, δ is the gradient with respect to all of them together (for the LSTM, c and h as
    independent variables); this generalisation is ours. Measured on `sequences` fixed sequences for the loss of the
    last supervised step of each; d depends on the number of sequences, as in the code, because L is a mean over them.

    Readings for each layer: `omega` and `live_share` in training; `summary/omega_initial` and so on.

    Source: Pascanu, Mikolov & Bengio 2013, equations 9 and 10, and code: RNN.py.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, eq. 9-10 (code: RNN.py)"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 20
    bound: Annotated[float, above(0)] = 1e-20

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        log_batch = torch.tensor(self.sequences, dtype=torch.float64).log10().to(batch.last.device)
        for label, layer in batch.labelled_layers():
            arriving, departing = layer.arriving().log_norms() - log_batch, layer.departing().log_norms() - log_batch
            value, live = omega(arriving, departing, batch.until_last(), self.bound)
            readings.append(Reading(moment.named(label("omega")), value, (), ""))
            readings.append(Reading(moment.named(label("live_share")), live, (), "share"))
        return readings


def omega(
    arriving: Float[Tensor, "time replica batch"],
    departing: Float[Tensor, "time replica batch"],
    measured: Bool[Tensor, "time replica batch"],
    bound: float,
) -> tuple[Float[Tensor, " replica"], Float[Tensor, " replica"]]:
    """Omega and the live share, from log10 of the gradient norms at a step (`arriving`) and one step back."""
    live = measured & (2 * arriving >= torch.tensor(bound, dtype=torch.float64).log10())
    ratio = 10 ** (2 * (departing - torch.where(live, arriving, 0.0)))
    terms = torch.where(live, (ratio - 1).square(), 0.0)
    count = live.sum((0, 2)).double()
    value = torch.where(count > 0, terms.sum((0, 2)) / count, torch.nan)
    return value, count / measured.sum((0, 2))
