"""The wall in the loss of a single unit, for several sequence lengths. Computed, from no run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import bound_entry, legend_below, length_entries
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.single_unit import Array, Unit
from rnnstudy.figures.style import BOUND_LINE, house_style, length_line

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def wall_by_length(unit: Unit, *, w: float, distances: Array, lengths: Sequence[int]) -> Picture:
    """Loss and log10 of its gradient along the bias, at one weight, for several T: how the wall gets steeper.

    Args:
        unit: its start, target and activation.
        w: the weight of the cut.
        distances: b minus the bias of the cliff, in rising order; drawn on a scale that is logarithmic on both sides.
        lengths: T, one line each.
    """
    b = float(unit.cliff(w)) + distances
    parts = []
    for length in lengths:
        longer = replace(unit, steps=length)
        norm = np.hypot(*longer.gradient(w, b))
        # The gradient is exactly zero at the bottom of the valley.
        log_norm = np.log10(norm, out=np.full_like(norm, np.nan), where=norm > 0)
        columns = {"length": length, "w": w, "b": b, "distance": distances, "loss": longer.loss(w, b)}
        parts.append(pd.DataFrame({**columns, "log10_gradient_norm": log_norm}))
    data = pd.concat(parts, ignore_index=True)
    nearest = float(np.abs(distances[distances != 0]).min())
    linear = f"±10{str(round(np.log10(10 * nearest))).translate(_RAISED)}"
    decades = np.array([-1e-1, -1e-4, -1e-7, 1e-7, 1e-4, 1e-1])
    words = ["−0.1", "−10⁻⁴", "−10⁻⁷", "10⁻⁷", "10⁻⁴", "0.1"]
    with house_style():
        figure, axes = panels(2, share_y=False)
        for axis, column in zip(axes, ("loss", "log10_gradient_norm"), strict=True):
            for length in lengths:
                chosen = data[data["length"] == length]
                line: dict[str, Any] = {**length_line(lengths, length, "0.5"), "marker": ""}
                axis.plot(chosen["distance"], chosen[column], **line)
            axis.set_xscale("symlog", linthresh=10 * nearest, linscale=0.3)
            axis.set_xticks(decades, words)
            axis.minorticks_off()
            axis.axvline(0, **BOUND_LINE)
            axis.set_xlabel(f"bias b, from the cliff (logarithmic\non both sides, linear within {linear})")
        axes[0].set(ylabel="loss L (no unit)", title=f"the loss at w = {w:g}")
        axes[1].set(ylabel="log₁₀ ‖(∂L/∂w, ∂L/∂b)‖", title="its gradient", ylim=(-3, None))
        cliff = bound_entry("the cliff, closed form", linewidth=1.3)
        legend_below(figure, [*length_entries(lengths, marker=""), cliff])
    caption = (
        f"A cut through the loss at w = {w:g}, for sequences of {', '.join(map(str, lengths))} steps, against the "
        f"distance from the cliff (b = {float(unit.cliff(w)):.3f}), on a scale that is logarithmic on both sides of it "
        f"and linear within {linear}; right: log₁₀ of the norm of its gradient. Computed "
        "exactly, without uncertainty."
    )
    return Picture(figure, data, (), caption)
