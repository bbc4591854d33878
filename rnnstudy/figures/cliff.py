"""The cliff in the loss of a single recurrent unit, gradient descent on it, and the bifurcation behind it.

These figures are computed, not measured: they are made from no run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from rnnstudy.cliff import Array, Descent, Unit, fixed_points, saddle_nodes
from rnnstudy.figures.house import BOUND, HEAT, legend_below, length_handle, length_line, look, panels
from rnnstudy.figures.picture import Picture

_DASHED = (0, (4, 2))


def loss_surface(
    unit: Unit,
    paths: Mapping[str, Descent],
    many: Mapping[str, Descent],
    *,
    w: Array,
    b: Array,
    learning_rate: float,
    threshold: float,
    low: float = 0.01,
) -> Picture:
    """The loss over the plane of (w, b) with two paths of gradient descent on it, and how many of many paths get low.

    Args:
        unit: whose loss.
        paths: name to path from one starting point, the one without clipping first.
        many: the same names, each with the paths from many starting points.
        w, b: the grid: its columns and its rows.
        learning_rate, threshold: of the paths, for the caption.
        low: a loss below this counts as low.
    """
    surface = unit.loss(w[None, :], b[:, None])
    shares = {name: np.mean(paths.loss.reshape(len(paths.loss), -1) < low, axis=1) for name, paths in many.items()}
    with look():
        figure, (left, right) = panels(2, height=4.6, share_y=False)
        mesh = left.pcolormesh(w, b, surface, cmap=HEAT, rasterized=True, shading="nearest")
        figure.colorbar(mesh, ax=left, pad=0.02, aspect=28, label="loss L (no unit)", ticks=MaxNLocator(5))
        left.plot(w, unit.cliff(w), color="white", linestyle=_DASHED, linewidth=1.3)
        for (name, path), colour, edge in zip(paths.items(), ("black", "white"), ("white", "black"), strict=True):
            around = [Stroke(linewidth=3.6, foreground=edge), Normal()]
            left.plot(path.w, path.b, color=colour, linewidth=1.8, path_effects=around)
            left.plot(path.w[:1], path.b[:1], "o", color=colour, markersize=7, mec=edge)
            _end(left, path, colour, edge, (w[0], w[-1]), (b[0], b[-1]))
            line: dict[str, Any] = {"color": "black"} if colour == "black" else {"color": "0.5", "linestyle": _DASHED}
            right.plot(100 * shares[name], **line)
        left.set(xlim=(w[0], w[-1]), ylim=(b[0], b[-1]), xlabel="recurrent weight w", ylabel="bias b")
        left.set_title(f"loss at T = {unit.steps}")
        left.grid(False)
        right.set(ylim=(-3, 103), xlabel="updates made", ylabel=f"starting points with L < {low:g} (%)")
        right.set_title("from everywhere")
        first, second = paths
        outlined = {"marker": "o", "mec": "black", "markersize": 8}
        handles = [
            Line2D([], [], color="black", **outlined, label=f"{first} (black)"),
            Line2D([], [], color="0.5", linestyle=_DASHED, mfc="white", **outlined, label=f"{second} (white at left)"),
            Line2D([], [], color="0.7", linestyle=_DASHED, linewidth=1.3, label="the cliff, closed form"),
        ]
        legend_below(figure, handles)
    count = next(iter(many.values())).loss[0].size
    caption = (
        f"The unit hₜ = σ(w hₜ₋₁ + b), h₀ = {unit.start:.3f}, loss (h_T − {unit.target:g})², T = {unit.steps} "
        f"(Pascanu, Mikolov & Bengio 2013, Figure 6). Left: both descents start at the same dot with step size "
        f"{learning_rate:g}; one rescales a gradient longer than {threshold:g} to that norm. The star is an end, the "
        f"arrow leaves the picture. Right: share of {count} starting points on an even grid, all of them, so that "
        f"nothing is uncertain. Computed exactly."
    )
    moments = [
        pd.DataFrame(
            {
                "path": name,
                "update": np.arange(len(path.w)),
                "w": path.w,
                "b": path.b,
                "loss": path.loss,
                "gradient_norm": path.gradient_norm,
                "share_low": shares[name],
            }
        )
        for name, path in paths.items()
    ]
    rows, columns = (part.ravel() for part in np.meshgrid(b, w, indexing="ij"))
    ground = pd.DataFrame({"path": "surface", "w": columns, "b": rows, "loss": surface.ravel()})
    return Picture(figure, pd.concat([*moments, ground], ignore_index=True), (), caption)


def _end(
    axis: Axes, path: Descent, colour: str, edge: str, across: tuple[float, float], upwards: tuple[float, float]
) -> None:
    """A star where a path ends, or an arrow where it leaves the picture for good."""
    places = np.column_stack([path.w, path.b])
    low, high = np.array([across[0], upwards[0]]), np.array([across[1], upwards[1]])
    inside = np.all((places >= low) & (places <= high), axis=1)
    if inside[-1]:
        axis.plot(*places[-1], "*", color=colour, markersize=14, mec=edge)
        return
    last = int(np.flatnonzero(inside)[-1])
    here, step = places[last], places[last + 1] - places[last]
    moving = step != 0
    # As far along the step as the nearest border it meets.
    reach = float(np.min((np.where(step > 0, high, low) - here)[moving] / step[moving]))
    arrow = {"arrowstyle": "-|>", "facecolor": colour, "edgecolor": edge, "mutation_scale": 24, "shrinkB": 0}
    axis.annotate("", xy=tuple(here + reach * step), xytext=tuple(here + 0.8 * reach * step), arrowprops=arrow)


def wall_by_length(unit: Unit, *, w: float, distances: Array, lengths: Sequence[int]) -> Picture:
    """Loss and log10 of its gradient along the bias, at one weight, for several T: how the wall gets steeper.

    Args:
        unit: its start, target and activation.
        w: the weight of the cut.
        distances: b minus the cliff's bias, rising, drawn on a scale that is logarithmic to both sides.
        lengths: T, one line each.
    """
    b = float(unit.cliff(w)) + distances
    parts = []
    for length in lengths:
        one = replace(unit, steps=length)
        norm = np.hypot(*one.gradient(w, b))
        # The gradient is exactly zero at the bottom of the valley.
        log_norm = np.log10(norm, out=np.full_like(norm, np.nan), where=norm > 0)
        columns = {"length": length, "w": w, "b": b, "distance": distances, "loss": one.loss(w, b)}
        parts.append(pd.DataFrame({**columns, "log10_gradient_norm": log_norm}))
    data = pd.concat(parts, ignore_index=True)
    nearest = float(np.abs(distances[distances != 0]).min())
    decades = np.array([-1e-1, -1e-4, -1e-7, 1e-7, 1e-4, 1e-1])
    words = ["−0.1", "−10⁻⁴", "−10⁻⁷", "10⁻⁷", "10⁻⁴", "0.1"]
    with look():
        figure, axes = panels(2, share_y=False)
        for axis, column in zip(axes, ("loss", "log10_gradient_norm"), strict=True):
            for length in lengths:
                chosen = data[data["length"] == length]
                line: dict[str, Any] = {**length_line(list(lengths), length, "0.5"), "marker": ""}
                axis.plot(chosen["distance"], chosen[column], **line)
            axis.set_xscale("symlog", linthresh=10 * nearest, linscale=0.3)
            axis.set_xticks(decades, words)
            axis.minorticks_off()
            axis.axvline(0, color=BOUND, linestyle=_DASHED, linewidth=1.3)
            axis.set_xlabel("bias b, from the cliff")
        axes[0].set(ylabel="loss L (no unit)", title=f"the loss at w = {w:g}")
        axes[1].set(ylabel="log₁₀ ‖(∂L/∂w, ∂L/∂b)‖", title="its gradient", ylim=(-3, None))
        handles = [length_handle(list(lengths), length) for length in lengths]
        for handle in handles:
            handle.set_marker("")
        handles.append(Line2D([], [], color=BOUND, linestyle=_DASHED, linewidth=1.3, label="the cliff, closed form"))
        legend_below(figure, handles)
    caption = (
        f"A cut through the loss at w = {w:g}, for sequences of {', '.join(map(str, lengths))} steps, against the "
        f"distance from the cliff (b = {float(unit.cliff(w)):.3f}); right: log₁₀ of the norm of its gradient. Computed "
        "exactly; nothing is uncertain here."
    )
    return Picture(figure, data, (), caption)


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
    with look():
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
