"""Signal against noise of the gradient by lag: does what arrives agree between sequences?"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.engines.block_float import LOG10_2, ZERO_EXPONENT, BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass, Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class GradientSignal(Probe):
    """How large the mean over sequences of the gradient at lag k is, against its standard error.

    An input at lag k teaches the network through the input weights by u_{k,b} = x_tᵀ dℓ_b/da_t at t = τ_b − k, where
    a_t = x_t W_xh + … are the pre-activations; Σ_k 1/B Σ_b u_{k,b} = dL/dW_xh. A gradient that arrives with a large
    norm may still point elsewhere in every sequence. With m_k the mean of u_{k,b} over the B = `sequences` sequences,
    and

        s_k² = 1/(B (B − 1)) Σ_b ‖u_{k,b} − m_k‖²

    the square of its standard error, the reading is ‖m_k‖/s_k: 1 is what noise alone yields (E ‖m_k‖² = ‖μ_k‖² + s_k²).
    An untrained readout errs in the same direction in every sequence; this common part, too, is a signal, at every lag.
    So the lags of informative inputs are to be compared with the others. A batch of n sequences is expected to have as
    much signal as noise at n = B/((‖m_k‖/s_k)² − 1).

    Readings of the lowest layer, which reads the inputs, by lag, on fixed sequences, for the loss of the last
    supervised step τ_b alone, with `_initial` or `_final` appended outside training: `signal/W_xh`, log10 ‖m_k‖;
    `signal/W_xh_to_noise`, log10 (‖m_k‖/s_k); `signal/W_xh_halves`, the cosine between the means of the two halves of
    the sequences. Absent where fewer than half of the sequences have that lag, and where all u_{k,b} are zero. Summary:
    `signal_to_noise_<stage>`, the median of ‖m_k‖/s_k over the lags of informative inputs.

    Read only of cells whose input enters as x_t W_xh, the same weights at every step.

    Source: the ratio as in McCandlish et al. 2018, "An empirical model of large-batch training", appendix A.1; by lag,
    this project.
    """

    source: ClassVar[str] = "McCandlish et al. 2018, appendix A.1 (gradient noise scale); by lag: this project"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(4)] = 128

    def read(self, moment: Moment) -> list[Reading]:
        batch = moment.side_batch(self.sequences)
        [(label, layer), *_] = batch.labelled_layers()
        if type(layer.unroll.cell).project is not Cell.project:
            return []
        log_means, ratios, halves = signal_by_lag(layer, batch)
        name = f"signal/{label('W_xh')}"
        readings = [
            Reading(moment.curve(name), log_means.T, ("lag",), "log10"),
            Reading(moment.curve(f"{name}_to_noise"), ratios.log10().T, ("lag",), "log10"),
            Reading(moment.curve(f"{name}_halves"), halves.T, ("lag",), "cosine"),
        ]
        if moment.stage != "training" and batch.informative is not None:
            at_informative = torch.where(informative_lags(batch), ratios, torch.nan)
            summary = torch.nanquantile(at_informative, 0.5, dim=0)
            readings.append(Reading(moment.named("signal_to_noise"), summary, (), "ratio"))
        return readings


def signal_by_lag(layer: ScaledTrajectory, batch: BackwardPass) -> tuple[Tensor, Tensor, Tensor]:
    """log10 ‖m_k‖, ‖m_k‖/s_k and the cosine between the halves' means, each (lag, replica); NaN where absent."""
    gates = layer.gate_gradient()
    log_means, ratios, halves = [], [], []
    for lag in range(batch.time):
        step = batch.last - lag
        exists = step >= 0
        inputs = layer.unroll.dense(at_step(layer.unroll.inputs, step))
        inputs = torch.where(exists.unsqueeze(-1), inputs, 0.0)
        exponent = torch.where(exists, at_step(gates.exponent, step), ZERO_EXPONENT)
        at_gates, shared = BlockFloat(at_step(gates.mantissa, step), exponent).aligned((1,))
        # What is asked of outer products is known from their inner products: (x ⊗ a)·(x′ ⊗ a′) = (x·x′)(a·a′).
        inner = (inputs @ inputs.mT) * (at_gates @ at_gates.mT)
        mean, ratio, cosine = mean_against_error(inner, exists)
        log_means.append(mean.log10() + shared.squeeze(1).double() * LOG10_2)
        ratios.append(ratio)
        halves.append(cosine)
    return torch.stack(log_means), torch.stack(ratios), torch.stack(halves)


def mean_against_error(
    inner: Float[Tensor, "replica batch batch"], exists: Bool[Tensor, "replica batch"]
) -> tuple[Float[Tensor, " replica"], Float[Tensor, " replica"], Float[Tensor, " replica"]]:
    """‖m‖, ‖m‖/s, and the cosine of the two halves' means, of vectors known by their inner products.

    `inner` is zero where a vector does not exist. NaN where fewer than half exist, or where all are zero.
    """
    count = exists.sum(-1).double()
    squares = inner.diagonal(dim1=-2, dim2=-1).sum(-1)
    mean_square = inner.sum((-2, -1)) / count**2
    # Rounding can make either difference slightly negative.
    error_square = ((squares / count - mean_square) / (count - 1)).clamp(min=0)
    half = inner.shape[-1] // 2
    first, second, across = inner[:, :half, :half], inner[:, half:, half:], inner[:, :half, half:]
    cosine = across.sum((-2, -1)) / (first.sum((-2, -1)) * second.sum((-2, -1))).clamp(min=0).sqrt()
    known = (2 * count >= inner.shape[-1]) & (squares > 0)
    mean, ratio = mean_square.clamp(min=0).sqrt(), (mean_square / error_square).clamp(min=0).sqrt()
    return tuple(torch.where(known, value, torch.nan) for value in (mean, ratio, cosine))


def at_step(values: Shaped[Tensor, "time replica batch *within"], step: Int[Tensor, "replica batch"]) -> Tensor:
    """The values (replica, batch, …) at one step of each sequence; those of step 0 for a step before it."""
    index = step.clamp(min=0).view(1, *step.shape, *(1,) * (values.ndim - 3)).expand(1, *values.shape[1:])
    return values.gather(0, index).squeeze(0)


def informative_lags(batch: BackwardPass) -> Bool[Tensor, "lag replica"]:
    """True at the lags at which some sequence has an informative input."""
    assert batch.informative is not None
    lags = torch.arange(batch.time, device=batch.last.device)[:, None, None]
    step = batch.last - lags
    return (batch.informative.gather(0, step.clamp(min=0)) & (step >= 0)).any(-1)
