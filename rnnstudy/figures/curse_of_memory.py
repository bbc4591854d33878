"""The curse of memory: how the sensitivity to a unit's factor grows with its memory, and what takes it away."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import numpy as np
import pandas as pd

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import STYLES, house_style

__all__ = ["curse_of_memory", "sensitivity_to_factor"]

COLOURS = tuple(STYLES[cell].colour for cell in ("Elman", "Jordan", "GRU", "LSTM"))
MARKERS = ("s", "D", "^", "o")


def sensitivity_to_factor(factor: np.ndarray, *, scaled: bool, reparametrised: bool) -> np.ndarray:
    """√E (∂h/∂θ)² of h_t = λ h_{t−1} + γ x_t for white x of variance 1 and T → ∞, as a function of λ in (0, 1).

    With r = λ², and θ = λ or, where `reparametrised`, θ = ν with λ = exp(−exp(ν)), so that ∂λ/∂ν = λ log λ:

        γ = 1:                          E (∂h/∂λ)² = (1 + r)/(1 − r)³,   E (∂h/∂ν)² = r (log λ)² (1 + r)/(1 − r)³
        γ = √(1 − r), where `scaled`:   E (∂h/∂λ)² = (1 + r)/(1 − r)²,   E (∂h/∂ν)² = r (log λ)²/(1 − r)²

    where ∂h/∂λ holds γ fixed, and ∂h/∂ν counts that γ changes with ν. Source: Zucchet & Orvieto 2024, section 3.
    """
    r = factor**2
    slope = r * np.log(factor) ** 2 if reparametrised else 1.0
    change = 1 / (1 - r) ** 2 if scaled and reparametrised else (1 + r) / (1 - r) ** (2 if scaled else 3)
    return np.sqrt(slope * change)


def curse_of_memory(measured: pd.DataFrame) -> Picture:
    """The sensitivity of a unit's state against its memory 1/(1 − λ), measured as dots, in closed form as lines.

    Args:
        measured: a row for each unit and case: `case` (its name), `scaled` and `reparametrised` as in
            `sensitivity_to_factor`, `factor` (λ), and `log10_sensitivity`, log10 of the root mean square.
    """
    cases = measured.drop_duplicates("case")[["case", "scaled", "reparametrised"]]
    data = measured.copy()
    data["memory"] = 1 / (1 - data["factor"])
    closed = [
        sensitivity_to_factor(np.array([row.factor]), scaled=row.scaled, reparametrised=row.reparametrised)[0]
        for row in data.itertuples()
    ]
    data["log10_closed_form"] = np.log10(closed)
    grid = 1 - np.logspace(np.log10(1 - data["factor"].min()), np.log10(1 - data["factor"].max()), 200)
    with house_style():
        figure, [axis] = panels(1, height=4.6)
        for case, colour, marker in zip(cases.itertuples(), COLOURS, MARKERS, strict=False):
            line = sensitivity_to_factor(grid, scaled=case.scaled, reparametrised=case.reparametrised)
            axis.plot(1 / (1 - grid), np.log10(line), color=colour, linewidth=1.6)
            own = data[data["case"] == case.case]
            axis.plot(own["memory"], own["log10_sensitivity"], marker, color=colour, markersize=6, mec="white", mew=0.5)
            axis.annotate(
                case.case, (1 / (1 - grid[-1]), float(np.log10(line[-1]))), xytext=(8, 0), textcoords="offset points",
                color=colour, va="center", annotation_clip=False,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel("memory of a unit, 1/(1 − λ) (steps, logarithmic)")
        axis.set_ylabel("log₁₀ of the root mean square\nof the state's derivative")
        entries = [line_entry("measured, a unit", color="0.35", marker="o", linestyle=""),
                   line_entry("closed form, white inputs", color="0.35")]  # fmt: skip
        legend_below(figure, entries)
    caption = (
        "How much the last state of a linear unit h = λh + γx changes with its parameter, for white inputs, against "
        f"how long it remembers. Dots: the probe RecurrenceSensitivity on {data.groupby('case').size().max()} units; "
        "lines: closed form, without uncertainty."
    )
    return Picture(figure, data.reset_index(drop=True), (), caption)
