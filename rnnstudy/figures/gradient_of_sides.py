"""The gradient of the last step's loss by lag, a row of colour for each side of a comparison."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings
from rnnstudy.figures.drawing import heat_map
from rnnstudy.figures.legend import legend_below, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted
from rnnstudy.figures.style import ABSENT, HEAT, house_style

DECADES_SHOWN = 12
"""The colours span so many decades; what is smaller has the colour of their lower end."""


def gradient_of_sides(
    results: RunsAndReadings, sides: Mapping[str, str], states: Mapping[str, str], *, keys: Keys = None
) -> Picture:
    """A row for each side, the lag across, before training and after: the gradient at one state of each side.

    The colour is the median over runs of each run's median over sequences of log10 ‖dℓ/ds_t‖ − log10 ‖dℓ/ds_τ‖: decades
    that are left at this lag of the gradient at lag 0. Grey where fewer than half of the runs have a value.

    Args:
        sides: key of a run to the name of its side, in the order of drawing, from the top.
        states: name of a side to the state that is drawn, with its layer: `h`, `c`, `s_layer1`.
        keys: the runs to draw, of one task and length; all that have a side by default.

    The table has, for each side, stage and lag, the median over the runs, the lowest and the highest run and their
    number. Raises `RequestError` when no run has such a reading.
    """
    wanted = [key for key in chosen_runs.drawn_keys(results, keys) if key in sides]
    names = list(dict.fromkeys(side for key, side in sides.items() if key in set(wanted)))
    parts = []
    for stage in STAGES:
        for side in names:
            reading = f"profile/{states[side]}_{stage}_normalised"
            frame = chosen_runs.medians(results, reading, [key for key in wanted if sides[key] == side])
            parts.append(frame.assign(side=side, state=states[side], stage=stage))
    frame = chosen_runs.required(pd.concat(parts, ignore_index=True), f"profile/{next(iter(states.values()))}_initial")
    # An exact zero is below all numbers; a value that is not known is left out.
    groups = frame.assign(value=frame["value"].astype(float)).groupby(["side", "state", "stage", "lag"])["value"]
    data = groups.agg(median="median", lowest="min", highest="max", runs="count", of_runs="size").reset_index()
    data["median"] = data["median"].where(2 * data["runs"] >= data["of_runs"])
    data = chosen_runs.ordered(data, ["side", "stage", "lag"], side=names.index)
    least = float(data["median"].replace(-np.inf, np.nan).min())
    bottom = max(-DECADES_SHOWN, min(-1.0, np.floor(least))) if np.isfinite(least) else -1.0
    top = max(0.0, float(data["median"].max()))
    with house_style():
        figure = Figure(figsize=(10.5, 1.9 + 0.34 * len(names)), layout="constrained")
        axes = list(figure.subplots(1, len(STAGES), sharey=True))
        for axis, (stage, words) in zip(axes, STAGES.items(), strict=True):
            _rows(axis, data[data["stage"] == stage], names, (bottom, top))
            axis.set_title(words)
            axis.set_xlabel("lag τ − t (steps back)")
        axes[0].set_yticks(range(len(names)), [f"{side}: {states[side].partition('_')[0]}" for side in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        arrow = "min" if least < bottom or np.isneginf(data["median"]).any() else "neither"
        bar = figure.colorbar(ScalarMappable(Normalize(bottom, top), HEAT), ax=axes, extend=arrow, pad=0.02, aspect=20)
        bar.set_label("log₁₀ ‖∂L/∂sₜ‖,\nrelative to lag 0 (decades)")
        if data["median"].isna().any():
            legend_below(figure, [patch_entry("no value", ABSENT)])
    caption = (
        "Gradient of the last step's loss with respect to the state named at the left (of the lowest layer), by lag, "
        f"relative to lag 0: median over {counted(frame.groupby('side')['key'].nunique())} of each run's median over "
        "sequences. The table has the range of the runs."
    )
    return Picture(figure, data, tuple(sorted(frame["key"].unique())), caption)


def _rows(axis: Axes, data: pd.DataFrame, names: Sequence[str], limits: tuple[float, float]) -> None:
    table = data.assign(row=data["side"].map(names.index)).pivot(index="row", columns="lag", values="median")
    heat_map(axis, table.reindex(range(len(names))).replace(-np.inf, limits[0] - 1), HEAT, limits)
    for border in np.arange(0.5, len(names) - 1):
        axis.axhline(border, color="white", linewidth=1.0)
    axis.tick_params(axis="y", length=0)
    axis.spines[:].set_visible(False)
