"""The cliff in the loss of a single recurrent unit, gradient descent on it, and the bifurcation behind it.

These figures are computed, not measured: they are made from no run.
"""

import numpy as np
from matplotlib.axes import Axes

from rnnstudy.figures.single_unit import Descent

_DASHED = (0, (4, 2))


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
