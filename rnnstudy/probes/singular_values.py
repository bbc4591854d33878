"""The singular values of the product of Jacobians, for the complete state and for each path."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.engines.block_float import LOG10_2, BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import BackwardPass, Moment, Probe, batch_quantiles
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class SingularValues(Probe):
    """log10 of the singular values of ∂s_τ/∂s_t, with τ the last supervised step, at lags τ − t = 1, 2, 4, ….

    ∂s_τ/∂s_t = J_τ J_{τ−1} ⋯ J_{t+1}, with J_t = ∂s_t/∂s_{t−1} and s all states of a layer side by side: for the LSTM
    the joint state (c, h) (`joint`). For a cell with several states also the path of each state alone (`c`, `h`): the
    product of the blocks ∂c_t/∂c_{t−1} with h_{t−1} held fixed (the cell path: for the LSTM diag(f_t)), and of
    ∂h_t/∂h_{t−1} with c_{t−1} held fixed (the hidden path). The inputs of a layer are held fixed.

    Readings on `sequences` fixed sequences, quantiles over them: `singular_values/joint` (or `/h` for a single state)
    over axes `quantile`, `index` (largest first, from 0) and `lag`, in log10; `_initial` or `_final` appended outside
    training. The longest lag that the task's sequences can have is always included. The product has a separate
    exponent, so its size is not limited by float64; but a singular value below 10⁻¹² of the largest is rounding error:
    it ranks lowest, and is absent.

    Source: Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013, equation 5; Pennington, Schoenholz & Ganguli
    2017 for the spectrum.
    """

    source: ClassVar[str] = "Bengio et al. 1994; Pascanu et al. 2013, eq. 5; Pennington et al. 2017"
    needs_jacobians: ClassVar[bool] = True

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 4

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        lags = powers_of_two(batch.time - 1)
        coordinates = {"lag": tuple(float(lag) for lag in lags)}
        for label, layer in batch.labelled_layers():
            for path, logs in spectra(layer, batch, lags).items():
                flat = logs.flatten(0, 1)
                quantiles = batch_quantiles(flat, ~flat.isnan())
                values = quantiles.unflatten(-1, logs.shape[:2]).transpose(-1, -2)
                name = moment.curve(f"singular_values/{label(path)}")
                readings.append(Reading(name, values, ("quantile", "index", "lag"), "log10", coordinates))
        return readings


def powers_of_two(longest: int) -> list[int]:
    """1, 2, 4, … up to `longest`, and `longest` itself; at least 1."""
    return sorted({2**k for k in range(max(1, longest).bit_length())} | {max(1, longest)})


def paths(layer: ScaledTrajectory) -> dict[str, slice]:
    """The paths of a layer, with the part of the joint state that each one uses."""
    widths = layer.widths
    if len(widths) == 1:
        return {name: slice(0, width) for name, width in widths.items()}
    parts, start = {"joint": slice(0, sum(widths.values()))}, 0
    for name, width in widths.items():
        parts[name] = slice(start, start + width)
        start += width
    return parts


def spectra(layer: ScaledTrajectory, batch: BackwardPass, lags: Sequence[int]) -> dict[str, Tensor]:
    """log10 of the singular values of ∂s_τ/∂s_{τ−lag} for each path, (lag, index, replica, batch); NaN where absent."""
    parts = paths(layer)
    products: dict[str, BlockFloat] = {}
    logs: dict[str, list[Tensor]] = {}
    for path, part in parts.items():
        size = part.stop - part.start
        identity = torch.eye(size, dtype=torch.float64, device=batch.last.device).expand(*batch.last.shape, size, size)
        products[path] = BlockFloat.of(identity, 2)
        logs[path] = [identity.new_full((*batch.last.shape, size), torch.nan) for _ in lags]
    time = len(layer.unroll.inputs)
    for t, jacobian in zip(reversed(range(time)), layer.jacobians(backwards=True), strict=True):
        lag = batch.last - t + 1
        for path, part in parts.items():
            products[path] = _times_jacobian(products[path], jacobian[..., part, part], lag >= 1)
            for index, wanted in enumerate(lags):
                if bool((lag == wanted).any()):
                    values = log_singular_values(products[path])
                    logs[path][index] = torch.where((lag == wanted).unsqueeze(-1), values, logs[path][index])
    return {path: torch.stack(logs[path]).permute(0, 3, 1, 2) for path in parts}


def _times_jacobian(product: BlockFloat, jacobian: Tensor, chosen: Tensor) -> BlockFloat:
    """`product` times the Jacobian of one more step back, for the chosen sequences; unchanged for the others."""
    longer = BlockFloat(product.mantissa @ jacobian, product.exponent).normalised()
    return BlockFloat(
        torch.where(chosen[..., None, None], longer.mantissa, product.mantissa),
        torch.where(chosen, longer.exponent, product.exponent),
    )


def log_singular_values(product: BlockFloat) -> Float[Tensor, "replica batch index"]:
    """log10 of the singular values, largest first; −inf below 10⁻¹² of the largest, NaN if `product` is not finite."""
    finite = product.mantissa.isfinite().flatten(2).all(2)[..., None]
    values = torch.linalg.svdvals(torch.where(finite[..., None], product.mantissa, 0.0))
    known = values > 1e-12 * values[..., :1]
    logs = values.log10() + (product.exponent.double() * LOG10_2).unsqueeze(-1)
    return torch.where(known, logs, torch.where(finite, -torch.inf, torch.nan))
