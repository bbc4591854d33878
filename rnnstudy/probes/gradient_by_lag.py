"""The gradient of the recurrent weights by lag, and how much of it a truncation window would lose."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass, Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least, between


class GradientByLag(Probe):
    """The gradient of the recurrence's parameters as a sum over lags, and the share that the last k steps contribute.

    Every step uses W_hh; with C_{t,b} = ∂⁺ℓ_b/∂W_hh the contribution of step t (for a vanilla RNN
    h_{t−1}ᵀ(dℓ_b/dh_t ⊙ φ′_t)), and k = τ_b − t the lag,

        dL/dW_hh = Σ_k C_k,   C_k = 1/B Σ_b C_{τ_b−k, b},   S_k = C_0 + … + C_k,

    on `sequences` fixed sequences, for the loss of the last supervised step τ_b of each sequence. S_k is the gradient
    of backpropagation through time that is truncated k + 1 steps before the end (in this layer only, if there are
    several).

    Read for every recurrent matrix and every diagonal of the recurrence (ν and θ of an LRU); for a cell that has
    neither, because its factors are made from the input (a minGRU), for its input matrices, on which they depend.

    Readings, by lag, with `_initial` or `_final` appended outside training: `by_lag/W_hh`, log10 ‖C_k‖ (Euclidean over
    the entries); `by_lag/W_hh_cosine`, the cosine of S_k and dL/dW_hh. Summary: `window_W_hh_<stage>` (steps), the
    shortest window such that it and all longer windows have a cosine of at least `cosine`.

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
    """By parameter, log10 ‖C_k‖ and the cosine of S_k with the complete gradient, both (lag, replica)."""
    recurrent = recurrence_parameters(layer.unroll.cell)
    complete = {name: gradient.normalised() for name, gradient in layer.parameter_gradients().items()}
    sums: dict[str, BlockFloat] = {}
    log_norms: dict[str, list[Tensor]] = {name: [] for name in recurrent}
    cosines: dict[str, list[Tensor]] = {name: [] for name in recurrent}
    log_batch = torch.tensor(batch.last.shape[1], dtype=torch.float64).log10().to(batch.last.device)
    for lag in range(batch.time):
        steps = batch.last - lag
        parts = layer.parameter_gradients_of(steps.clamp(min=0), steps >= 0)
        for name in recurrent:
            part = parts[name].normalised()
            sums[name] = sums[name].plus(part).normalised() if name in sums else part
            log_norms[name].append(part.log_norms() - log_batch)
            cosines[name].append(_cosine(sums[name].mantissa, complete[name].mantissa))
    return {name: (torch.stack(log_norms[name]), torch.stack(cosines[name])) for name in recurrent}


def recurrence_parameters(cell: Cell) -> list[str]:
    """The recurrent matrices and the diagonals of a cell; its input matrices when it has neither."""
    roles = {name: item.role for name, item in cell.parameters(1, 1).items()}
    found = [name for name, role in roles.items() if role in ("recurrent", "diagonal")]
    return found or [name for name, role in roles.items() if role == "input"]


def shortest_window(cosines: Float[Tensor, "lag replica"], least: float) -> Float[Tensor, " replica"]:
    """The smallest number of steps such that all windows from it on have a cosine of at least `least`; NaN if none."""
    enough = (cosines >= least).flip(0).long().cumprod(0).sum(0)
    return torch.where(enough > 0, (len(cosines) - enough + 1).double(), torch.nan)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.flatten(1), b.flatten(1)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
