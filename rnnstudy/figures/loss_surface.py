"""The loss of a single unit over its two parameters, with gradient descent on it. Computed, from no run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.single_unit import Array, Descent, Unit
from rnnstudy.figures.style import DASHED, HEAT, house_style


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
    """Left: the loss over the plane of (w, b), with two paths of gradient descent. Right: the share of many paths whose
    loss becomes low.

    Args:
        unit: its loss is drawn.
        paths: two names, each with its path from one starting point; the one without clipping comes first.
        many: the same names, each with the paths from many starting points.
        w: the columns of the grid.
        b: the rows of the grid.
        learning_rate: of the paths, for the caption.
        threshold: of the paths' clipping, for the caption.
        low: a loss below this counts as low.
    """
    surface = unit.loss(w[None, :], b[:, None])
    shares = {name: np.mean(paths.loss.reshape(len(paths.loss), -1) < low, axis=1) for name, paths in many.items()}
    with house_style():
        figure, (left, right) = panels(2, height=4.6, share_y=False)
        mesh = left.pcolormesh(w, b, surface, cmap=HEAT, rasterized=True, shading="nearest")
        figure.colorbar(mesh, ax=left, pad=0.02, aspect=28, label="loss L (no unit)", ticks=MaxNLocator(5))
        left.plot(w, unit.cliff(w), color="white", linestyle=DASHED, linewidth=1.3)
        entries = []
        for (name, path), colour, edge in zip(paths.items(), ("black", "white"), ("white", "black"), strict=True):
            around = [Stroke(linewidth=3.6, foreground=edge), Normal()]
            # The same line in both panels and in the legend.
            line: dict[str, Any] = {"color": colour, "linewidth": 1.8, "path_effects": around}
            left.plot(path.w, path.b, **line)
            left.plot(path.w[:1], path.b[:1], "o", color=colour, markersize=7, mec=edge)
            _end(left, name, path, colour, edge, (w[0], w[-1]), (b[0], b[-1]))
            right.plot(100 * shares[name], **line)
            entries.append(line_entry(name, **line))
        left.set(xlim=(w[0], w[-1]), ylim=(b[0], b[-1]), xlabel="recurrent weight w", ylabel="bias b")
        left.set_title(f"loss at T = {unit.steps}")
        left.grid(False)
        right.set(ylim=(-3, 103), xlabel="updates made", ylabel=f"starting points with L < {low:g} (%)")
        right.set_title("from everywhere")
        cliff = bound_entry("the cliff, closed form", color="0.7", linewidth=1.3)
        legend_below(figure, [*entries, cliff])
    count = next(iter(many.values())).loss[0].size
    caption = (
        f"The unit hₜ = σ(w hₜ₋₁ + b), h₀ = {unit.start:.3f}, loss (h_T − {unit.target:g})², T = {unit.steps} "
        f"(Pascanu, Mikolov & Bengio 2013, Figure 6). Left: both descents start at the same dot with step size "
        f"{learning_rate:g}; one rescales a gradient longer than {threshold:g} to that norm. The star is an end; the "
        f"arrow leaves the picture for the point beside it, where the path ends. "
        f"Right: share of all {count} starting points of an even grid. Computed exactly, "
        f"without uncertainty."
    )
    moments = [
        pd.DataFrame({"path": name, "update": np.arange(len(path.w)), **vars(path), "share_low": shares[name]})
        for name, path in paths.items()
    ]
    rows, columns = (part.ravel() for part in np.meshgrid(b, w, indexing="ij"))
    ground = pd.DataFrame({"path": "surface", "w": columns, "b": rows, "loss": surface.ravel()})
    return Picture(figure, pd.concat([*moments, ground], ignore_index=True), (), caption)


def _end(
    axis: Axes,
    name: str,
    path: Descent,
    colour: str,
    edge: str,
    across: tuple[float, float],
    upwards: tuple[float, float],
) -> None:
    """A star where a path ends; or an arrow where it leaves the picture for good, with the point at which it ends."""
    points = np.column_stack([path.w, path.b])
    low, high = np.array([across[0], upwards[0]]), np.array([across[1], upwards[1]])
    inside = np.all((points >= low) & (points <= high), axis=1)
    if inside[-1]:
        axis.plot(*points[-1], "*", color=colour, markersize=14, mec=edge)
        return
    last = int(np.flatnonzero(inside)[-1])
    here, step = points[last], points[last + 1] - points[last]
    moving = step != 0
    # To the border that the step meets first.
    reach = float(np.min((np.where(step > 0, high, low) - here)[moving] / step[moving]))
    arrow = {"arrowstyle": "-|>", "facecolor": colour, "edgecolor": edge, "mutation_scale": 24, "shrinkB": 0}
    axis.annotate("", xy=tuple(here + reach * step), xytext=tuple(here + 0.8 * reach * step), arrowprops=arrow)
    words = f"{name}:\nto w = {points[-1, 0]:.0f},\nb = {points[-1, 1]:.0f}"
    border, towards = here + 0.9 * reach * step, np.sign(low + high - 2 * here)[0]
    side = "left" if towards > 0 else "right"
    axis.annotate(words, tuple(border), (14 * towards, 0), textcoords="offset points", color="white", ha=side, va="top")
