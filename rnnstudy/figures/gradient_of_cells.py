"""The gradient of the last step's loss against the lag, the cells side by side."""

# pyright: reportArgumentType=false

from collections.abc import Sequence
from typing import Literal

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, cells_of, keys_of_length, profiles
from rnnstudy.figures.drawing import cell_lines, panels
from rnnstudy.figures.legend import band_entry, cell_entries, legend_below
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import gradient_label, house_style


def gradient_of_cells(
    results: RunsAndReadings,
    *,
    stage: Literal["initial", "final"] = "initial",
    states: Sequence[str] = ("h",),
    normalised: bool = False,
    length: int | None = None,
    keys: Keys = None,
) -> Picture:
    """Gradient of the last step's loss with respect to a state, against the lag: a panel per state, a line per cell.

    The numbers are those of `gradient_by_lag`: of each run the median over its sequences; drawn are the median over
    runs and its band.

    Args:
        stage: before the first update, or after the last.
        states: which of the cells' states; cells without a state have no line for it.
        normalised: relative to lag 0, for each sequence.
        length: of the runs to draw; the longest by default.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading, or that length.
    """
    length, chosen = keys_of_length(results, length, keys)
    frame = profiles(results, states, stage, normalised, chosen)
    data = medians_by(frame, ["state", "cell"], "lag", state=list(states).index)
    shown = list(dict.fromkeys(data["state"]))
    with house_style():
        figure, axes = panels(len(shown))
        for axis, state in zip(axes, shown, strict=True):
            cell_lines(axis, data[data["state"] == state], "lag")
            axis.set(title=f"state {state}, T = {length}", xlabel="lag τ − t (steps)")
        axes[0].set_ylabel(gradient_label(shown, normalised=normalised))
        band = band_words(data["of_runs"])
        legend_below(figure, [*cell_entries(cells_of(data)), band_entry(band)])
    caption = (
        f"Gradient of the last step's loss L with respect to a state, {STAGES[stage]}, by lag (lag 0: the step of the "
        f"loss), at T = {length}. Line: median over {counted(data['of_runs'])} of each run's median over sequences; "
        f"band: {band}."
    )
    return Picture(figure, data, chosen, caption)
