import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rnnstudy.figures.cliff import _DASHED
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.single_unit import Array, Unit, fixed_points, saddle_nodes
from rnnstudy.figures.style import BOUND, house_style, legend_below, panels


def bifurcation(unit: Unit, *, w: float, b: Array, weights: Array) -> Picture:
    """The fixed points of the unit against its bias, with where it is after T steps; and where in (w, b) it has two.

    Args:
        unit: whose fixed points; its h_0 and T give the dots.
        w: the weight of the left panel.
        b: the biases of the dots.
        weights: the weights of the right panel.
    """
    curve = fixed_points(w, activation=unit.activation)
    meetings = saddle_nodes(w, activation=unit.activation)
    ends = unit.end(w, b)
    pairs = {float(one): saddle_nodes(float(one), activation=unit.activation) for one in weights}
    inside = np.array([one for one, pair in pairs.items() if pair])
    wedge = np.array([[bias for bias, _ in pair] for pair in pairs.values() if pair])
    with house_style():
        figure, (left, right) = panels(2, share_y=False)
        for stable, dash in ((True, "-"), (False, (0, (2, 1.5)))):
            # A gap where the other kind begins, so that no line is drawn across it.
            left.plot(np.where(curve.stable == stable, curve.b, np.nan), curve.h, color="black", linestyle=dash)
        for bias, state in meetings:
            left.plot(bias, state, "o", color="black", mfc="white", markersize=9, mew=1.8, zorder=4)
        left.plot(b, ends, ".", color="0.55", markersize=6, zorder=3)
        left.axhline(unit.start, color=BOUND, linestyle=_DASHED, linewidth=1.3)
        left.axvline(float(unit.cliff(w)), color=BOUND, linestyle=_DASHED, linewidth=1.3)
        left.text(b[-1], unit.start + 0.02, "start h₀", ha="right", color="0.25", fontsize=10)
        left.set(xlim=(b[0], b[-1]), xlabel=f"bias b (w = {w:g})", ylabel="state h", title="fixed points")
        right.fill_betweenx(inside, wedge[:, 1], wedge[:, 0], color="0.85", linewidth=0)
        right.plot(wedge[:, 0], inside, color="black")
        right.plot(wedge[:, 1], inside, color="black")
        right.plot(unit.cliff(weights), weights, color=BOUND, linestyle=_DASHED, linewidth=1.3)
        right.axhline(w, color="0.75", linewidth=1)
        right.set(xlabel="bias b", ylabel="recurrent weight w", title="two memories, or one", xlim=(b[0], b[-1]))
        right.set_ylim(weights[0], weights[-1])
        handles = [
            Line2D([], [], color="black", label="stable"),
            Line2D([], [], color="black", linestyle=(0, (2, 1.5)), label="unstable"),
            Line2D([], [], color="black", marker="o", mfc="white", mew=1.8, markersize=9, label="saddle-node"),
            Line2D([], [], color="0.55", marker=".", linestyle="", markersize=9, label=f"h after {unit.steps} steps"),
            Line2D([], [], color=BOUND, linestyle=_DASHED, linewidth=1.3, label="the cliff, closed form"),
            Patch(color="0.85", label="two stable states"),
        ]
        legend_below(figure, handles)
    caption = (
        f"Left: all h with h = σ(w h + b), at w = {w:g}, and where the unit is after {unit.steps} steps from h₀ = "
        f"{unit.start:.3f}. Right: the weights and biases for which the unit has two stable states, between the two "
        "curves of saddle-nodes; the thin line is the cut of the left panel. Closed forms; nothing is uncertain here."
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
