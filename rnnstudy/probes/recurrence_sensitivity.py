"""How much the loss changes with the parameters of a diagonal recurrence, against how long each unit remembers."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.cells.diagonal import DiagonalCell
from rnnstudy.engines.engine import as_rows
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least


class RecurrenceSensitivity(Probe):
    """The size of dℓ/dθ for every number θ of a diagonal recurrence, unit by unit: the curse of memory.

    Of a recurrence s_t = λ ⊙ s_{t−1} + γ ⊙ u_t whose factors λ do not depend on the input (LRU, S4D), unit n remembers
    for about 1/(1 − |λ_n|) steps. Even where no gradient explodes, the loss becomes more sensitive to λ_n the longer
    that is. For white u of variance 1 and a real λ, with r = λ² and T → ∞,

        E h² = 1/(1 − r),     E (∂h/∂λ)² = (1 + r)/(1 − r)³                                      γ = 1
        E h² = 1,             E (∂h/∂λ)² = 1/(1 − r)²,   E (∂h/∂ν)² = r (log λ)²/(1 − r)² → ¼     γ = √(1 − r)

    so that the scale γ takes a part of it, and λ = exp(−exp(ν)) the rest. Read are, over `sequences` fixed sequences b
    and for the loss of the last supervised step of each,

        √(1/B Σ_b |dℓ_b/dλ_n|²)  with γ held fixed,    √(1/B Σ_b (dℓ_b/dθ_n)²)  for every diagonal θ with one number
                                                        for each unit (ν, θ and log γ of an LRU), γ included

    where dℓ_b/dλ_n = Σ_t conj(s_{t−1,n}) dℓ_b/ds_{t,n}; the modulus of a complex number counts both its parts.

    Readings, by `index`, the units in the order of |λ_n|, smallest first, with `_initial` or `_final` appended outside
    training: `sensitivity/modulus`, |λ_n|; `sensitivity/factor` and `sensitivity/nu` and so on, log10. An exact zero is
    absent. Of cells whose factors depend on the input nothing is read.

    Source: Zucchet & Orvieto 2024 (vanishing and exploding gradients are not the end of the story), section 3; Li et
    al. 2021 for the name.
    """

    source: ClassVar[str] = "Zucchet & Orvieto 2024, section 3 (the curse of memory)"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(1)] = 32

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        for label, layer in batch.labelled_layers():
            for name, values in sensitivities(layer).items():
                curve, unit = moment.curve(f"sensitivity/{label(name)}"), "" if name == "modulus" else "log10"
                readings.append(Reading(curve, values, ("index",), unit))
        return readings


def sensitivities(layer: ScaledTrajectory) -> dict[str, Float[Tensor, "replica units"]]:
    """`modulus`, `factor` and each diagonal parameter: |λ|, and log10 of the root mean square over the sequences.

    Units are in the order of their modulus. Empty for a cell whose factors depend on the input.
    """
    cell = layer.unroll.cell
    moduli = cell.fixed_moduli(layer.unroll.parameters) if isinstance(cell, DiagonalCell) else None
    if moduli is None:
        return {}
    found = {"factor": _of_factors(layer)} | _of_parameters(layer, moduli.shape[-1])
    logarithms = {name: square.sqrt().log10() for name, square in found.items()}
    measured = {name: torch.where(values.isfinite(), values, torch.nan) for name, values in logarithms.items()}
    order = moduli.argsort(dim=-1, stable=True)
    return {name: values.gather(-1, order) for name, values in ({"modulus": moduli} | measured).items()}


def _of_factors(layer: ScaledTrajectory) -> Float[Tensor, "replica units"]:
    """The mean over sequences of |dℓ_b/dλ_n|²."""
    cell = layer.unroll.cell
    assert isinstance(cell, DiagonalCell)
    before, gradient = layer.states(cell.states[0])[:-1], layer.gradient(cell.states[0])
    if not cell.complex_state:
        return (before * gradient).sum(0).square().mean(1)
    (s_re, s_im), (g_re, g_im) = before.chunk(2, dim=-1), gradient.chunk(2, dim=-1)
    by_real, by_imaginary = (g_re * s_re + g_im * s_im).sum(0), (g_im * s_re - g_re * s_im).sum(0)
    return (by_real.square() + by_imaginary.square()).mean(1)


def _of_parameters(layer: ScaledTrajectory, units: int) -> dict[str, Tensor]:
    """The mean over sequences of (dℓ_b/dθ_n)², of each diagonal parameter with one number for each unit."""
    unroll = layer.unroll
    cell, (time, replicas, sequences, _) = unroll.cell, unroll.inputs.shape

    def rows(values: Tensor) -> Tensor:
        """(time, replica, batch, …) → (replica · batch, time, …): each sequence has parameters of its own."""
        return values.permute(1, 2, 0, 3).reshape(replicas * sequences, time, -1)

    leaves = {name: value.repeat_interleave(sequences, 0).requires_grad_() for name, value in unroll.parameters.items()}
    diagonal = [
        name for name, item in cell.parameters(1, 1).items() if item.role == "diagonal" and item.shape == (units,)
    ]
    if not diagonal:
        return {}
    inputs = unroll.by_time(unroll.dense(as_rows(unroll.inputs)))
    states = {name: rows(layer.states(name)[:-1]) for name in cell.states}
    with torch.enable_grad():
        projected = cell.project(leaves, rows(inputs))
        after = cell.step(cell.prepared(leaves), projected, states, lambda _, value: value)
    arriving = unroll.split(layer.arriving().values())
    gradients = torch.autograd.grad(
        list(after.values()), [leaves[name] for name in diagonal], [rows(arriving[name]) for name in after]
    )
    return {
        name: gradient.unflatten(0, (replicas, sequences)).square().mean(1)
        for name, gradient in zip(diagonal, gradients, strict=True)
    }
