from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from rnnstudy.figures.cliff import _DASHED, _end
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.single_unit import Array, Descent, Unit
from rnnstudy.figures.style import HEAT, house_style, legend_below, panels


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
    with house_style():
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
