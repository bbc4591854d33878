"""Beside each other: the gradient that arrives, its signal, and what is left of an informative input in the state."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings
from rnnstudy.figures.drawing import median_line, panels
from rnnstudy.figures.legend import band_entry, bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, counted, medians_by
from rnnstudy.figures.style import BOUND_LINE, house_style, looks_of_sides


@dataclass(frozen=True)
class _Panel:
    """One reading by lag or age, and how it is labelled."""

    reading: str
    axis: str
    title: str
    label: str
    probe: str
    quantile: float | None = None
    reference: float | None = None


_PANELS = (
    _Panel(
        "profile/h_{stage}_normalised", "lag", "does the gradient arrive?", "log₁₀ ‖∂L/∂hₜ‖,\nrelative to lag 0",
        "GradientThroughTime", 0.5,
    ),
    _Panel(
        "signal/W_xh_to_noise_{stage}", "lag", "is it a signal?",
        "log₁₀ of the mean gradient of Wₓₕ\nover its standard error", "GradientSignal", None, 0.0,
    ),
    _Panel(
        "decoded/h_{stage}", "age", "is the input still in the state?",
        "R² of a linear decoder\nof the first mark from hₜ", "StateDecoder", None, 0.0,
    ),
    _Panel(
        "distance/h_relative_{stage}", "age", "how large is its trace?",
        "log₁₀ of the trace's size over\nthat of other differences", "StateDistance", 0.5,
    ),
)  # fmt: skip


def state_and_gradient(
    results: RunsAndReadings, sides: Mapping[str, str], *, stage: str = "initial", keys: Keys = None
) -> Picture:
    """Four panels, a line for each side: gradient by lag, its signal against its noise, what a linear decoder finds of
    the first informative input by its age, and the size of its trace in the state.

    Medians over runs with their band. The dashed lines stand at what means nothing: a mean gradient no larger than its
    standard error, a decoder no better than the mean.

    Args:
        sides: key of a run to the name of its side, in the order of drawing.
        stage: `initial` or `final`.
        keys: the runs to draw, of one task and length; all that have a side by default.

    Raises `RequestError` when the runs lack one of the readings.
    """
    wanted = [key for key in chosen_runs.drawn_keys(results, keys) if key in sides]
    names = list(dict.fromkeys(side for key, side in sides.items() if key in set(wanted)))
    parts = []
    for panel in _PANELS:
        name = panel.reading.format(stage=stage)
        frame = chosen_runs.readings_of(results, name, wanted, ["cell"], panel.quantile)
        frame = chosen_runs.required(frame, name, panel.probe)
        frame = frame.assign(side=frame["key"].map(sides), panel=panel.title).rename(columns={panel.axis: "steps"})
        parts.append(medians_by(frame, ["panel", "side", "cell"], "steps", side=names.index))
    data = pd.concat(parts, ignore_index=True)
    looks = looks_of_sides(dict(zip(data["side"], data["cell"], strict=True)), names)
    with house_style():
        figure, axes = panels(len(_PANELS), height=3.9, share_y=False)
        for axis, panel in zip(axes, _PANELS, strict=True):
            if panel.reference is not None:
                axis.axhline(panel.reference, **BOUND_LINE)
            for side in names:
                line = data[(data["panel"] == panel.title) & (data["side"] == side)]
                if len(line):
                    median_line(axis, line, "steps", alpha=0.15, **looks[side])
            axis.set_title(panel.title)
            axis.set_ylabel(panel.label)
            axis.set_xlabel("lag τ − t (steps back)" if panel.axis == "lag" else "age (steps since it was read)")
        axes[2].set_ylim(-0.25, 1.05)
        entries = [line_entry(side, **looks[side]) for side in names]
        legend_below(figure, [*entries, band_entry("over runs"), bound_entry("no better than chance")])
    runs = data["of_runs"]
    caption = f"{STAGES[stage].capitalize()}; median and {band_words(runs)}, {counted(runs)} for each line."
    return Picture(figure, data, tuple(sorted(wanted)), caption)
