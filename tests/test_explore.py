"""The explorable explanation: how its page is built. What it computes, `test_explore_browser` compares in a browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rnnstudy.cli.commands import app
from rnnstudy.report.explore import LONGEST, WIDTH, build_explore, explore_page, network, takes_page
from rnnstudy.store.project import Project

ROOT = Path(__file__).parents[1]


Found = list[tuple[str, dict[str, str | None]]]


class Tags(HTMLParser):
    """Every opening tag of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Found = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page() -> str:
    return explore_page().decode()


@pytest.fixture(scope="module")
def tags(page: str) -> Found:
    return Tags(page).found


def test_the_committed_page_is_what_the_package_writes_each_time(page: str) -> None:
    """Change the page, and `rnnstudy report explore --export reports/data` has to be run again."""
    assert explore_page().decode() == page
    assert (ROOT / "reports" / "explore.html").read_text(encoding="utf-8") == page
    assert 'href="explore.html"' in (ROOT / "reports" / "index.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing(page: str, tags: Found) -> None:
    assert [one for one in tags if "src" in one[1] or one[0] in ("link", "iframe", "object", "base")] == []
    assert {one["href"] for _, one in tags if "href" in one} == {"index.html", "#cliff"}
    for loading in ("url(", "@import", "import(", "fetch(", "XMLHttpRequest", "http://", "https://", "WebSocket"):
        assert loading not in page


def test_every_control_has_a_label_and_every_reference_its_element(tags: Found) -> None:
    ids = [one["id"] for _, one in tags if "id" in one]
    assert len(ids) == len(set(ids))
    named = ("for", "aria-labelledby", "aria-describedby")
    referred = {one[name] for _, one in tags for name in named if name in one}
    referred |= {one["href"].removeprefix("#") for _, one in tags if (one.get("href") or "").startswith("#")}
    assert referred <= set(ids)
    sliders = {one["id"] for tag, one in tags if tag == "input" and one["type"] == "range"}
    assert sliders == {"gain", "length", "forgetBias", "threshold"}
    assert sliders <= {one["for"] for tag, one in tags if tag == "label" and "for" in one}
    assert sum("aria-live" in one for _, one in tags) == 2
    assert all("aria-labelledby" in one for tag, one in tags if tag == "svg")


def test_the_controls_that_the_script_asks_for_are_there(page: str, tags: Found) -> None:
    asked = set(re.findall(r'(?:\$|canvasOf)\("(\w+)"', page))
    assert asked >= {"gain", "unfolded", "profile", "eigenvalues", "paths", "spoken"}
    assert asked <= {one["id"] for _, one in tags if "id" in one}
    presets = [one["data-preset"] for _, one in tags if "data-preset" in one]
    assert presets == [one["data-story"] for _, one in tags if "data-story" in one]
    assert presets == re.findall(r"^  (\w+): \{ cell:", page, re.MULTILINE)
    for number in range(len(presets)):
        story = re.findall(r"<p data-story[^>]*>(.*?)</p>", page)[number]
        assert len(re.findall(r"(?<!\d)\.(?: |$)", story)) == 2, "two sentences"


def test_a_network_has_spectral_radius_1_and_a_readout_of_length_1() -> None:
    for number in range(3):
        drawn = network(number)
        assert np.abs(np.linalg.eigvals(drawn["rnn"]["recurrent"])).max() == pytest.approx(1, abs=1e-4)
        assert np.linalg.norm(drawn["readout"]) == pytest.approx(1, abs=1e-5)
        assert np.shape(drawn["lstm"]["recurrent"]) == (WIDTH, 4 * WIDTH)
        assert len(drawn["inputs"]) == LONGEST
    assert network(0) != network(1)


def test_the_page_is_built_by_name_and_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reports").mkdir()
    monkeypatch.setenv("RNNSTUDY_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "explore"])
    assert (done.exit_code, done.output) == (0, "open build/reports/explore.html\n")
    built = tmp_path / "build" / "reports"
    assert (built / "explore.html").read_bytes() == explore_page()
    assert 'href="explore.html"' in (built / "index.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "reports").iterdir())
    project = Project(tmp_path)
    written = build_explore(project, committed=True)
    assert written == [tmp_path / "reports" / "explore.html", tmp_path / "reports" / "index.html"]


def test_a_report_of_that_name_goes_before_the_page(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.reports.mkdir()
    assert takes_page([], project, every=True) == (True, [])
    assert takes_page(["clipping", "explore"], project, every=False) == (True, ["clipping"])
    assert takes_page(["clipping"], project, every=False) == (False, ["clipping"])
    (project.reports / "explore.py").write_text("# %% [markdown]\n# # Mine\n")
    assert takes_page(["explore"], project, every=True) == (False, ["explore"])
