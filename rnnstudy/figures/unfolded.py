"""A recurrent network unfolded over time: a copy of it for every step, with the numbers of a run."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log10, nan
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.path import Path

from rnnstudy.figures.diagram import GAP, HALF_HEIGHT, HALF_WIDTH, SUBSCRIPTS, arrow, box, curve, diagram, number_text
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import DASHED, STYLES, house_style
from rnnstudy.spec import RequestError, nearest

RECURRENCES: Mapping[str, tuple[str, str, str]] = {
    "hidden": ("W_hh", "h", "h"),
    "output to hidden": ("W_oh", "o", "h"),
    "output to output": ("W_oo", "o", "o"),
}
"""Recurrence to its weights, and from which row of the step before to which row of this step they lead."""

DECADES = 2
"""A gradient this many decades below the largest one has the thinnest and palest arrow."""

BACKWARD = STYLES["Elman"].colour
"""The colour of gradients, which go against the arrows of the network."""


@dataclass(frozen=True)
class _Connection:
    """Weights `name` from a row of `before` steps earlier to a row of this step."""

    name: str
    source: str
    target: str
    before: int = 0


@dataclass(frozen=True)
class _Place:
    """A node or an arrow of the table, with its number."""

    what: str
    name: str
    step: int
    number: float


def unfolded(
    steps: int,
    *,
    recurrences: Sequence[str] = ("hidden",),
    layers: int = 1,
    inputs: Collection[int] | None = None,
    outputs: Collection[int] | None = None,
    nodes: Mapping[str, Sequence[float | str]] = {},
    targets: Sequence[float | str] = (),
    arrows: Mapping[str, Sequence[float]] = {},
    backward: bool = False,
    folded: bool = False,
    weight_names: bool = True,
    across: float = 1.6,
    title: str = "",
    caption: str,
) -> Picture:
    """A network over `steps` time steps: inputs x below, hidden layers h above them, outputs o on top, time across.

    Nodes are named x, h and o; in a network of several layers h1, h2, … from below. Arrows are named as their weights,
    W_xh, W_hh, W_ho, W_oh, W_oo; in a network of several layers W_xh_layer1, W_hh_layer1, W_xh_layer2, …. A number on
    an arrow is whatever the caller computed for it. The table has one row for each node and arrow.

    Args:
        recurrences: which of `hidden`, `output to hidden` and `output to output` lead from a step to the next.
        layers: hidden layers on top of each other.
        inputs: the steps, counted from 1, that read an input; all when None.
        outputs: the steps, counted from 1, whose output is used; all when None.
        nodes: node to what stands in it at every step: a number or a word.
        targets: what each output should be, written above it; none when empty.
        arrows: arrow to its number at every step; NaN where it has none. A recurrent arrow of step t comes from t − 1.
        backward: the numbers are gradients: only arrows with a number are drawn, they point against time, and they are
            the thinner and paler the smaller the number.
        folded: draw the network before unfolding, with its loop, on the left.
        weight_names: write on an arrow without number the name of its weights.
        across: inches for each step.
        title: one message in words.
        caption: what the numbers are.

    Raises `RequestError` for fewer than one step or layer, an unknown recurrence, node, arrow or step, and for a number
    of values that is not the number of steps.
    """
    if steps < 1 or layers < 1:
        raise RequestError(
            f"a network of {layers} layers over {steps} steps cannot be drawn; it takes at least 1 of each"
        )
    for recurrence in recurrences:
        if recurrence not in RECURRENCES:
            raise RequestError(
                f"there is no recurrence '{recurrence}'{nearest(recurrence, RECURRENCES) or ';'} "
                f"it is one of {', '.join(RECURRENCES)}"
            )
    present = {"x": _steps_of("inputs", inputs, steps), "o": _steps_of("outputs", outputs, steps)}
    hidden = [f"h{layer + 1}" if layers > 1 else "h" for layer in range(layers)]
    heights = {name: height for height, name in enumerate(["x", *hidden, "o"])}
    connections = list(_connections(recurrences, hidden))
    _require_values("node", nodes, heights, steps)
    _require_values("output", {"o": targets} if targets else {}, heights, steps)
    _require_values("arrow", arrows, [one.name for one in connections], steps)
    every = range(1, steps + 1)
    places: list[_Place] = []
    with house_style():
        left, top = -1.6 if folded else 0.6, len(heights) - (0.4 if targets else 0.65)
        figure, axis = diagram((left, steps + 0.4), (-0.7, top), title=title, across=across)
        largest = max((abs(value) for values in arrows.values() for value in values if value == value), default=1.0)
        for connection in connections:
            for step in every:
                before = step - connection.before
                exists = before >= 1 and before in present.get(connection.source, every)
                if not exists or step not in present.get(connection.target, every):
                    continue
                number = float(arrows[connection.name][step - 1]) if connection.name in arrows else nan
                if backward and number != number:
                    continue
                places.append(_Place("arrow", connection.name, step, number))
                ends = (before, heights[connection.source]), (step, heights[connection.target])
                named = _weight_text(connection.name) if weight_names else ""
                text = number_text(number) if connection.name in arrows else named
                weight = _strength(number, largest) if backward else 1.0
                _draw(axis, connection, *ends, text, weight=weight, backward=backward)
        for name, height in heights.items():
            for step in every:
                if step not in present.get(name, every):
                    continue
                value = nodes[name][step - 1] if name in nodes else ""
                places.append(_Place("node", name, step, nan if isinstance(value, str) else float(value)))
                label = _node_text(name, step)
                box(axis, step, height, label, value if isinstance(value, str) else number_text(value), kind=name[0])
        if targets:
            for step in sorted(present["o"]):
                target = targets[step - 1]
                places.append(_Place("target", "o", step, nan if isinstance(target, str) else float(target)))
                words = target if isinstance(target, str) else number_text(target)
                axis.text(step, heights["o"] + HALF_HEIGHT + 0.12, words, ha="center", va="center", color="0.35")
            first = min(present["o"]) - HALF_WIDTH - 0.1
            axis.text(first, heights["o"] + HALF_HEIGHT + 0.12, "target:", ha="right", va="center", color="0.35")
        if folded:
            _draw_folded(axis, connections, heights)
        for step in every:
            axis.text(step, -0.47, f"step {step}", ha="center", va="top", color="0.35", fontsize=9)
    return Picture(figure, pd.DataFrame(places), (), caption)


def _connections(recurrences: Sequence[str], hidden: Sequence[str]) -> Iterator[_Connection]:
    """All weights of the network, from below."""
    for number, name in enumerate(hidden):
        layer = f"_layer{number + 1}" if len(hidden) > 1 else ""
        yield _Connection(f"W_xh{layer}", hidden[number - 1] if number else "x", name)
        for recurrence in recurrences:
            weights, source, target = RECURRENCES[recurrence]
            if target == "h":
                yield _Connection(f"{weights}{layer}", name if source == "h" else source, name, before=1)
    yield _Connection("W_ho", hidden[-1], "o")
    if "output to output" in recurrences:
        yield _Connection("W_oo", "o", "o", before=1)


def _steps_of(what: str, chosen: Collection[int] | None, steps: int) -> Collection[int]:
    every = range(1, steps + 1)
    wrong = [step for step in chosen or () if step not in every]
    if wrong:
        raise RequestError(f"{what} has step {wrong[0]}; steps are counted from 1 to {steps}")
    return every if chosen is None else chosen


def _require_values(what: str, given: Mapping[str, Sequence[object]], known: Collection[str], steps: int) -> None:
    for name, values in given.items():
        if name not in known:
            raise RequestError(
                f"there is no {what} '{name}'{nearest(name, known) or ';'} it is one of {', '.join(known)}"
            )
        if len(values) != steps:
            raise RequestError(f"{what} {name} has {len(values)} values; it takes one for each of the {steps} steps")


def _node_text(name: str, step: int) -> str:
    """h₃, or h²₃ for layer 2."""
    layer = name[1:].translate(str.maketrans("123456789", "¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{name[0]}{layer}{str(step).translate(SUBSCRIPTS)}"


def _weight_text(name: str) -> str:
    """W_hh², for layer 2."""
    weights, _, layer = name.partition("_layer")
    return weights + layer.translate(str.maketrans("123456789", "¹²³⁴⁵⁶⁷⁸⁹"))


def _strength(number: float, largest: float) -> float:
    """From 0 for a gradient `DECADES` below the largest one, or none, to 1 for the largest."""
    if not number or number != number:
        return 0.0
    return min(1.0, max(0.0, 1 + log10(abs(number) / largest) / DECADES))


def _draw(
    axis: Axes,
    connection: _Connection,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str,
    *,
    weight: float,
    backward: bool,
) -> None:
    # Recurrences to or from the outputs are dashed: they run beside other arrows.
    dashed = connection.before > 0 and "o" in (connection.source, connection.target)
    line: dict[str, Any] = {"linestyle": DASHED if dashed else "-"}
    if backward:
        start, end = end, start
        line |= {"color": BACKWARD, "linewidth": 0.8 + 4.2 * weight, "alpha": 0.25 + 0.75 * weight}
    arrow(axis, start, end, text, text_colour=BACKWARD if backward else "0.15", **line)


def _draw_folded(axis: Axes, connections: Sequence[_Connection], heights: Mapping[str, int]) -> None:
    """The network as it is written down, with loops for what leads to the next step."""
    x = -1.2
    for connection in connections:
        low, high = heights[connection.source], heights[connection.target]
        if connection.before == 0:
            arrow(axis, (x, low), (x, high), _weight_text(connection.name))
            continue
        # Out of the right side of a node, and into that side again, or into that of the node below.
        out, bow = x + HALF_WIDTH + GAP, 0.42 if low == high else 0.5
        start, end = (low + 0.1, high - 0.1) if low == high else (low - 0.08, high + 0.08)
        reach = 0.35 if low == high else 0.0
        corners = [(out, start), (out + bow, start + reach), (out + bow, end - reach), (out, end)]
        loop = Path(corners, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        curve(axis, loop, linestyle=DASHED if "o" in (connection.source, connection.target) else "-")
        beside = 0.36 if low == high else 0.42
        axis.text(out + beside, (low + high) / 2, _weight_text(connection.name), fontsize=9.5, va="center", ha="left")
    for name, height in heights.items():
        box(axis, x, height, f"{name[0]}{_weight_text('_layer' + name[1:])}" if name[1:] else name, "", kind=name[0])
    axis.text(x, -0.47, "folded", ha="center", va="top", color="0.35", fontsize=9)
    axis.text(-0.05, (len(heights) - 1) / 2, "=", fontsize=22, ha="center", va="center", color="0.35")
