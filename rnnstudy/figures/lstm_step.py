"""One step of an LSTM, gate by gate, with the numbers of a unit and the two paths from step to step."""

from collections.abc import Mapping
from math import isclose, tanh
from typing import Any

import pandas as pd
from matplotlib.path import Path

from rnnstudy.figures.diagram import GAP, HALF_HEIGHT, arrow, box, curve, diagram, number_text
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import DASHED, STYLES, house_style
from rnnstudy.spec import RequestError

NEEDED = ("x", "h_before", "c_before", "f", "i", "C̃", "o", "c", "h")
"""The numbers of one step: input, states before it, gates and candidate, states after it."""

CELL_PATH: Mapping[str, Any] = {"color": STYLES["LSTM"].colour, "linewidth": 3.2}
"""How the path along c is drawn, which only the forget gate multiplies."""

HIDDEN_PATH: Mapping[str, Any] = {"color": STYLES["Elman"].colour, "linewidth": 2.0, "linestyle": DASHED}
"""How the path through h is drawn, which goes through the weight matrices and all gates."""

GATES = {"f": (1.9, "forget gate"), "i": (3.2, "input gate"), "C̃": (4.6, "candidate"), "o": (5.9, "output gate")}
"""Gate to its place across and its name."""


def lstm_step(values: Mapping[str, float], *, title: str = "", caption: str) -> Picture:
    """c_t = f c_{t−1} + i C̃ and h_t = o tanh(c_t) as a diagram, with the numbers of one unit on it.

    The path along c is a thick line, the path through h is dashed. The table has one row for each number.

    Args:
        values: the numbers of the step: x, h_before, c_before, f, i, C̃, o, c, h.
        title: one message in words.
        caption: where the numbers come from.

    Raises `RequestError` for numbers that are missing, or that are not those of one LSTM step.
    """
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise RequestError(f"an LSTM step needs {', '.join(missing)}; it takes {', '.join(NEEDED)}")
    kept, added, squashed = values["f"] * values["c_before"], values["i"] * values["C̃"], tanh(values["c"])
    for name, expected in (("c", kept + added), ("h", values["o"] * squashed)):
        if not isclose(values[name], expected, rel_tol=1e-4, abs_tol=1e-6):
            raise RequestError(f"{name} is {values[name]:.6g}; with these gates one LSTM step gives {expected:.6g}")
    cell, gate, bus = 3.0, 1.3, 0.35
    with house_style():
        figure, axis = diagram((-0.4, 8.4), (-0.5, 3.6), title=title, across=1.15, up=1.1)
        text = {name: number_text(value) for name, value in values.items()}
        # The path along c.
        arrow(axis, (0, cell), (1.9, cell), **CELL_PATH)
        arrow(axis, (1.9, cell), (3.9, cell), number_text(kept), **CELL_PATH)
        arrow(axis, (3.9, cell), (8.0, cell), **CELL_PATH)
        # The path through h: from h and x to every gate.
        curve(axis, Path([(0.3, bus), (5.9, bus)]), **{**HIDDEN_PATH, "arrowstyle": "-"})
        for x, _ in GATES.values():
            curve(axis, Path([(x, bus), (x, gate - 0.27)]), **HIDDEN_PATH)
        for start, end, number in (
            ((1.9, gate), (1.9, cell), ""),
            ((3.2, gate), (3.9, 2.15), ""),
            ((4.6, gate), (3.9, 2.15), ""),
            ((3.9, 2.15), (3.9, cell), number_text(added)),
            ((5.9, gate), (6.9, gate), ""),
            ((6.9, 2.15), (6.9, gate), number_text(squashed)),
        ):
            arrow(axis, start, end, number)
        curve(axis, Path([(6.9, cell), (6.9, 2.15 + HALF_HEIGHT + GAP)]))
        arrow(axis, (6.9, gate), (8.0, gate), **HIDDEN_PATH)
        box(axis, 0, cell, "cₜ₋₁", text["c_before"], kind="c")
        box(axis, 8.0, cell, "cₜ", text["c"], kind="c")
        box(axis, 0, bus, "hₜ₋₁", text["h_before"], kind="h")
        box(axis, 0, bus - 0.55, "xₜ", text["x"], kind="x")
        curve(axis, Path([(0.3, bus - 0.55), (0.75, bus - 0.55), (0.75, bus)]), arrowstyle="-")
        box(axis, 8.0, gate, "hₜ", text["h"], kind="h")
        for name, (x, words) in GATES.items():
            box(axis, x, gate, name, text[name], kind="o")
            axis.text(x + 0.32, gate - 0.33, words, fontsize=9, color="0.35", ha="left", va="center")
        for x, y, sign in ((1.9, cell, "×"), (3.9, cell, "+"), (3.9, 2.15, "×"), (6.9, 2.15, "tanh"), (6.9, gate, "×")):
            box(axis, x, y, sign, kind="·")
        axis.text(2.9, cell + 0.36, "the path along c", color=CELL_PATH["color"], fontsize=10, ha="center")
        axis.text(
            4.4, bus - 0.3, "the path through h and the weights", color=HIDDEN_PATH["color"], fontsize=10, ha="center"
        )
    products = {"f × c_before": kept, "i × C̃": added, "tanh(c)": squashed}
    rows = [{"name": name, "number": value} for name, value in {**{n: values[n] for n in NEEDED}, **products}.items()]
    return Picture(figure, pd.DataFrame(rows), (), caption)
