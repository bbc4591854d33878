"""The fixed points of a single unit, and where it has two stable states. Computed, from no run."""

import numpy as np
import pandas as pd

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.single_unit import Array, Unit, fixed_points, saddle_nodes
from rnnstudy.figures.style import BOUND_LINE, house_style

_UNSTABLE = (0, (2, 1.5))


def bifurcation(unit: Unit, *, w: float, b: Array, weights: Array) -> Picture:
    """Left: the fixed points of the unit against its bias, and its state after T steps. Right: where in the plane of
    (w, b) it has two stable states.

    Args:
        unit: its h_0 and T determine the dots.
        w: the weight of the left panel.
        b: the biases of the dots.
        weights: the weights of the right panel.
    """
    curve = fixed_points(w, activation=unit.activation)
    meetings = saddle_nodes(w, activation=unit.activation)
    ends = unit.end(w, b)
    pairs = {float(weight): saddle_nodes(float(weight), activation=unit.activation) for weight in weights}
    inside = np.array([weight for weight, pair in pairs.items() if pair])
    wedge = np.array([[bias for bias, _ in pair] for pair in pairs.values() if pair])
    with house_style():
        figure, (left, right) = panels(2, share_y=False)
        for stable, dash in ((True, "-"), (False, _UNSTABLE)):
            # NaN where the other kind is, so that no line is drawn across it.
            left.plot(np.where(curve.stable == stable, curve.b, np.nan), curve.h, color="black", linestyle=dash)
        for bias, state in meetings:
            left.plot(bias, state, "o", color="black", mfc="white", markersize=9, mew=1.8, zorder=4)
        left.plot(b, ends, ".", color="0.55", markersize=6, zorder=3)
        left.axhline(unit.start, **BOUND_LINE)
        left.axvline(float(unit.cliff(w)), **BOUND_LINE)
        left.text(b[-1], unit.start + 0.02, "start h₀", ha="right", color="0.25", fontsize=10)
        left.set(xlim=(b[0], b[-1]), xlabel=f"bias b (w = {w:g})", ylabel="state h", title="fixed points")
        right.fill_betweenx(inside, wedge[:, 1], wedge[:, 0], color="0.85", linewidth=0)
        right.plot(wedge[:, 0], inside, color="black")
        right.plot(wedge[:, 1], inside, color="black")
        right.plot(unit.cliff(weights), weights, **BOUND_LINE)
        right.axhline(w, color="0.75", linewidth=1)
        right.set(xlabel="bias b", ylabel="recurrent weight w", title="two memories, or one", xlim=(b[0], b[-1]))
        right.set_ylim(weights[0], weights[-1])
        entries = [
            line_entry("stable", color="black"),
            line_entry("unstable", color="black", linestyle=_UNSTABLE),
            line_entry("saddle-node", color="black", marker="o", mfc="white", mew=1.8, markersize=9),
            line_entry(f"h after {unit.steps} steps", color="0.55", marker=".", linestyle="", markersize=9),
            bound_entry("the cliff, closed form", linewidth=1.3),
            patch_entry("two stable states", "0.85"),
        ]
        legend_below(figure, entries)
    caption = (
        f"Left: all h with h = σ(w h + b), at w = {w:g}, and the state of the unit after {unit.steps} steps from h₀ = "
        f"{unit.start:.3f}. Right: the weights and biases for which the unit has two stable states, between the two "
        "curves of saddle-nodes; the thin line is the cut of the left panel. Closed forms, without uncertainty."
    )
    data = pd.concat(
        [
            pd.DataFrame({"what": np.where(curve.stable, "stable", "unstable"), "w": w, "b": curve.b, "h": curve.h}),
            pd.DataFrame([{"what": "saddle-node", "w": w, "b": bias, "h": state} for bias, state in meetings]),
            pd.DataFrame({"what": f"after {unit.steps} steps", "w": w, "b": b, "h": ends}),
            *(pd.DataFrame({"what": "saddle-node", "w": inside, "b": wedge[:, side]}) for side in (0, 1)),
            pd.DataFrame({"what": "cliff", "w": weights, "b": unit.cliff(weights)}),
        ],
        ignore_index=True,
    )
    return Picture(figure, data, (), caption)
