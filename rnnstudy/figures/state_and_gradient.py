"""Beside each other: the gradient that arrives, its signal, and what is left of an informative input in the state."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from rnnstudy.figures import chosen_runs
from rnnstudy.figures.chosen_runs import STAGES, Keys, RunsAndReadings
from rnnstudy.figures.drawing import panels
from rnnstudy.figures.legend import bound_entry, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import counted
from rnnstudy.figures.style import BOUND_LINE, house_style, looks_of_sides


@dataclass(frozen=True)
class _Panel:
    """One reading by lag or age, and how it is labelled; drawn is its running median over so many `neighbours`.

    Where runs cross each other all the time, a thick line at the `median` of a side stands before them.
    """

    reading: str
    axis: str
    title: str
    label: str
    probe: str
    quantile: float | None = None
    reference: float | None = None
    neighbours: int = 1
    median: bool = False


_PANELS = (
    _Panel(
        "profile/h_{stage}_normalised", "lag", "does the gradient arrive?", "log₁₀ ‖∂L/∂hₜ‖,\nrelative to lag 0",
        "GradientThroughTime", 0.5,
    ),
    _Panel(
        "signal/W_xh_to_noise_{stage}", "lag", "is it a signal?",
        "log₁₀ of the mean gradient\nof Wₓₕ over its standard error", "GradientSignal", None, 0.0, 9, True,
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

    Each line is a run: the runs of a side can fall into groups, between which a median would stand where no run is. The
    signal, which is mostly noise from lag to lag, is the running median over nine lags, with the runs behind the median
    of their side. The dashed lines stand at what means nothing: a mean gradient no larger than its standard error, a
    decoder no better than the mean.

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
        frame = chosen_runs.ordered(frame, ["side", "key", "steps"], side=names.index)
        around = frame.groupby("key")["value"].rolling(panel.neighbours, center=True, min_periods=1).median()
        frame["value"] = around.reset_index("key", drop=True) if panel.neighbours > 1 else frame["value"]
        parts.append(frame[["panel", "side", "cell", "key", "steps", "value"]].dropna(subset=["value"]))
    data = pd.concat(parts, ignore_index=True)
    looks = looks_of_sides(dict(zip(data["side"], data["cell"], strict=True)), names)
    with house_style():
        figure, axes = panels(len(_PANELS), height=3.9, share_y=False)
        for axis, panel in zip(axes, _PANELS, strict=True):
            if panel.reference is not None:
                axis.axhline(panel.reference, **BOUND_LINE)
            for side in names:
                own = data[(data["panel"] == panel.title) & (data["side"] == side)]
                for _, run in own.groupby("key", sort=False):
                    seen = {"linewidth": 0.6, "alpha": 0.3} if panel.median else {"linewidth": 1.1, "alpha": 0.8}
                    axis.plot(run["steps"], run["value"], **seen, **looks[side])
                if panel.median:
                    middle = own.groupby("steps")["value"].median()
                    axis.plot(middle.index, middle, linewidth=2.0, zorder=3, **looks[side])
            axis.set_title(panel.title)
            axis.set_ylabel(panel.label)
            axis.set_xlabel("lag τ − t (steps back)" if panel.axis == "lag" else "age (steps since it was read)")
        axes[2].set_ylim(-0.1, 1.05)
        entries = [line_entry(side, **looks[side]) for side in names]
        legend_below(figure, [*entries, bound_entry("no better than chance")])
    runs = data.groupby("side")["key"].nunique()
    caption = (
        f"{STAGES[stage].capitalize()}; each line is a run, {counted(runs)} for each side. The signal is the running "
        f"median over {_PANELS[1].neighbours} lags; there the thick line is the median of a side's runs."
    )
    return Picture(figure, data, tuple(sorted(wanted)), caption)
