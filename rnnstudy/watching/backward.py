"""The backward pass of one layer in one direction, with an exponent for each sequence: no gradient is too small."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat, power_of_two
from rnnstudy.watching.recurrences import Recurrence

STEPS_BETWEEN_RESCALING = {torch.float32: 4, torch.float64: 24}
"""Steps back after which the gradient's size is brought near 1 again: in so few it does not leave its type's range."""


@dataclass(frozen=True)
class StateGradients:
    """Total derivatives of the loss, blocks (time, batch).

    Attributes:
        h: dL/dh_t, within (output width).
        c: dL/dc_t, within (width), or None.
        delta: dL/da_t with a_t the pre-activations that the inputs enter, within (gates · width).
        log_gain: (time, batch): log10 of ‖(∂s_t/∂s_{t−1})ᵀ G_t‖ / ‖G_t‖, with s_t all states of the step side by side
            and G_t the gradient that arrives at them: what the step back through t does to the gradient's size,
            wherever the loss enters. NaN where nothing arrives.
    """

    h: BlockFloat
    c: BlockFloat | None
    delta: BlockFloat
    log_gain: Tensor


def run_back(recurrence: Recurrence, direct_h: BlockFloat, direct_c: Tensor | None) -> StateGradients:
    """Carry the gradient back through all steps.

    Args:
        recurrence: the factors of every step.
        direct_h: ∂⁺L/∂h_t, what the loss receives from h_t without later steps: blocks (time, batch).
        direct_c: (time, batch, width), the same for c_t; None where the loss receives nothing from it.
    """
    steps, batch, _ = direct_h.mantissa.shape
    dtype = direct_h.mantissa.dtype
    direct_h = direct_h.normalised()
    of_c = BlockFloat.of(direct_c, 2) if direct_c is not None else None
    arrives = (direct_h.exponent > ZERO_EXPONENT).any(-1)
    if of_c is not None:
        arrives |= (of_c.exponent > ZERO_EXPONENT).any(-1)
    arrives_at = arrives.tolist()
    exponent = torch.full((batch,), ZERO_EXPONENT, device=direct_h.exponent.device)
    to_h = torch.zeros_like(direct_h.mantissa[0])
    to_c = to_h.new_zeros(batch, recurrence.width)
    exponents: list[Tensor] = []
    of_h: list[Tensor] = []
    arriving_c: list[Tensor] = []
    departing: list[tuple[Tensor, Tensor]] = []
    totals_c: list[Tensor] = []
    deltas: list[Tensor] = []
    for back, t in enumerate(reversed(range(steps))):
        if arrives_at[t]:
            shared = torch.maximum(exponent, direct_h.exponent[t])
            if of_c is not None:
                shared = torch.maximum(shared, of_c.exponent[t])
            carried = power_of_two(exponent - shared, dtype).unsqueeze(-1)
            added = power_of_two(direct_h.exponent[t] - shared, dtype).unsqueeze(-1)
            to_h = torch.addcmul(to_h * carried, direct_h.mantissa[t], added)
            to_c = to_c * carried
            if of_c is not None:
                to_c = torch.addcmul(
                    to_c, of_c.mantissa[t], power_of_two(of_c.exponent[t] - shared, dtype).unsqueeze(-1)
                )
            exponent = shared
        grad_h = to_h
        arriving_c.append(to_c)
        total_c, to_h, to_c, delta = recurrence.step_back(t, grad_h, to_c)
        of_h.append(grad_h)
        totals_c.append(total_c)
        deltas.append(delta)
        exponents.append(exponent)
        departing.append((to_h, to_c))
        if back % STEPS_BETWEEN_RESCALING[dtype] == 0:
            largest = torch.maximum(to_h.abs().amax(-1), to_c.abs().amax(-1))
            shift = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0).long()
            scale = power_of_two(-shift, dtype).unsqueeze(-1)
            to_h, to_c = to_h * scale, to_c * scale
            exponent = torch.where(largest == 0, ZERO_EXPONENT, exponent + shift)

    def stacked(values: list[Tensor]) -> BlockFloat:
        return BlockFloat(torch.stack(values[::-1]), torch.stack(exponents[::-1]))

    arriving = _log_norm(of_h, arriving_c)
    log_gain = torch.where(arriving.isneginf(), torch.nan, _log_norm(*zip(*departing, strict=True)) - arriving)
    c = stacked(totals_c) if recurrence.has_cell else None
    return StateGradients(stacked(of_h), c, stacked(deltas), log_gain)


def _log_norm(*of_states: Sequence[Tensor]) -> Tensor:
    """log10 of the norm of all states together (time, batch), from values (batch, width), the last step first."""
    norms = [torch.linalg.vector_norm(torch.stack(values[::-1]), dim=-1, dtype=torch.float64) for values in of_states]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0).log10()
