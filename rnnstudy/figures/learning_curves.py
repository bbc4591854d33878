"""The error on validation sequences during training."""

# pyright: reportArgumentType=false

import pandas as pd
import seaborn
from matplotlib.axes import Axes

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, cells_of, ordered, readings_of, true
from rnnstudy.figures.drawing import chance_line, panels
from rnnstudy.figures.legend import cell_entries, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import Style, house_style, style
from rnnstudy.spec import RequestError


def learning_curves(
    results: RunsAndReadings, *, chance: float, error: str = "validation error", keys: Keys = None
) -> Picture:
    """Validation error against training step, one line per run, one panel per length.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has a reading `learning/error`.
    """
    frame = readings_of(results, "learning/error", keys, ["cell", "length", "seed", "solved", "status"])
    if frame.empty:
        raise RequestError("no run has a reading learning/error; these runs were never validated")
    columns = ["cell", "length", "seed", "key", "step", "error", "solved"]
    data = ordered(frame.rename(columns={"value": "error"})[columns])
    cells, lengths = cells_of(data), sorted(data["length"].unique())
    with house_style():
        figure, axes = panels(len(lengths), height=4.0)
        for axis, length in zip(axes, lengths, strict=True):
            own = data[data["length"] == length]
            for cell in cells_of(own):
                _curves(axis, own[own["cell"] == cell], style(cell))
            axis.set(title=f"T = {length}", xlabel="training step (updates made)")
            axis.set_xlim(-0.02 * data["step"].max(), 1.05 * data["step"].max())
        highest = max(chance, float(data["error"].max()))
        for axis in axes:
            chance_line(axis, chance, labelled=axis is axes[-1])
        axes[0].set(ylim=(-0.04 * highest, 1.16 * highest), ylabel=error)
        words = "at the end: not solved (filled: solved)"
        unsolved = line_entry(words, color="0.4", linestyle="", marker="x", markersize=8, mew=2)
        legend_below(figure, [*cell_entries(cells), unsolved])
    caption = (
        "Error on fixed validation sequences during training, one line per run; a run stops early once it solves the "
        f"task. Dashed: the error of the best predictor that sees no input ({chance:.3g})."
    )
    return Picture(figure, data, tuple(sorted(set(data["key"]))), caption)


def _curves(axis: Axes, data: pd.DataFrame, drawn: Style) -> None:
    line = {"color": drawn.colour, "linestyle": drawn.dash, "linewidth": 1.5, "alpha": 0.75}
    seaborn.lineplot(data=data, x="step", y="error", units="key", estimator=None, ax=axis, legend=False, **line)
    ends = data.dropna(subset=["error"]).groupby("key").last()
    for solved, marker, edge in ((True, drawn.marker, 0.0), (False, "x", 2.0)):
        chosen = ends[true(ends["solved"]) == solved]
        looks = {"marker": marker, "color": drawn.colour, "markersize": 7, "mew": edge, "zorder": 4}
        axis.plot(chosen["step"], chosen["error"], linestyle="", **looks)
