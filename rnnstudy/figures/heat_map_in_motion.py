"""The gradient over training as a moving picture: the profile of each moment above a heat map that grows with it."""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import cells_of
from rnnstudy.figures.drawing import edges, panels
from rnnstudy.figures.picture import Moving
from rnnstudy.figures.style import ABSENT, HEAT, gradient_label, house_style, style

__all__ = ["heat_map_in_motion"]


def heat_map_in_motion(
    data: pd.DataFrame,
    endings: Mapping[str, str],
    limits: tuple[float, float],
    state: str,
    marks: Sequence[tuple[int, int]] = (),
) -> Moving:
    """A moment for each training step at which a run was read; a run that has ended keeps its last profile, in grey.

    Args:
        data: columns cell, step, time, value, of one run for each cell.
        endings: cell to how its run ended, in words.
        limits: the lowest and the highest log10 gradient that colours and the upper panels show.
        state: whose gradient it is.
        marks: first and last time steps of the stretches that hold what must be remembered.
    """
    cells, moments = cells_of(data), np.array(sorted(data["step"].unique()))
    tables = {cell: data[data["cell"] == cell].pivot(index="step", columns="time", values="value") for cell in cells}
    with house_style():
        figure, axes = panels(len(cells), rows=2, height=2.6, share_x=True, share_y=False)
        above, below = axes[: len(cells)], axes[len(cells) :]
        lines = {cell: _profile(axis, cell, tables[cell], limits) for axis, cell in zip(above, cells, strict=True)}
        tiles = {cell: _tiles(axis, tables[cell], limits, moments) for axis, cell in zip(below, cells, strict=True)}
        for axis in above:
            for start, end in marks:
                axis.axvspan(start - 0.5, end + 0.5, color="0.88", zorder=0)
                word: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 9, "color": "0.35"}
                axis.text((start + end) / 2, limits[0] + 2.4, "mark", **word)
        above[0].set_ylabel("log₁₀ of the gradient")
        below[0].set_ylabel("training step")
        for axis in (*above[1:], *below[1:]):
            axis.tick_params(labelleft=False)
        bar = figure.colorbar(ScalarMappable(Normalize(*limits), HEAT), ax=axes, extend="min", pad=0.02, aspect=30)
        bar.set_label(gradient_label([state]))
        clock = figure.suptitle("training step 0", fontsize=12)

    def draw(moment: int) -> None:
        now = moments[moment]
        clock.set_text(f"training step {now}")
        for axis, cell in zip(above, cells, strict=True):
            table = tables[cell]
            past = table[table.index <= now]
            ended = now >= table.index[-1]
            # What lies below the lowest colour stands on the lower edge.
            lines[cell].set_ydata(np.clip(past.iloc[-1].to_numpy(float), limits[0], None))
            lines[cell].set_color("0.6" if ended else style(cell).colour)
            axis.title.set_text(f"{style(cell).label}{f': {endings[cell]}' if ended else ''}")
            values = table.to_numpy(float).copy()
            values[len(past) :] = np.nan
            tiles[cell].set_array(np.ma.masked_invalid(values))

    return Moving(figure, draw, len(moments))


def _profile(axis: Axes, cell: str, table: pd.DataFrame, limits: tuple[float, float]) -> Line2D:
    across = table.columns.to_numpy(float)
    axis.set_title(style(cell).label, color=style(cell).colour)
    axis.set(xlim=(across[0] - 0.5, across[-1] + 0.5), ylim=(limits[0] - 0.5, limits[1] + 0.8))
    return axis.plot(across, np.full(len(across), np.nan), color=style(cell).colour)[0]


def _tiles(axis: Axes, table: pd.DataFrame, limits: tuple[float, float], moments: np.ndarray) -> QuadMesh:
    columns, rows = edges(table.columns.to_numpy(float)), edges(table.index.to_numpy(float))
    axis.set(ylim=(rows[0], edges(moments.astype(float))[-1]), xlabel=f"time step t (of {int(table.columns.max())})")
    axis.grid(False)
    if table.isna().any(axis=None):
        axis.set_facecolor(ABSENT)
    nothing = np.ma.masked_all(table.shape)
    return axis.pcolormesh(columns, rows, nothing, cmap=HEAT, vmin=limits[0], vmax=limits[1])
