"""Where in the past the recurrent weights' gradient comes from, and what a truncation window would lose of it."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass, Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least, between


class GradientByLag(Probe):
    """The gradient of every recurrent matrix as a sum over lags, and how much of it the last k steps give.

    W_hh is read at every step; with C_{t,b} = ∂⁺ℓ_b/∂W_hh what its use in step t adds (for a vanilla RNN
    h_{t−1}ᵀ(dℓ_b/dh_t ⊙ φ′_t)), and k = τ_b − t the lag,

        dL/dW_hh = Σ_k C_k,   C_k = 1/B Σ_b C_{τ_b−k, b},   S_k = C_0 + … + C_k,

    on `sequences` fixed sequences, for the loss of each sequence's last supervised step τ_b. S_k is the gradient that
    backpropagation through time gives when it is truncated k + 1 steps before the end (in one layer alone, where there
    are several).

    Readings, by lag, with `_initial` or `_final` appended outside training: `by_lag/W_hh`, log10 ‖C_k‖ (Euclidean over
    the entries); `by_lag/W_hh_cosine`, the cosine of S_k and dL/dW_hh. Summary: `window_W_hh_<stage>` (steps), the
    shortest window from which on every longer one has a cosine of at least `cosine`.

    Source: truncation as in Williams & Peng 1990; the sum over steps is Pascanu, Mikolov & Bengio 2013, equation 3.
    """

    source: ClassVar[str] = "Williams & Peng 1990; Pascanu et al. 2013, eq. 3"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32
    cosine: Annotated[float, between(0, 1)] = 0.99

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        for label, layer in batch.labelled_layers():
            for name, (log_norms, cosines) in by_lag(layer, batch).items():
                curve = moment.curve(f"by_lag/{label(name)}")
                readings.append(Reading(curve, log_norms.T, ("lag",), "log10"))
                readings.append(Reading(moment.curve(f"by_lag/{label(name)}_cosine"), cosines.T, ("lag",), "cosine"))
                if moment.stage != "training":
                    window = shortest_window(cosines, self.cosine)
                    readings.append(Reading(moment.named(f"window_{label(name)}"), window, (), "steps"))
        return readings


def by_lag(layer: ScaledTrajectory, batch: BackwardPass) -> dict[str, tuple[Tensor, Tensor]]:
    """For each recurrent matrix, log10 ‖C_k‖ and the cosine of S_k with the whole gradient, both (lag, replica)."""
    recurrent = [name for name, one in layer.unroll.cell.parameters(1, 1).items() if one.role == "recurrent"]
    whole = {name: one.normalised() for name, one in layer.parameter_gradients().items()}
    sums: dict[str, BlockFloat] = {}
    log_norms: dict[str, list[Tensor]] = {name: [] for name in recurrent}
    cosines: dict[str, list[Tensor]] = {name: [] for name in recurrent}
    mean = torch.tensor(batch.last.shape[1], dtype=torch.float64).log10().to(batch.last.device)
    for lag in range(int(batch.last.max()) + 1):
        steps = batch.last - lag
        parts = layer.parameter_gradients_of(steps.clamp(min=0), steps >= 0)
        for name in recurrent:
            part = parts[name].normalised()
            sums[name] = sums[name].plus(part).normalised() if name in sums else part
            log_norms[name].append(part.log_norms() - mean)
            cosines[name].append(_cosine(sums[name].mantissa, whole[name].mantissa))
    return {name: (torch.stack(log_norms[name]), torch.stack(cosines[name])) for name in recurrent}


def shortest_window(cosines: Float[Tensor, "lag replica"], least: float) -> Float[Tensor, " replica"]:
    """The number of steps from which on every window's cosine is at least `least`; NaN where there is none."""
    enough = (cosines >= least).flip(0).long().cumprod(0).sum(0)
    return torch.where(enough > 0, (len(cosines) - enough + 1).double(), torch.nan)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    one, other = one.flatten(1), other.flatten(1)
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))
