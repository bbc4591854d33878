"""The gradient over time step by training step."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from rnnstudy.figures.chosen_runs import PROBE_ADVICE, Results, drawn_keys, medians, ordered, true
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import ABSENT, HEAT, edges, house_style, legend_below, panels, style
from rnnstudy.spec import SpecError
from rnnstudy.tasks.task import Task

_MARKS_WORDS = "where the marks to remember stand"
_ABSENT_WORDS = "no value: the gradient is exactly zero, or not finite"

DECADES_SHOWN = 20
"""A heat map's colours span at most so many decades below its largest value, so that differences stay visible."""


def gradient_heat_map(
    results: Results,
    *,
    length: int | None = None,
    state: str = "h",
    marks: Sequence[tuple[int, int]] = (),
    keys: Sequence[str] | None = None,
) -> Picture:
    """Gradient over time step by training step, one panel per cell, on one colour scale.

    One run per cell is drawn: the one with the lowest seed among `keys` (all runs by default) at `length` (the longest
    by default). Colours span at most `DECADES_SHOWN` decades; the table has every value.

    `marks` are first and last time steps of stretches in which what must be remembered stands
    (`informative_stretches`).

    Raises `SpecError` when none of these runs has such a reading, or none has that length.
    """
    runs = results.runs.loc[list(drawn_keys(results, keys))]
    known = sorted(runs["length"].unique())
    length = known[-1] if length is None else length
    chosen = runs[runs["length"] == length]
    if chosen.empty:
        raise SpecError(f"no run has length {length}; the lengths here: {', '.join(map(str, known))}")
    first = chosen.rename_axis("key").reset_index().sort_values(["seed", "key"]).groupby("cell")["key"].first()
    frame = medians(results, f"through_time/{state}", list(first))
    if frame.empty:
        raise SpecError(f"no run has a reading through_time/{state}; {PROBE_ADVICE}")
    first = first[first.isin(frame["key"])]
    data = ordered(frame[["cell", "key", "seed", "length", "step", "time", "value"]])
    cells = list(dict.fromkeys(data["cell"]))
    finite = data["value"].dropna()
    top = float(finite.max()) if len(finite) else 0.0
    bottom = max(float(finite.min()), top - DECADES_SHOWN) if len(finite) else top - 1
    with house_style():
        figure, axes = panels(len(cells), height=4.4)
        for axis, cell in zip(axes, cells, strict=True):
            run = results.runs.loc[first[cell]]
            _heat(axis, data[data["cell"] == cell], (bottom, top), data["step"].max())
            title = f"{style(cell).label}, seed {run['seed']}: {_ending(run)}"
            axis.set_title(title, color=style(cell).colour, pad=14 if marks else 6)
            _mark(axis, marks)
            axis.set_xlabel(f"time step t (of {int(data['time'].max())})")
        axes[0].set_ylabel("training step (updates made)")
        arrow = "min" if len(finite) and finite.min() < bottom else "neither"
        bar = figure.colorbar(ScalarMappable(Normalize(bottom, top), HEAT), ax=axes, extend=arrow, pad=0.02, aspect=28)
        bar.set_label(f"log₁₀ ‖∂L/∂{state}ₜ‖")
        handles: list[Artist] = [Line2D([], [], color="black", linewidth=6, label=_MARKS_WORDS)] if marks else []
        if data["value"].isna().any():
            handles.append(Patch(facecolor=ABSENT, label=_ABSENT_WORDS))
        if handles:
            legend_below(figure, handles)
    caption = (
        f"Gradient of the loss with respect to state {state} at each time step (across), as training goes on "
        f"(upwards), T = {length}; median over sequences. One run per cell is drawn: the one with the lowest seed."
    )
    return Picture(figure, data, tuple(sorted(first)), caption)


def informative_stretches(task: Task) -> list[tuple[int, int]]:
    """First and last time step (from 1) of each stretch in which what the answer depends on can stand, in 512 draws."""
    somewhere = task.sample(512, torch.Generator().manual_seed(0)).informative.any(dim=1).tolist()
    steps = [step for step, informative in enumerate(somewhere, start=1) if informative]
    starts = [step for step in steps if step - 1 not in steps]
    ends = [step for step in steps if step + 1 not in steps]
    return list(zip(starts, ends, strict=True))


def _mark(axis: Axes, marks: Sequence[tuple[int, int]]) -> None:
    """A bar above the panel over each stretch."""
    above = axis.get_xaxis_transform()
    for first, last in marks:
        line: dict[str, Any] = {"color": "black", "linewidth": 6, "solid_capstyle": "butt", "clip_on": False}
        axis.plot([first - 0.5, last + 0.5], [1.015, 1.015], transform=above, **line)


def _heat(axis: Axes, data: pd.DataFrame, limits: tuple[float, float], last_step: int) -> None:
    table = data.pivot(index="step", columns="time", values="value").sort_index().sort_index(axis=1)
    across, upwards = edges(table.columns.to_numpy(float)), edges(table.index.to_numpy(float))
    ground = Rectangle(
        (across[0], upwards[0]), across[-1] - across[0], upwards[-1] - upwards[0], facecolor=ABSENT, zorder=0.5
    )
    axis.add_patch(ground)
    values = np.ma.masked_invalid(table.to_numpy(float))
    # As an image inside the SVG: tens of thousands of rectangles would make it slow to open.
    axis.pcolormesh(across, upwards, values, cmap=HEAT, vmin=limits[0], vmax=limits[1], rasterized=True, zorder=1)
    top = max(float(last_step), upwards[-1])
    axis.set(xlim=(across[0], across[-1]), ylim=(upwards[0], top))
    axis.grid(False)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if top - upwards[-1] > 0.12 * (top - upwards[0]):
        middle = (across[0] + across[-1]) / 2, (upwards[-1] + top) / 2
        axis.text(*middle, "training had ended", ha="center", va="center", color="0.35")


def _ending(run: pd.Series) -> str:
    if run["status"] == "diverged":
        return f"diverged at {int(run['step'])}"
    if true(pd.Series([run["solved"]])).iloc[0]:
        return "solved"
    return "not solved" if pd.isna(run["steps_to_solve"]) else "solved in validation, not in the test"
