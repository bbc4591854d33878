# ---
# jupyter:
#   rnnstudy:
#     order: 64
#     experiments: []
# ---

# %% [markdown]
# # The curse of memory: a unit that remembers long is sensitive, even where no gradient explodes
#
# A gradient that neither vanishes nor explodes is not yet harmless. Take one linear unit, h_t = λ h_{t−1} + γ x_t with
# 0 < λ < 1. Nothing in it can explode, and it remembers for about 1/(1 − λ) steps. But every step uses λ, so that a
# small change of λ adds up over all the steps that the unit remembers: ∂h/∂λ is the sum of k λ^{k−1} γ x_{t−k} over k.
#
# For white inputs of variance 1 and r = λ², its mean square is (1 + r)/(1 − r)³ with γ = 1, the third power of the
# memory (Zucchet & Orvieto 2024). The LRU (Orvieto et al. 2023) changes two things: γ = √(1 − λ²), which keeps the size
# of the state independent of λ, and λ = exp(−exp(ν)), so that a step in ν changes the memory by a factor. What does
# each of them do? No stored run is used on this page: everything is computed here.

# %%
import math

import numpy as np
import pandas as pd
import torch

from rnnstudy import figures
from rnnstudy.cells import LRU
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes.recurrence_sensitivity import sensitivities
from rnnstudy.report import Notebook

here = Notebook("curse_of_memory")
STEPS, SEQUENCES, UNITS, LONGEST = 700, 128, 12, 100
factors = 1 - torch.logspace(math.log10(0.5), -math.log10(LONGEST), UNITS, dtype=torch.float64)
white = torch.randn(STEPS, 1, SEQUENCES, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

# %% [markdown]
# ## Measured, and in closed form
#
# The probe `RecurrenceSensitivity` reads an untrained LRU of `rnnstudy.cells` with real factors λ, whose units are read
# one by one, on white inputs. By λ: the derivative of the last state with respect to λ, with γ held fixed. By ν: with
# respect to ν, counting that γ changes with it.


# %%
def by_unit(normalisation: str) -> dict[str, torch.Tensor]:
    """What the probe reads of real, independent units, each of which is an output."""
    cell, unit = LRU(width=UNITS, normalisation=normalisation), torch.eye(UNITS, dtype=torch.float64)
    parameters = {
        "W_B": torch.cat([torch.ones(1, UNITS), torch.zeros(1, UNITS)], dim=-1),
        "nu": (-factors.log()).log(),
        # An angle of exp(−700): the factors are real.
        "theta": torch.full((UNITS,), -700.0),
        "W_C": torch.cat([unit, torch.zeros_like(unit)]),
        "W_D": torch.zeros(1, UNITS),
    }
    own = {name: value.double().unsqueeze(0).requires_grad_() for name, value in parameters.items()}
    widths = {state: cell.state_width(state, UNITS) for state in cell.states}
    trajectory = ScaledEngine().unroll(cell, own, white, widths=widths, observed=True, steps=[STEPS - 1])
    trajectory.outputs.sum().backward()
    return {name: values[0] for name, values in sensitivities(trajectory).items()}


rows = []
for scaled in (False, True):
    read = by_unit("exact" if scaled else "none")
    for reparametrised in (False, True):
        case = f"{'γ = √(1 − λ²)' if scaled else 'γ = 1'}, by {'ν' if reparametrised else 'λ'}"
        for factor, value in zip(read["modulus"], read["nu" if reparametrised else "factor"], strict=True):
            rows.append({"case": case, "scaled": scaled, "reparametrised": reparametrised, "factor": float(factor),
                         "log10_sensitivity": float(value)})  # fmt: skip
picture = figures.curse_of_memory(pd.DataFrame(rows))
off = (picture.data["log10_sensitivity"] - picture.data["log10_closed_form"]).abs().max()
ends = {
    case: own.sort_values("memory")[["memory", "log10_sensitivity"]].iloc[[0, -1]].to_numpy()
    for case, own in picture.data.groupby("case", sort=False)
}
growth = {case: 10 ** (last[1] - first[1]) for case, (first, last) in ends.items()}
told = "; ".join(f"{case}: {times:,.1f} times" for case, times in growth.items())
here.show(
    picture,
    "curse_of_memory",
    title="The curse of memory: scale and parametrisation each lift a part of it, together all of it",
    takeaway=f"""From a memory of 2 steps to one of {LONGEST}, the root mean square of the derivative grows: {told}. No
    dot is further than {off:.2f} decades from its closed form; with {SEQUENCES} sequences a dot is uncertain by about
    {2 / math.sqrt(2 * SEQUENCES) / math.log(10):.2f} decades (two standard errors).""",
)

# %% [markdown]
# As λ → 1 the lines rise as the memory to the power 3/2 (γ = 1, by λ), 1 (γ = √(1 − λ²), by λ) and 1/2 (γ = 1, by ν);
# the last one tends to a constant, ½. The same numbers:

# %%
table = picture.data.assign(
    measured=10 ** picture.data["log10_sensitivity"], closed_form=10 ** picture.data["log10_closed_form"]
)
chosen = table.groupby("case", sort=False).nth([0, UNITS // 2, UNITS - 1])
here.table(
    pd.DataFrame(
        {
            "case": chosen["case"],
            "memory (steps)": chosen["memory"].round(1),
            "measured": [f"{value:.3g}" for value in chosen["measured"]],
            "closed form": [f"{value:.3g}" for value in chosen["closed_form"]],
        }
    )
)
power = {case: float(np.log10(times) / math.log10(LONGEST / 2)) for case, times in growth.items()}
here.say(
    "Over the whole range measured, the power of the memory is on average "
    + "; ".join(f"{value:.2f} ({case})" for case, value in power.items())
    + "."
)

# %% [markdown]
# ## What this does not show
#
# One untrained linear layer with real factors, white inputs, and the sensitivity of a state rather than of a loss: with
# correlated inputs, or complex factors, the constants are others. That a steep direction makes training harder is
# plausible, since one learning rate serves all directions; it was not tried here, and Adam rescales each parameter's
# step by itself. The probe reads the same numbers, of the loss, of any LRU or S4D that is trained:
# `rnnstudy probe KEY RecurrenceSensitivity`.
