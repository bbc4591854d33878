"""Every side of a comparison at every task and length, in one table: how many runs solved it, how far they came."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, true
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted, wilson_row
from rnnstudy.figures.style import HEAT, house_style

DARK_BELOW = 0.6
"""Tiles with a smaller value are dark: their text is white."""


def comparison(
    results: RunsAndReadings,
    sides: Mapping[str, str],
    chance: Mapping[str, float],
    *,
    across: str = "length",
    label: str = "T",
    panels: Mapping[str, str] | None = None,
    keys: Keys = None,
) -> Picture:
    """A tile for each side, task and length: how many of the runs solved the task, and how far from guessing they came.

    The number is that of the runs that met the criterion on the test sequences, of all. The colour is the mean over the
    runs of 1 − error/chance: 0 for guessing (and for a diverged run), 1 for no error. Failed runs are left out.

    Args:
        sides: key of a run to the name of its side, in the order of drawing.
        chance: name of a panel to the error of the best predictor that sees no input, in the order of drawing.
        across: the column of `results.runs` whose values stand side by side in the panel of a task.
        label: what `across` is, with its unit.
        panels: key of a run to the name of its panel; by default the class of its task.
        keys: the runs to draw; all that have a side by default.

    The table has the Wilson 95 % interval of the share solved. Raises `RequestError` when there is no run to draw.
    """
    wanted = [key for key in chosen_runs.drawn_keys(results, keys) if key in sides]
    runs = chosen_runs.finished_or_diverged(results, wanted)
    if panels is not None:
        runs = runs.assign(task=runs.index.map(panels))
    skill = 1 - runs["error"].astype(float) / runs["task"].map(chance)
    runs = runs.assign(side=runs.index.map(sides), skill=skill.clip(lower=0.0).fillna(0.0))
    names = [side for side in dict.fromkeys(sides.values()) if side in set(runs["side"])]
    tasks = [task for task in chance if task in set(runs["task"])]
    rows = []
    for (task, value, side), group in runs.groupby(["task", across, "side"]):
        row = {"task": task, across: value, "side": side, **wilson_row(true(group["solved"]), "solved")}
        rows.append({**row, "mean_skill": group["skill"].mean(), "median_error": group["error"].astype(float).median()})
    data = chosen_runs.ordered(
        pd.DataFrame(rows), ["task", across, "side"], task=tasks.index, side=names.index
    )  # fmt: skip
    values = {task: sorted(data.loc[data["task"] == task, across].unique()) for task in tasks}
    with house_style():
        figure, axes = _panels([len(values[task]) for task in tasks], len(names))
        for axis, task in zip(axes, tasks, strict=True):
            _tiles(axis, data[data["task"] == task], names, across, values[task])
            axis.set_xlabel(label)
            axis.set_title("\n".join(wrap(_words(task), 14 if len(values[task]) > 1 else 10, break_long_words=False)))
        axes[0].set_yticks(range(len(names)), names)
        image = axes[-1].images[0]
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, aspect=40, pad=0.04)
        bar.set_label("1 − error/chance, mean over runs")
        bar.set_ticks([0, 0.5, 1], labels=["0 (guessing)", "0.5", "1 (no error)"])
    caption = (
        f"Numbers: runs that solved the task, of {counted(data['runs'])} for each tile; a diverged run counts as "
        "unsolved. Colours: how much of the error of guessing is gone. The table has the Wilson 95 % intervals."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _panels(columns: Sequence[int], rows: int) -> tuple[Figure, list[Axes]]:
    """A panel for each task, as wide as it has lengths."""
    engine = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05)
    figure = Figure(figsize=(max(6.0, 3.4 + 0.78 * sum(columns)), 2.4 + 0.36 * rows), layout=engine)
    ratios = {"width_ratios": list(columns)}
    return figure, list(figure.subplots(1, len(columns), sharey=True, squeeze=False, gridspec_kw=ratios).flat)


def _tiles(axis: Axes, data: pd.DataFrame, names: Sequence[str], across: str, values: Sequence[float]) -> None:
    table = data.pivot(index="side", columns=across, values="mean_skill").reindex(index=names, columns=values)
    axis.imshow(table.to_numpy(float), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for row in data.to_dict("records"):
        place = values.index(row[across]), names.index(row["side"])
        colour = "white" if row["mean_skill"] < DARK_BELOW else "black"
        axis.text(*place, f"{row['solved']}/{row['runs']}", color=colour, ha="center", va="center", fontsize=10)
    for border in np.arange(0.5, len(names) - 1):
        axis.axhline(border, color="white", linewidth=1.0)
    axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axis.grid(False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _words(task: str) -> str:
    """A task's class name in words."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in task).strip()
