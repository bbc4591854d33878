"""How the share of solved runs grows with the number of updates: would more of them change the result?"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping

import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted, wilson_row
from rnnstudy.figures.style import house_style, looks_of_sides


def success_by_budget(results: RunsAndReadings, sides: Mapping[str, str], *, keys: Keys = None) -> Picture:
    """The share of runs that had solved the task in validation within so many updates, a panel for each length.

    Exact for every budget up to that of training: runs stop when they have solved, and a run with a smaller budget
    would have been the same until then. A line that still rises at its right end says that the budget was too small to
    judge. Wilson 95 % intervals at the whole budget.

    Args:
        sides: key of a run to the name of its side, in the order of drawing.
        keys: the runs to draw, of one task; all that have a side by default.
    """
    wanted = [key for key in chosen_runs.drawn_keys(results, keys) if key in sides]
    runs = chosen_runs.finished_or_diverged(results, wanted)
    runs = runs.assign(side=runs.index.map(sides), updates=runs["steps_to_solve"].astype(float))
    names = [side for side in dict.fromkeys(sides.values()) if side in set(runs["side"])]
    rows = []
    for (length, side), group in runs.groupby(["length", "side"]):
        budget = int(group["training.steps"].max())
        for updates in [0, *sorted(set(group["updates"].dropna().astype(int))), budget]:
            row = wilson_row(group["updates"] <= updates, "solved")
            rows.append({"length": length, "side": side, "cell": group["cell"].iloc[0], "updates": updates, **row})
    data = pd.DataFrame(rows).drop_duplicates(["length", "side", "updates"])
    data = chosen_runs.ordered(data, ["length", "side", "updates"], side=names.index)
    lengths = sorted(data["length"].unique())
    looks = looks_of_sides(dict(zip(data["side"], data["cell"], strict=True)), names)
    with house_style():
        figure, axes = panels(len(lengths), height=3.6)
        for axis, length in zip(axes, lengths, strict=True):
            for side in names:
                line = data[(data["length"] == length) & (data["side"] == side)]
                if len(line):
                    axis.step(line["updates"], line["share"], where="post", **looks[side])
            axis.set_title(f"T = {length}")
            axis.set_xlabel("updates")
            axis.set_ylim(-0.03, 1.03)
        axes[0].set_ylabel("share of runs solved")
        legend_below(figure, [line_entry(side, **looks[side]) for side in names])
    caption = f"{counted(data['runs'])} for each line. A line that still rises at its right end has not had its budget."
    return Picture(figure, data, tuple(sorted(runs.index)), caption)
