"""Lyapunov exponents: how fast disturbances of the state grow or fade, in every direction."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings, cells_of, keys_of_length, readings_by_stage
from rnnstudy.figures.drawing import cell_lines, panels
from rnnstudy.figures.legend import band_entry, cell_entries, legend_below
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND, house_style


def lyapunov_spectrum(results: RunsAndReadings, *, length: int | None = None, keys: Keys = None) -> Picture:
    """Lyapunov exponents from the largest to the smallest, before training and after, a line for each cell.

    Of each run the median over its sequences; drawn are the median over runs and its band, against the share of the
    directions, so that states of different size can be compared. Exponents that are absent are not drawn.

    Args:
        length: of the runs to draw; the longest by default.
        keys: the runs to draw; all by default.

    Raises `RequestError` when no run has such a reading, or that length.
    """
    length, chosen = keys_of_length(results, length, keys)
    frame = readings_by_stage(results, "lyapunov/exponents", chosen, "LyapunovExponents", quantile=0.5)
    directions = frame.groupby(["stage", "cell"])["index"].nunique().rename("directions")
    data = medians_by(frame, ["stage", "cell"], "index").join(directions, on=["stage", "cell"])
    data["share"] = (data["index"] + 0.5) / data["directions"]
    data = data[["stage", "cell", "index", "share", "median", "low", "high", "runs", "of_runs"]]
    cells, band = cells_of(data), band_words(data["of_runs"])
    with house_style():
        figure, axes = panels(2)
        for axis, (stage, title) in zip(axes, STAGES.items(), strict=True):
            cell_lines(axis, data[data["stage"] == stage].assign(share=100 * data["share"]), "share")
            axis.axhline(0, color=BOUND, linewidth=1)
            axis.set(title=title, xlabel="directions, from the slowest to fade (%)")
        axes[0].set_ylabel("Lyapunov exponent (ln per step)")
        lowest = float(data["median"].min())
        axes[0].set_ylim(lowest * 1.05, max(0.1, 0.06 * -lowest))
        legend_below(figure, [*cell_entries(cells), band_entry(band)])
    caption = (
        f"Lyapunov exponents of the whole state, T = {length}, over the length of the task's sequences; for an LSTM of "
        f"c and h together, hence twice as many directions. Line: median over {counted(data['of_runs'])} of each run's "
        f"median over sequences; band: {band}. Zero: neither grown nor faded; −0.69: halved at each step."
    )
    return Picture(figure, data, chosen, caption)
