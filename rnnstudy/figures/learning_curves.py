"""The error on validation sequences while training goes on."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import Results, ordered, true, with_runs
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import Style, cell_handle, chance_line, house_style, legend_below, panels, style
from rnnstudy.spec import SpecError


def learning_curves(
    results: Results, *, chance: float, error: str = "validation error", keys: Sequence[str] | None = None
) -> Picture:
    """Validation error against training step, one line per run, one panel per length.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the runs to draw; all by default.

    Raises `SpecError` when no run has a reading `learning/error`.
    """
    frame = with_runs(results, "learning/error", keys, ["cell", "length", "seed", "solved", "status"])
    if frame.empty:
        raise SpecError("no run has a reading learning/error; these runs were never validated")
    columns = ["cell", "length", "seed", "key", "step", "error", "solved"]
    data = ordered(frame.rename(columns={"value": "error"})[columns])
    cells, lengths = list(dict.fromkeys(data["cell"])), sorted(data["length"].unique())
    with house_style():
        figure, axes = panels(len(lengths), height=4.0)
        for axis, length in zip(axes, lengths, strict=True):
            for cell in cells:
                _curves(axis, data[(data["length"] == length) & (data["cell"] == cell)], style(cell))
            axis.set(title=f"T = {length}", xlabel="training step (updates made)")
            axis.set_xlim(-0.02 * data["step"].max(), 1.05 * data["step"].max())
        highest = max(chance, float(data["error"].max()))
        for axis in axes:
            chance_line(axis, chance, labelled=axis is axes[-1])
        axes[0].set(ylim=(-0.04 * highest, 1.16 * highest), ylabel=error)
        handles = [cell_handle(cell) for cell in cells]
        words = "at the end: not solved (filled: solved)"
        handles.append(Line2D([], [], color="0.4", linestyle="", marker="x", markersize=8, mew=2, label=words))
        legend_below(figure, handles)
    caption = (
        "Error on fixed validation sequences during training, one line per run; a run stops early once it solves the "
        f"task. Dashed: what the best predictor that sees no input attains ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(set(data["key"]))), caption)


def _curves(axis: Axes, data: pd.DataFrame, drawn: Style) -> None:
    if data.empty:
        return
    seaborn.lineplot(
        data=data,
        x="step",
        y="error",
        units="key",
        estimator=None,
        ax=axis,
        color=drawn.colour,
        linestyle=drawn.dash,
        linewidth=1.5,
        alpha=0.75,
        legend=False,
    )
    ends = data.dropna(subset=["error"]).groupby("key").last()
    for solved, marker, edge in ((True, drawn.marker, 0.0), (False, "x", 2.0)):
        chosen = ends[true(ends["solved"]) == solved]
        axis.plot(
            chosen["step"],
            chosen["error"],
            linestyle="",
            marker=marker,
            color=drawn.colour,
            markersize=7,
            mew=edge,
            zorder=4,
        )
