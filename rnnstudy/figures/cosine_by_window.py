"""How much of the gradient a truncation window keeps."""

# pyright: reportArgumentType=false

from collections.abc import Sequence

import numpy as np

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, cells_of, drawn_keys, readings_by_stage
from rnnstudy.figures.drawing import cell_lines, panels
from rnnstudy.figures.legend import band_entry, cell_entries, legend_below, patch_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND, house_style


def cosine_by_window(
    results: RunsAndReadings, *, parameter: str = "W_hh", informative: Sequence[tuple[int, int]] = (), keys: Keys = None
) -> Picture:
    """Cosine of the truncated with the full gradient of a recurrent matrix, against the window; before and after.

    The window k is the number of steps, counted back from the end, whose contribution is kept. Drawn are the median
    over runs and its band, in one panel before the first update and in one after the last.

    Args:
        parameter: the recurrent matrix.
        informative: first and last lag of the inputs that the answer depends on, which are shaded.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading.
    """
    frame = readings_by_stage(results, f"by_lag/{parameter}_cosine", keys, "GradientByLag")
    data = medians_by(frame.assign(window=frame["lag"] + 1), ["stage", "cell"], "window").drop(columns="of_runs")
    cells, band = cells_of(data), band_words(data["runs"])
    with house_style():
        figure, axes = panels(2)
        for axis, (stage, title) in zip(axes, STAGES.items(), strict=True):
            for first, last in informative:
                axis.axvspan(first + 0.5, last + 1.5, color="0.9", linewidth=0, zorder=0)
            cell_lines(axis, data[data["stage"] == stage], "window")
            axis.axhline(1, color=BOUND, linewidth=1)
            axis.set(title=title, xlabel="window k (steps kept, from the end)")
        lowest = float(np.nanmin(data["low"]))
        axes[0].set(ylabel=f"cosine with the full gradient\nof {parameter}", ylim=(min(0.0, lowest) - 0.03, 1.04))
        marks = [patch_entry("the marks", "0.9")] if informative else []
        legend_below(figure, [*cell_entries(cells), band_entry(band), *marks])
    caption = (
        f"Cosine between the gradient of {parameter} from the last k steps alone and the full gradient, for the loss "
        f"of the last step. 1: the window keeps the direction; 0: what it keeps is at a right angle to the full "
        f"gradient. Line: median over {counted(data['runs'])}; band: {band}."
    )
    return Picture(figure, data, drawn_keys(results, keys), caption)
