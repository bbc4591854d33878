"""What a person sees: MLflow's pages in a browser, on a store with trained runs of an RNN and an LSTM.

Needs the extra `browser` and a Chromium, which is not Playwright's own: Debian's package `chromium`, for example.

The picture in docs/runs.md is made here too, from the quickstart in the project's store, when it is asked for:

    RNNSTUDY_PICTURE=reports/figures/ui/landing.png .venv/bin/python -m pytest tests/test_browser.py -k readme
"""

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rnnstudy.cells import LSTM, Elman
from rnnstudy.report.mlflow_pages import charts
from rnnstudy.report.mlflow_pages.charts import FILTER
from rnnstudy.report.mlflow_pages.server import free_port
from rnnstudy.run import Run, Training
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record, Series

pytestmark = pytest.mark.slow

EXPERIMENT = '''
"""A small sweep."""
from rnnstudy.cells import LSTM, Elman
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


def runs(scale):
    training = Training(steps=40, batch=4, check_every=10, validation_sequences=20, test_sequences=40)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=4), training=training)
    axes = {"cell": [Elman(width=4), LSTM(width=4)], "task": [TemporalOrder(length=length) for length in (10, 20)]}
    return grid(base, axes, seeds=range(2))
'''

COMMAND = [sys.executable, "-c", "from rnnstudy.cli import main; main()"]

PATIENCE = 120_000
"""Milliseconds that a page may take on a busy machine."""

# How the page marks that its assistant has been shown once: it then stays closed.
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[str, Path]]":
    """What `rnnstudy ui` prints, up to its last picture, over a small sweep; the server runs as long as the tests."""
    root = tmp_path_factory.mktemp("project")
    (root / "mlruns").mkdir()
    (root / "experiments").mkdir()
    (root / "experiments" / "small.py").write_text(EXPERIMENT)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["RNNSTUDY_HOME"] = str(root)
    swept = [*COMMAND, "sweep", "experiments/small.py", "--scale", "smoke", "--workers", "1", "--engine", "reference"]
    subprocess.run(swept, cwd=root, env=environment, check=True, capture_output=True, timeout=300)
    with serving(root, "have their pictures now") as lines:
        yield lines, root


@contextmanager
def serving(root: Path, last: str, *options: str) -> Iterator[str]:
    """What `rnnstudy ui` prints over the project `root`, up to the line with `last`; its server runs until the end."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["RNNSTUDY_HOME"] = str(root)
    command = [*COMMAND, "ui", "--no-browser", "--port", str(free_port(5300)), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if last in line:
                    break
            yield "".join(lines)
        finally:
            process.terminate()
            process.wait(60)


RATES, SEEDS = (0.01, 0.001), 15


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `rnnstudy ui` prints over an experiment of 120 runs: 8 settings of 15 seeds, with made-up curves."""
    root = tmp_path_factory.mktemp("many")
    tracker = MlflowTracker(open_store(Project(root)), SweepInfo("many", "experiments/many.py"))
    for rate, length, cell, seed in itertools.product(RATES, (10, 20), (Elman(width=3), LSTM(width=3)), range(SEEDS)):
        training = Training(learning_rate=rate, steps=20)
        run = Run(task=TemporalOrder(length=length), cell=cell, training=training, seed=seed)
        slope = -1.0 if isinstance(cell, Elman) else -0.2
        by_lag = (slope - rate * 10 - 0.01 * seed) * np.arange(length)[None, None] * np.ones((1, 5, 1))
        series = {"profile/h_initial": Series(np.array([0]), by_lag, ("quantile", "lag"), "log10", 0)}
        tracker.begin(run, run.name)
        tracker.write(Record(run.key, 20, time.time(), series, Outcome("finished", 20, solved=False)))
    tracker.close()
    with serving(root, "spread over all settings", "--no-pictures") as lines:
        yield lines


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens an address in a window of its own; at the end the page must not have failed."""
    context = browser.new_context(viewport={"width": 1600, "height": 1400})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(NO_ASSISTANT)

    def opened(address: str) -> Any:
        page = context.new_page()
        page.goto(address)
        return page

    yield opened
    context.close()


def landing(printed: str, experiment: str = "small") -> str:
    [link] = re.findall(rf"^  {experiment} +(\S+)$", printed, re.MULTILINE)
    return link


LINES = ".scatterlayer .trace path.js-line"
"""A drawn line has points; an empty chart has a frame and no line."""

MARKS = f"{LINES}, .bars path"


def chart(page: Any, metric: str) -> Any:
    """The chart of a metric, scrolled into the window: outside it, the page draws none."""
    title = page.get_by_text(metric, exact=True).first
    title.scroll_into_view_if_needed()
    plot = "*[contains(@class, 'js-plotly-plot')]"
    return title.locator(f"xpath=ancestor::*[.//{plot}][1]//{plot}").first


def test_the_link_lands_on_charts_with_data_in_the_colours_of_the_reports(
    printed: tuple[str, Path], open_page: Callable[[str], Any]
) -> None:
    page = open_page(landing(printed[0]))
    page.wait_for_selector(f".js-plotly-plot {LINES}", state="attached")
    for section in charts.SECTIONS:
        page.get_by_text(section, exact=True).first.wait_for()
    for name in ("profile/h_initial", "profile/h_final_normalised"):
        page.get_by_text(name, exact=True).first.wait_for()
    profile = chart(page, "profile/h_initial")
    profile.locator(LINES).nth(7).wait_for(state="attached")
    lines = profile.locator(LINES)
    drawn = [lines.nth(number) for number in range(lines.count())]
    assert sum(len(line.get_attribute("d")) > 100 for line in drawn) >= 8, "eight runs, eight lines with points"
    strokes = {line.evaluate("one => getComputedStyle(one).stroke") for line in drawn}
    assert len(strokes) == 4, "two cells, two lengths"
    text = page.inner_text("body")
    for cell in ("Elman", "LSTM"):
        for length in (10, 20):
            assert f"{cell} T={length} lr 0.001 s0" in text
    assert "8 matching runs" in text
    assert "A small sweep." in text, "the experiment's hypothesis"
    assert "No chart data available" not in text
    assert "Model training" in text


def test_the_table_has_the_columns_of_the_view(printed: tuple[str, Path], open_page: Callable[[str], Any]) -> None:
    page = open_page(landing(printed[0]).replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    # The table leaves out what lies outside the window.
    page.set_viewport_size({"width": 2600, "height": 900})
    page.wait_for_selector("[role=columnheader][col-id='metrics.`summary/log10_ratio_final`']")
    headers = page.evaluate(
        "[...document.querySelectorAll('[role=columnheader][col-id]')]"
        ".map(one => [one.getAttribute('col-id'), one.getBoundingClientRect().width])"
    )
    width = dict(headers)
    for column in ("cell", "length", "seed"):
        assert width[f"params.`{column}`"] >= 80
    for column in ("solved", "half_life_initial", "half_life_final", "log10_ratio_initial", "log10_ratio_final"):
        name = f"summary/{column}"
        assert width[f"metrics.`{name}`"] >= 7 * len(name), "its heading can be read"


def test_a_run_page_shows_its_description_and_its_pictures(
    printed: tuple[str, Path], open_page: Callable[[str], Any]
) -> None:
    text, root = printed
    run = next(run for run in Store(Project(root)).runs() if run.name.startswith("LSTM T=10 "))
    server = landing(text).partition("/#/")[0]
    page = open_page(f"{server}/#/experiments/1/runs/{run.identity}?workflowType=machine_learning")
    page.get_by_text("Show more").first.click()
    described = page.inner_text("body")
    assert "One layer of LSTM (width 4), initialised by PyTorch default" in described
    assert "edcAdedefcAfcdeecfde -> class 0" in described
    assert f"rnnstudy sweep experiments/small.py --scale smoke --only {run.key} --rerun" in described
    assert "temporal-order-T0010" in described, "its data set"
    pictures = page.locator("img[src*='get-artifact']")
    pictures.first.wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('img[src*=get-artifact]')].every(one => one.naturalWidth > 300)"
    )
    assert pictures.count() == 3


def test_an_rnn_can_be_compared_with_an_lstm(printed: tuple[str, Path], open_page: Callable[[str], Any]) -> None:
    text, root = printed
    runs = {run.name.split()[0]: run.identity for run in Store(Project(root)).runs() if "T=10 " in run.name}
    both = f'["{runs["Elman"]}","{runs["LSTM"]}"]'
    server = landing(text).partition("/#/")[0]
    page = open_page(f'{server}/#/compare-runs?runs={both}&experiments=["1"]&workflowType=machine_learning')
    page.get_by_text("Comparing 2 Runs from 1 Experiment").first.wait_for()
    compared = page.inner_text("body")
    assert "Elman T=10" in compared
    assert "LSTM T=10" in compared
    page.wait_for_selector(".js-plotly-plot", state="attached")


def test_every_line_is_there_in_an_experiment_of_more_runs_than_the_page_loads(
    many: str, open_page: Callable[[str], Any]
) -> None:
    assert "(shows 96 of 120 runs, spread over all settings; clear its search for the rest)" in many
    page = open_page(landing(many, "many"))
    settings = {
        f"{cell} T={length} lr {rate:g}" for cell, length, rate in itertools.product(("Elman", "LSTM"), (10, 20), RATES)
    }
    page.get_by_text("96 matching runs").wait_for()
    profile = chart(page, "profile/h_initial")
    profile.locator(LINES).nth(95).wait_for(state="attached")
    # The list of runs draws only the rows in the window; the lines are those of all runs that the page has loaded.
    assert set() < shown(page) <= settings
    strokes = {line.evaluate("one => getComputedStyle(one).stroke") for line in profile.locator(LINES).all()}
    assert len(strokes) == 4, "two cells, two lengths"
    search = page.locator("input[placeholder^='metrics.rmse']")
    assert search.input_value() == FILTER
    # Emptied, the search gives all runs; the page loads the newest of them.
    search.fill("")
    search.press("Enter")
    page.get_by_text("100 matching runs").wait_for()
    page.get_by_text("Load more").wait_for()


def shown(page: Any) -> set[str]:
    """The settings in the page's list of runs."""
    return set(re.findall(r"^((?:Elman|LSTM) T=\d+ lr [\d.]+) s\d+$", page.inner_text("body"), re.MULTILINE))


PICTURE = os.environ.get("RNNSTUDY_PICTURE", "")


@pytest.mark.skipif(not PICTURE, reason="RNNSTUDY_PICTURE names no file to write")
def test_the_picture_in_the_readme(open_page: Callable[[str], Any]) -> None:
    root = find_project().root
    file = Path(PICTURE).absolute()
    with serving(root, "/#/experiments/", "--no-pictures") as lines:
        assert "quickstart" in lines, "the newest experiment is to be the quickstart: it is linked first"
        page = open_page(landing(lines, "quickstart"))
        # High enough for the second section: the profiles.
        page.set_viewport_size({"width": 1500, "height": 1620})
        page.wait_for_function(
            f"[...document.querySelectorAll('.js-plotly-plot')].filter(one => one.querySelector('{MARKS}')).length >= 7"
        )
        # The lines come in as their points are loaded; the page asks for news all the time, so it is never idle.
        page.wait_for_timeout(10_000)
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    # Few colours are enough, and a quarter of the bytes: the picture is part of every clone.
    picture.quantize(96, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < 200_000
