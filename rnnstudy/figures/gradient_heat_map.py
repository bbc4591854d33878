"""The gradient over time step by training step."""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings
from rnnstudy.figures.drawing import heat_map, panels
from rnnstudy.figures.heat_map_in_motion import heat_map_in_motion
from rnnstudy.figures.legend import legend_below, line_entry, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import ABSENT, HEAT, gradient_label, house_style, style

DECADES_SHOWN = 20
"""The colours span at most so many decades below the largest value, so that differences stay visible."""


def gradient_heat_map(
    results: RunsAndReadings,
    *,
    length: int | None = None,
    state: str = "h",
    marks: Sequence[tuple[int, int]] = (),
    moving: bool = False,
    keys: Keys = None,
) -> Picture:
    """Gradient over time step by training step, one panel per cell, on one colour scale.

    One run per cell is drawn: the one with the lowest seed among `keys` (all runs by default) at `length` (the longest
    by default). Colours span at most `DECADES_SHOWN` decades; the table has every value.

    `marks` are the first and last time steps of the stretches that hold what must be remembered
    (`informative_stretches`). With `moving`, the picture also moves: the profile of each moment of training, above the
    heat map that grows with it.

    Raises `RequestError` when none of these runs has such a reading, or none has that length.
    """
    length, chosen = chosen_runs.keys_of_length(results, length, keys)
    runs = results.runs.loc[list(chosen)].rename_axis("key").reset_index().sort_values(["seed", "key"])
    first = runs.groupby("cell")["key"].first()
    reading = f"through_time/{state}"
    frame = chosen_runs.required(chosen_runs.medians(results, reading, list(first)), reading)
    first = first[first.isin(frame["key"])]
    data = chosen_runs.ordered(frame[["cell", "key", "seed", "length", "step", "time", "value"]])
    cells = chosen_runs.cells_of(data)
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
            for start, end in marks:
                line: dict[str, Any] = {"color": "black", "linewidth": 6, "solid_capstyle": "butt", "clip_on": False}
                # A bar above the panel.
                axis.plot([start - 0.5, end + 0.5], [1.015, 1.015], transform=axis.get_xaxis_transform(), **line)
            axis.set_xlabel(f"time step t (of {int(data['time'].max())})")
        axes[0].set_ylabel("training step (updates made)")
        arrow = "min" if len(finite) and finite.min() < bottom else "neither"
        bar = figure.colorbar(ScalarMappable(Normalize(bottom, top), HEAT), ax=axes, extend=arrow, pad=0.02, aspect=28)
        bar.set_label(gradient_label([state]))
        entries: list[Any] = []
        if marks:
            entries.append(line_entry("where the marks to remember stand", color="black", linewidth=6))
        if data["value"].isna().any():
            entries.append(patch_entry("no value: the gradient is exactly zero, or not finite", ABSENT))
        if entries:
            legend_below(figure, entries)
    caption = (
        f"Gradient of the loss with respect to state {state} at each time step (across), as training proceeds "
        f"(upwards), T = {length}; median over sequences. One run per cell is drawn: the one with the lowest seed."
    )
    motion = None
    if moving:
        endings = {cell: _ending(results.runs.loc[first[cell]]) for cell in cells}
        motion = heat_map_in_motion(data, endings, (bottom, top), state, marks)
    return Picture(figure, data, tuple(sorted(first)), caption, motion)


def _heat(axis: Axes, data: pd.DataFrame, limits: tuple[float, float], last_step: int) -> None:
    across, upwards = heat_map(axis, data.pivot(index="step", columns="time", values="value"), HEAT, limits)
    top = max(float(last_step), upwards[-1])
    axis.set(xlim=(across[0], across[-1]), ylim=(upwards[0], top))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if top - upwards[-1] > 0.12 * (top - upwards[0]):
        middle = (across[0] + across[-1]) / 2, (upwards[-1] + top) / 2
        axis.text(*middle, "training had ended", ha="center", va="center", color="0.35")


def _ending(run: pd.Series) -> str:
    if run["status"] == "diverged":
        return f"diverged at {int(run['step'])}"
    if chosen_runs.true(pd.Series([run["solved"]])).iloc[0]:
        return "solved"
    return "not solved" if pd.isna(run["steps_to_solve"]) else "solved in validation, not in the test"
