"""The explorable explanation in a browser: its numbers are the package's, and it can be used as it says.

Needs the extra `browser` and a Chromium, as `test_browser` does.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnnstudy
from rnnstudy.figures.single_unit import Unit, descend
from rnnstudy.report.explore import DESCENT, LONGEST, WIDTH, explore_page, network

pytestmark = pytest.mark.slow

SETTINGS = 100

# Moves the controls as a reader does, waits until the page has drawn, and returns what it drew and what it read.
MOVE = """async (setting) => {
  const { cell, draw, ...sliders } = setting;
  form.elements.cell.value = cell;
  form.elements.draw.value = draw;
  for (const [id, value] of Object.entries(sliders)) $(id).value = value;
  $("gain").dispatchEvent(new Event("input", { bubbles: true }));
  for (let k = 0; k < 2; k += 1) await new Promise(requestAnimationFrame);
  return { ...shown, seen: $("seen").textContent, width: document.documentElement.scrollWidth };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("page") / "explore.html"
    file.write_bytes(explore_page())
    return file.as_uri()


def random_settings() -> list[dict[str, Any]]:
    """Settings at which the sliders can stand: 25 of each network, the ends among them."""
    random = np.random.default_rng(20)
    return [
        {
            "cell": ("tanh", "relu", "linear", "lstm")[number % 4],
            "draw": str(random.integers(3)),
            "gain": round(float(random.choice([0.0, 1.6])) if number < 8 else random.integers(161) / 100, 2),
            "length": int((2, LONGEST)[number % 2]) if number < 16 else int(random.integers(2, LONGEST + 1)),
            "forgetBias": round(random.integers(-20, 61) / 10, 1),
            "threshold": round(random.integers(-20, 21) / 10, 1),
        }
        for number in range(SETTINGS)
    ]


def double(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def reference(setting: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """log10 of the gradient by lag for each state, by `watch`, and the Jacobian of the last step, (before, after)."""
    draw = network(int(setting["draw"]))
    x = double(draw["inputs"])[: setting["length"], None, None]
    readout = double(draw["readout"])
    if setting["cell"] == "linear":
        return linear_reference(draw, setting["gain"], x[:, 0], readout)
    lstm = setting["cell"] == "lstm"
    weights = draw["lstm" if lstm else "rnn"]
    model = nn.LSTM(1, WIDTH) if lstm else nn.RNN(1, WIDTH, nonlinearity=setting["cell"])
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.weight_hh_l0.copy_(setting["gain"] * double(weights["recurrent"]).T)
        model.weight_ih_l0.copy_(double(weights["input"])[:, None])
        if lstm:
            model.bias_ih_l0[WIDTH : 2 * WIDTH] = setting["forgetBias"]
    with rnnstudy.watch(model) as flow:
        outputs, _ = model(x)
        (outputs[-1, 0] @ readout).backward()
    profile = {state: flow[""].per_sequence(state)[0, :, 0].flip(0).numpy() for state in ("hc" if lstm else "h")}

    with torch.no_grad():
        start = torch.zeros(1, 1, WIDTH, dtype=torch.float64)
        before = (start, start) if lstm else start
        if len(x) > 1:
            _, before = model(x[:-1])

    def step(state: torch.Tensor) -> torch.Tensor:
        parts = state.view(-1, 1, 1, WIDTH)
        _, after = model(x[-1:], (parts[0], parts[1]) if lstm else parts[0])
        return torch.cat([part.flatten() for part in (after if lstm else [after])])

    flat = torch.cat([part.flatten() for part in (before if lstm else [before])])
    return profile, torch.autograd.functional.jacobian(step, flat).T.numpy()


def linear_reference(draw: dict[str, Any], gain: float, x: torch.Tensor, readout: torch.Tensor) -> Any:
    """`reference` of the RNN without a squashing function, which torch has not: a loop and autograd."""
    weights = gain * double(draw["rnn"]["recurrent"])
    h, states = torch.zeros(WIDTH, dtype=torch.float64), []
    for value in x:
        h = (value * double(draw["rnn"]["input"]) + h @ weights).requires_grad_()
        states.append(h)
    gradients = torch.autograd.grad(h @ readout, states)
    profile = torch.stack(gradients).norm(dim=1).log10().flip(0)
    return {"h": profile.numpy()}, weights.numpy()


def assert_eigenvalues(found: list[list[float]], matrix: np.ndarray) -> None:
    """The product of (z − λ) is det(z − A) at some z outside the spectrum.

    Single eigenvalues of a matrix that is nearly defective differ between sound algorithms; this product does not.
    """
    values = np.array([complex(*value) for value in found])
    assert len(values) == len(matrix)
    reach = 1.5 * max(1.0, np.abs(values).max())
    for z in reach * np.exp(2j * np.pi * np.arange(7) / 7 + 0.1j):
        assert np.prod(z - values) == pytest.approx(np.linalg.det(z * np.eye(len(matrix)) - matrix), rel=1e-10)


def assert_descent(path: list[dict[str, float]], length: int, threshold: float | None) -> None:
    """Each point of the path has the package's loss and gradient, and the next one follows by the package's update."""
    unit = Unit(steps=length)
    w, b, loss, steepness = (np.array([point[name] for point in path]) for name in ("w", "b", "loss", "steepness"))
    assert [w[0], b[0]] == DESCENT["start"]
    assert len(w) == DESCENT["updates"] + 1
    ours = descend(unit, w, b, learning_rate=DESCENT["rate"], updates=1, threshold=threshold)
    # On the cliff the loss turns on the last digits of w and b: rounding grows as the gradient does.
    close = 1e-9 * np.maximum(1, steepness)
    assert (np.abs(ours.loss[0] - loss) <= close).all()
    assert (np.abs(ours.gradient_norm[0] - steepness) <= close * np.maximum(1, steepness)).all()
    moved = close * np.maximum(1, steepness)
    assert (np.abs(ours.w[1, :-1] - w[1:]) <= moved[:-1]).all()
    assert (np.abs(ours.b[1, :-1] - b[1:]) <= moved[:-1]).all()


def test_on_a_hundred_random_settings_the_numbers_are_the_packages(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    vanished = 0
    for setting in random_settings():
        drawn = page.evaluate(MOVE, setting)
        read = drawn["setting"]
        wanted = {**setting, "draw": int(setting["draw"]), "threshold": 10 ** setting["threshold"]}
        assert {**read, "cell": 0} == pytest.approx({**wanted, "cell": 0}, rel=1e-12)
        assert read["cell"] == setting["cell"]
        result = drawn["result"]
        profile, jacobian = reference(setting)
        assert set(result["profile"]) == set(profile)
        for state, log10 in profile.items():
            assert np.array(result["profile"][state], float) == pytest.approx(log10, abs=1e-9), setting
            vanished += int(np.isneginf(log10).any())
        assert_eigenvalues(result["stepSpectrum"], jacobian)
        if setting["cell"] != "lstm":
            recurrent = setting["gain"] * np.array(network(int(setting["draw"]))["rnn"]["recurrent"])
            assert_eigenvalues(result["spectrum"], recurrent)
        assert_descent(result["free"], setting["length"], None)
        assert_descent(result["clipped"], setting["length"], read["threshold"])
    assert vanished >= 2, "exact zeros are among them"
    page.close()


def test_the_surface_is_the_units_loss(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    frame = page.evaluate("FRAME")
    (left, right), (low, high) = frame["w"], frame["b"]
    w = left + (np.arange(frame["columns"]) + 0.5) / frame["columns"] * (right - left)
    b = high - (np.arange(frame["rows"]) + 0.5) / frame["rows"] * (high - low)
    for length in (2, 50, LONGEST):
        surface = np.array(page.evaluate("unitSurface", length)).reshape(frame["rows"], frame["columns"])
        assert surface == pytest.approx(Unit(steps=length).loss(w[None], b[:, None]), abs=1e-9)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")])
def test_a_reader_can_use_it(browser: Any, address: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 500)
    page = context.new_page()
    failures: list[str] = []
    loaded: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(address)
    for preset in page.locator("[data-preset]").all():
        preset.tap() if width < 500 else preset.click()
        assert preset.get_attribute("aria-pressed") == "true"
        assert page.locator("[data-story]:visible").count() == 1
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # No text of a drawing is cut off at its sides.
        cut = page.evaluate(
            """[...document.querySelectorAll("svg text")].filter((text) => {
              const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
              return inner.left < outer.left - 1 || inner.right > outer.right + 1;
            }).map((text) => text.textContent)"""
        )
        assert cut == []
    # The keyboard alone: from the first preset to the network, then the gain.
    page.locator("[data-preset=nothing]").press("Enter")
    page.locator("#gain").press("ArrowLeft")
    page.wait_for_function("document.getElementById('gain').value === '0.89'")
    assert page.locator("#gain").get_attribute("aria-valuetext") == "× 0.89"
    spoken = page.locator("#spoken")
    page.wait_for_function("document.getElementById('spoken').textContent.includes('0.89 a step')")
    assert "after 199 steps 10 to the power −10.2 of it is left." in spoken.inner_text()
    assert page.locator("#forgetBias").is_disabled()
    page.locator("input[name=cell][value=linear]").press("ArrowRight")
    page.wait_for_function("document.getElementById('spoken').textContent.startsWith('Along the cell state c')")
    assert page.locator("#forgetBias").is_enabled()
    assert failures == []
    assert loaded == [address]
    context.close()
