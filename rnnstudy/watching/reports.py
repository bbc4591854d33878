"""What a watched model's gradients look like: as a table, in words, as numbers for a log, and as a figure."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnstudy.probes.reading import QUANTILES
from rnnstudy.spec import RequestError
from rnnstudy.watching.call import Direction
from rnnstudy.watching.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DECADES = 2.0
"""A gradient that changes by more decades than this, a factor of 100, on its way through a sequence vanishes or
explodes."""

REMEDIES = {
    ("LSTM", "vanishing"): "a forget-gate bias of 1 or more (torch draws it around 0), chrono initialisation",
    ("GRU", "vanishing"): "an update-gate bias that keeps the state (z near 1), chrono initialisation",
    ("RNN", "vanishing"): "orthogonal or identity recurrent weights, an LSTM or GRU in its place",
    ("LSTM", "exploding"): "clipping the gradient's norm, orthogonal recurrent weights",
    ("GRU", "exploding"): "clipping the gradient's norm, orthogonal recurrent weights",
    ("RNN", "exploding"): "clipping the gradient's norm, recurrent weights with a spectral radius of at most 1",
}
"""What usually helps: Jozefowicz et al. 2015, Tallec & Ollivier 2018, Le et al. 2015, Pascanu et al. 2013."""


def frame(profiles: Mapping[str, Profile]) -> "pd.DataFrame":
    """A row for each module, layer, direction, state and time (from 1): quantiles over sequences of log10 ‖dL/ds_t‖,
    named `q10` … `q90`, the median as `median`; and the shares of exact zeros and of values that are not finite."""
    import pandas as pd

    parts = []
    for name, profile in profiles.items():
        for state in profile.states:
            columns = {_quantile_name(share): profile.quantile(share, state) for share in QUANTILES}
            columns |= {"zeros": profile.zeros(state), "nonfinite": profile.nonfinite(state)}
            for row, (layer, reverse) in enumerate(profile.rows):
                labels = {"module": name, "layer": layer + 1, "direction": _way(reverse), "state": state}
                times = range(1, columns["zeros"].shape[1] + 1)
                values = {column: of_rows[row].tolist() for column, of_rows in columns.items()}
                parts.append(pd.DataFrame({**labels, "time": times, **values}))
    return pd.concat(parts, ignore_index=True)


def explanation(profiles: Mapping[str, Profile]) -> str:
    """A line for each layer and direction: vanishing, exploding or healthy, by how much per step, and what helps.

    By the gain of a step back, so that it holds for a loss at the end, at every step, or anywhere.
    """
    return "\n".join(
        _line(name, profile, row) for name, profile in profiles.items() for row in range(len(profile.rows))
    )


def verdict(decades: float) -> str:
    """`vanishing`, `exploding` or `healthy`, by how many decades a gradient changes on its way through a sequence."""
    if decades < -DECADES:
        return "vanishing"
    return "exploding" if decades > DECADES else "healthy"


def _line(name: str, profile: Profile, row: int) -> str:
    layer, reverse = profile.rows[row]
    places = [f"layer {layer + 1}"] if profile.rows[-1][0] else []
    places += [_way(reverse)] if profile.rows[-1][1] else []
    where = ", ".join([name or "the model", *places])
    if (bad := profile.first_nonfinite()) is not None:
        return f"{where}: not finite, first at {bad}."
    if not profile.has_gain:
        return f"{where}: {_by_reach(profile)}."
    steps, rate = int(profile.lengths.max()), _mean_gain(profile.log10_gain()[row])
    if math.isnan(rate):
        return f"{where}: no gradient goes back through its steps."
    found = verdict(rate * steps)
    line = f"{where}: {found}. Going back, the gradient {_change(rate)}; over {steps} steps {_factor(rate * steps)}."
    remedy = REMEDIES.get((profile.kind, found))
    return f"{line} What usually helps: {remedy}." if remedy else line


def _by_reach(profile: Profile) -> str:
    """In words, what is known of gradients alone: how far back the loss reaches, and how fast they fall."""
    [rate], steps = profile.rate().tolist(), int(profile.lengths.max())
    reach = f"the loss reaches back {profile.reach()} of {steps - 1} steps (to a hundredth of the largest gradient)"
    if not profile.recurrent or not math.isfinite(rate):
        return reach
    return f"{reach}. From the last step back, the gradient of {profile.states[0]} {_change(rate)}"


def _change(rate: float) -> str:
    """In words, decades per step back."""
    change = f"{'shrinks' if rate < 0 else 'grows'} by a factor of {10 ** abs(rate):.3g} per step"
    return f"{change}, halves in {math.log10(2) / -rate:.3g} steps" if rate < 0 else change


def _factor(decades: float) -> str:
    size = 10 ** min(abs(decades), 4)
    shown = f"{size:.3g}" if size < 1000 else f"{round(size, -1):,.0f}"
    shown = shown if abs(decades) < 4 else f"10^{abs(decades):.0f}"
    return f"that is a factor of {shown}"


def scalars(profiles: Mapping[str, Profile]) -> dict[str, float]:
    """Name to number, for a log; what is not finite is left out.

    Of every state, layer and direction the ratio over the sequence (decades), the rate (decades per step) and the
    half-life (steps), which compare the gradients themselves: they say how fast it falls where the loss is at the end.
    Of recurrent modules of torch.nn the mean gain of a step back (decades), also for a loss at every step; of modules
    that are not recurrent how far back the loss reaches (steps).
    """
    found: dict[str, float] = {}

    def note(value: float, *parts: str) -> None:
        if math.isfinite(value):
            found["/".join(filter(None, ("through_time", *parts)))] = value

    for name, profile in profiles.items():
        if not profile.recurrent:
            note(profile.reach(), name, "x", "reach")
        gains = profile.log10_gain() if profile.has_gain else None
        for row, (layer, reverse) in enumerate(profile.rows):
            place = f"layer{layer + 1}{'_reverse' if reverse else ''}" if len(profile.rows) > 1 else ""
            for state in profile.states:
                for quantity in ("log10_ratio", "rate", "half_life"):
                    value = getattr(profile, quantity)(state)[row].item()
                    note(value, name, "_".join(filter(None, (state, place))), quantity)
            if gains is not None:
                note(_mean_gain(gains[row]), name, place, "log10_gain")
    return found


def _mean_gain(gains: Tensor) -> float:
    """The mean over the steps where it is known; NaN where it is nowhere."""
    return gains[gains.isfinite()].mean().item()


def sender(to: Any) -> Callable[[dict[str, float], int], None]:
    """A function (numbers, step) that writes to MLflow, W&B or TensorBoard, or `to` itself if it is a function.

    Raises `RequestError` for something else.
    """
    if hasattr(to, "log_metrics"):
        return lambda numbers, step: to.log_metrics(numbers, step=step)
    if hasattr(to, "add_scalar"):

        def write(numbers: dict[str, float], step: int) -> None:
            for name, value in numbers.items():
                to.add_scalar(name, value, step)

        return write
    if hasattr(to, "log"):
        return lambda numbers, step: to.log(numbers, step=step)
    if callable(to):
        return to
    raise RequestError(
        f"{type(to).__name__} is nowhere to log to; give mlflow, a W&B run, a TensorBoard writer or a function"
    )


COLUMNS = 3
"""Panels side by side, at most."""

LINES_WITH_BANDS = 2
"""Of more lines in a panel, the bands would hide each other."""


def figure(profiles: Mapping[str, Profile]) -> "Figure":
    """A panel for each module and state: the median over sequences of log10 ‖dL/ds_t‖ by time.

    The colour of a line is its layer, darker further up; it is dashed in the reverse direction. One line, or two, have
    the middle 80 % of sequences as a band. Exact zeros and what is not finite leave gaps.
    """
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    wanted = [(name, state) for name, profile in profiles.items() for state in profile.states]
    columns = min(len(wanted), COLUMNS if all(len(profile.states) == 1 for profile in profiles.values()) else 2)
    rows = -(-len(wanted) // columns)
    drawn = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    panels = drawn.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(wanted) :]:
        panel.remove()
    for panel, (name, state) in zip(panels.flat, wanted, strict=False):
        profile = profiles[name]
        lines = list(_lines(profile, state))
        layers = profile.rows[-1][0] + 1
        colours = sns.color_palette("crest", n_colors=layers) if layers > 1 else sns.color_palette(n_colors=1)
        for (layer, reverse), label, low, median, high in lines:
            time = torch.arange(1, len(median) + 1)
            if len(lines) <= LINES_WITH_BANDS:
                panel.fill_between(time, low, high, color=colours[layer], alpha=0.2, linewidth=0)
            # A loss on one output of a direction reaches one step of it, which is no line.
            marker = "o" if sum(map(math.isfinite, median)) == 1 else ""
            dash = "--" if reverse else "-"
            panel.plot(time, median, color=colours[layer], linestyle=dash, marker=marker, markersize=4, label=label)
        panel.set(
            title=f"{name or 'the model'}: {state}", xlabel="time step", ylabel=rf"$\log_{{10}}\,\|dL/d{state}_t\|$"
        )
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            panel.legend(frameon=False, fontsize="small")
        sns.despine(ax=panel)
    return drawn


def _lines(profile: Profile, state: str) -> Iterator[tuple[Direction, str, Any, Any, Any]]:
    """Layer and direction, label and quantiles of each line; −inf and NaN leave gaps."""
    low, median, high = (
        values.nan_to_num(nan=torch.nan, neginf=torch.nan, posinf=torch.nan).cpu().numpy()
        for values in (profile.quantile(share, state) for share in (0.1, 0.5, 0.9))
    )
    directions = len({reverse for _, reverse in profile.rows})
    for row, (layer, reverse) in enumerate(profile.rows):
        parts = [f"layer {layer + 1}"] if profile.rows[-1][0] else []
        parts += [_way(reverse)] if directions > 1 else []
        yield (layer, reverse), ", ".join(parts), low[row], median[row], high[row]


def _way(reverse: bool) -> str:
    return "reverse" if reverse else "forward"


def _quantile_name(share: float) -> str:
    return "median" if share == 0.5 else f"q{100 * share:.0f}"
