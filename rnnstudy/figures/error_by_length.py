"""The test error of every side of a comparison against the length, beside baselines that train no network."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping

import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings
from rnnstudy.figures.drawing import chance_line, panels
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted
from rnnstudy.figures.style import BOUND, DASHES, house_style, looks_of_sides


def error_by_length(
    results: RunsAndReadings,
    sides: Mapping[str, str],
    baselines: pd.DataFrame,
    *,
    chance: float,
    error: str,
    each: str,
    label: str = "length T (steps, logarithmic)",
    keys: Keys = None,
) -> Picture:
    """A panel for each value of the column `each`: every run as a dot, the median of a side as a line.

    A diverged run counts with the error of chance. Failed runs are left out.

    Args:
        sides: key of a run to the name of its side, in the order of drawing.
        baselines: a row for each point of a baseline: `each`, `length`, `side` (its name) and `error`; they are drawn
            in grey, and their order is that of the panels.
        chance: the error of the best predictor that sees no input.
        error: what the error is.
        each: a column of `results.runs`; its values are the titles of the panels.
        keys: the runs to draw; all that have a side by default.

    The table has a row for each point: the runs of a side by their median, lowest and highest error, and the baselines.
    Raises `RequestError` when there is no run to draw.
    """
    wanted = [key for key in chosen_runs.drawn_keys(results, keys) if key in sides]
    runs = chosen_runs.finished_or_diverged(results, wanted)
    chosen_runs.require_columns(runs, each)
    runs = runs.assign(side=runs.index.map(sides), error=runs["error"].astype(float).fillna(chance))
    names = [side for side in dict.fromkeys(sides.values()) if side in set(runs["side"])]
    measured = runs.groupby([each, "length", "side"])["error"].agg(["size", "median", "min", "max"]).reset_index()
    measured = measured.rename(columns={"size": "runs", "median": "error", "min": "lowest", "max": "highest"})
    further = list(dict.fromkeys(baselines["side"]))
    points = pd.concat([measured, baselines[[each, "length", "side", "error"]].assign(runs=0)], ignore_index=True)
    data = chosen_runs.ordered(points, [each, "length", "side"], side=[*names, *further].index)
    looks = looks_of_sides(dict(zip(runs["side"], runs["cell"], strict=True)), names)
    grey = {
        name: {"color": BOUND, "marker": "+", "linestyle": DASHES[1 + place % 3], "linewidth": 1.3}
        for place, name in enumerate(further)
    }
    shown = [value for value in dict.fromkeys([*baselines[each], *runs[each]]) if value in set(runs[each])]
    with house_style():
        figure, axes = panels(len(shown), height=4.4)
        for axis, panel in zip(axes, shown, strict=True):
            for name in [*further, *names]:
                line = data[(data[each] == panel) & (data["side"] == name)]
                axis.plot(line["length"], line["error"], **(grey | looks)[name])
                own = runs[(runs[each] == panel) & (runs["side"] == name)]
                if len(own):
                    colour = looks[name]["color"]
                    axis.plot(own["length"], own["error"], "o", color=colour, markersize=4, alpha=0.35, mew=0)
            chance_line(axis, chance, labelled=panel == shown[-1])
            axis.set_xscale("log")
            lengths = sorted(set(data.loc[data[each] == panel, "length"]))
            axis.set_xticks(lengths, [str(length) for length in lengths])
            axis.minorticks_off()
            axis.set_title(f"{each.split('.')[-1]}: {panel}")
            axis.set_xlabel(label)
        axes[0].set_ylabel(error)
        entries = [line_entry(name, **(looks | grey)[name]) for name in [*names, *further]]
        legend_below(figure, [*entries, bound_entry("chance")])
    caption = f"{counted(measured['runs'])} for each point: a dot each, and the line their median."
    return Picture(figure, data, tuple(sorted(runs.index)), caption)
