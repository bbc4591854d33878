"""Diagrams of networks hold the numbers that were put in, and refuse what does not fit."""

import math

import pytest
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from rnnstudy import figures
from rnnstudy.figures.picture import Picture
from rnnstudy.spec import RequestError


def words(picture: Picture) -> list[str]:
    return [text.get_text() for axis in picture.figure.axes for text in axis.texts]


def arrows(picture: Picture) -> list[FancyArrowPatch]:
    return [patch for patch in picture.figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def ends_of(arrow: FancyArrowPatch) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow begins and ends, in steps and rows; `get_path` would be in pixels."""
    vertices = arrow._path_original.vertices  # type: ignore[attr-defined]
    return tuple(vertices[0]), tuple(vertices[-1])


def boxes(picture: Picture) -> int:
    return sum(isinstance(patch, FancyBboxPatch) for patch in picture.figure.axes[0].patches)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.4621, "0.46"), (-1.23, "−1.2"), (3.1e-5, "3.1×10⁻⁵"), (-2e7, "−2.0×10⁷"), (1.0, "1"), (-0.0, "0"),
        (0.0123, "0.012"), (0.00123, "0.0012"), (162.4, "162"), (math.nan, ""), (-math.inf, "−∞"),
    ],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str) -> None:
    assert figures.number_text(number) == text


def test_an_unfolded_network_has_a_box_for_each_node_and_an_arrow_for_each_weight() -> None:
    steps = 4
    picture = figures.unfolded(steps, nodes={"x": [1, 2, 3, 4]}, caption="Of a test.")
    counted = picture.data.groupby(["what", "name"]).size().to_dict()
    assert counted == {
        ("arrow", "W_xh"): 4, ("arrow", "W_hh"): 3, ("arrow", "W_ho"): 4,
        ("node", "x"): 4, ("node", "h"): 4, ("node", "o"): 4,
    }  # fmt: skip
    assert boxes(picture) == 12
    assert len(arrows(picture)) == 11
    assert {"1", "2", "3", "4", "x₁", "h₄", "o₂", "step 3"} <= set(words(picture))
    assert (picture.keys, picture.caption) == ((), "Of a test.")


@pytest.mark.parametrize(
    ("recurrence", "weights", "ends"),
    [
        ("hidden", "W_hh", ((1, 1), (2, 1))),
        ("output to hidden", "W_oh", ((1, 2), (2, 1))),
        ("output to output", "W_oo", ((1, 2), (2, 2))),
    ],
)
def test_a_recurrence_leads_from_a_step_to_the_next(recurrence: str, weights: str, ends: tuple) -> None:
    picture = figures.unfolded(2, recurrences=[recurrence], caption="")
    assert set(picture.data[picture.data["what"] == "arrow"]["name"]) == {"W_xh", "W_ho", weights}
    [across] = [(start, end) for start, end in map(ends_of, arrows(picture)) if start[0] != end[0]]
    for found, (x, y) in zip(across, ends, strict=True):
        assert math.hypot(found[0] - x, found[1] - y) < 0.45


def test_shapes_of_tasks_leave_out_what_is_not_read_or_answered() -> None:
    picture = figures.unfolded(5, inputs=[1], outputs=[4, 5], targets=["a", "b", "c", "d", "e"], caption="")
    counted = picture.data.groupby(["what", "name"]).size().to_dict()
    assert (counted["node", "x"], counted["node", "h"], counted["node", "o"]) == (1, 5, 2)
    assert (counted["arrow", "W_xh"], counted["arrow", "W_ho"], counted["target", "o"]) == (1, 2, 2)
    assert {"d", "e", "target:"} <= set(words(picture))
    assert not {"a", "b", "c"} & set(words(picture))


def test_layers_have_names_of_their_own() -> None:
    picture = figures.unfolded(
        3, layers=2, nodes={"h2": [0.1, 0.2, 0.3]}, arrows={"W_xh_layer2": [7, 8, 9]}, folded=True, caption=""
    )
    names = set(picture.data[picture.data["what"] == "arrow"]["name"])
    assert names == {"W_xh_layer1", "W_hh_layer1", "W_xh_layer2", "W_hh_layer2", "W_ho"}
    assert {"h¹₃", "h²₁", "0.20", "7", "8", "9", "W_hh²", "folded"} <= set(words(picture))
    held = picture.data[picture.data["name"] == "h2"]["number"].tolist()
    assert held == [0.1, 0.2, 0.3]


def test_a_gradient_goes_against_time_and_fades() -> None:
    gradient = [math.nan, 0.01, 0.1, 0.5]
    picture = figures.unfolded(
        4, outputs=[4], arrows={"W_hh": gradient, "W_ho": [math.nan] * 3 + [1.0]}, backward=True, caption=""
    )
    assert len(arrows(picture)) == 4
    back = [one for one in arrows(picture) if ends_of(one)[0][1] == ends_of(one)[1][1]]
    assert all(start[0] > end[0] for start, end in map(ends_of, back))
    drawn = sorted(back, key=lambda one: ends_of(one)[0][0])
    widths = [one.get_linewidth() for one in drawn]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3
    assert {"0.010", "0.10", "0.50", "1"} <= set(words(picture))


def test_equal_diagrams_have_equal_bytes() -> None:
    first, second = (figures.unfolded(2, folded=True, title="Again", caption="") for _ in range(2))
    for kind in ("png", "svg"):
        assert figures.rendered(first.figure, kind) == figures.rendered(second.figure, kind)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "over 0 steps cannot be drawn; it takes at least 1"),
        ({"layers": 0}, "network of 0 layers"),
        ({"recurrences": ["hiden"]}, "there is no recurrence 'hiden'; did you mean 'hidden'"),
        ({"nodes": {"y": [1, 2]}}, "there is no node 'y'"),
        ({"nodes": {"h1": [1, 2]}}, "there is no node 'h1'.*it is one of x, h, o"),
        ({"arrows": {"W_hx": [1, 2]}}, "there is no arrow 'W_hx'"),
        ({"arrows": {"W_hh": [1]}}, "arrow W_hh has 1 values; it takes one for each of the 2 steps"),
        ({"targets": ["a"]}, "output o has 1 values"),
        ({"inputs": [0]}, "inputs has step 0; steps are counted from 1 to 2"),
        ({"outputs": [3]}, "outputs has step 3"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        figures.unfolded(**({"steps": 2, "caption": ""} | arguments))


def lstm_numbers() -> dict[str, float]:
    """A step of torch.nn.LSTMCell with one unit."""
    torch.manual_seed(0)
    cell = nn.LSTMCell(1, 1, dtype=torch.float64)
    x, h, c = (torch.tensor([[value]], dtype=torch.float64) for value in (0.7, -0.2, 0.9))
    with torch.no_grad():
        new_h, new_c = cell(x, (h, c))
        i, f, g, o = (x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh)[0].tolist()
    gates = {name: 1 / (1 + math.exp(-value)) for name, value in {"i": i, "f": f, "o": o}.items()}
    before = {"x": 0.7, "h_before": -0.2, "c_before": 0.9}
    return {**before, **gates, "C̃": math.tanh(g), "c": float(new_c), "h": float(new_h)}


def test_the_step_of_an_lstm_is_that_of_torch() -> None:
    values = lstm_numbers()
    picture = figures.lstm_step(values, caption="")
    held = picture.data.set_index("name")["number"].to_dict()
    assert held["f × c_before"] + held["i × C̃"] == pytest.approx(values["c"], abs=1e-12)
    assert held["o"] * held["tanh(c)"] == pytest.approx(values["h"], abs=1e-12)
    assert {figures.number_text(value) for value in values.values()} <= set(words(picture))


def test_numbers_that_are_not_those_of_a_step_are_refused() -> None:
    values = lstm_numbers()
    with pytest.raises(RequestError, match="an LSTM step needs f, h; it takes x, h_before"):
        figures.lstm_step({name: value for name, value in values.items() if name not in ("f", "h")}, caption="")
    with pytest.raises(RequestError, match=r"c is 0\.5; with these gates one LSTM step gives"):
        figures.lstm_step(values | {"c": 0.5}, caption="")


def test_bars_by_word_have_one_scale_and_the_order_of_the_text() -> None:
    texts = {"one": [("not", -0.4), ("good", 1.5), ("not", 0.0)], "two": [("fine", 0.2)]}
    picture = figures.gradient_by_word(texts, label="size", up="up", down="down", caption="")
    assert picture.data["word"].tolist() == ["not", "good", "not", "fine"]
    left, right = picture.figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert [bar.get_width() for bar in left.patches] == [-0.4, 1.5, 0.0]
    assert left.patches[0].get_facecolor() != left.patches[1].get_facecolor()
    for wrong, message in (({}, "there is no text"), ({"empty": []}, "the text 'empty' has no words")):
        with pytest.raises(RequestError, match=message):
            figures.gradient_by_word(wrong, label="", up="", down="", caption="")
