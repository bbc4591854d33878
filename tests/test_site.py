"""The documentation site: its pages, their links, and the reference are whole; what is made is up to date."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def loaded(name: str) -> ModuleType:
    """A program of the folder docs, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = loaded("site_files")
search = loaded("site_search")

SOURCES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))] + list(site.PAGES)


def pages_of(entries: list[Any]) -> list[str]:
    """The pages that a part of the navigation names, in its order."""
    found = []
    for entry in entries:
        for value in entry.values():
            found += [value] if isinstance(value, str) else pages_of(value)
    return found


def navigation() -> list[str]:
    return pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_the_navigation_has_every_page_once():
    there = (
        {path.name for path in (ROOT / "docs").glob("*.md")} | set(site.PAGES.values()) | set(site.reference_pages())
    )
    assert sorted(navigation()) == sorted(there)


@pytest.mark.parametrize("source", SOURCES)
def test_links_lead_to_files_that_the_site_has(source):
    text = (ROOT / source).read_text(encoding="utf-8")
    wrong = [link for link in site.links(text) if site.place(site.target(link, source)) is None]
    assert wrong == []
    # What the site shows in the same place is what the repository has there.
    assert all((ROOT / site.target(link, source)).exists() for link in site.links(text))


def test_the_pages_have_links_to_check():
    assert sum(len(site.links((ROOT / source).read_text(encoding="utf-8"))) for source in SOURCES) > 80


@pytest.mark.parametrize(
    ("text", "page", "expected"),
    [
        ("[a](../CONTRIBUTING.md)", "docs/inside.md", "[a](contributing.md)"),
        ("[a](../reports/course/6_lstm.ipynb)", "docs/course.md", "[a](reports/course/6_lstm.html)"),
        ("[a](../rnnstudy/run.py#x)", "docs/reference.md", "[a](reference/run.md#x)"),
        ('<img src="../reports/figures/quickstart/gradient_heat_map.png">', "docs/start.md", None),
        ("[a](sweeps.md#on-a-cluster)", "docs/start.md", "[a](sweeps.md#on-a-cluster)"),
        ('<a href="sweeps.md">', "docs/start.md", '<a href="sweeps.html">'),
        ("[a](https://optuna.org/x.md) [b](#c)", "docs/search.md", "[a](https://optuna.org/x.md) [b](#c)"),
        ("[a](../no/such/file.md)", "docs/start.md", "[a](../no/such/file.md)"),
    ],
)
def test_a_link_is_translated(text, page, expected):
    assert site.rewritten(text, page) == (expected or text.replace("../", ""))


def test_a_link_that_leads_nowhere_is_noticed():
    assert site.place(site.target("../reports/no_such_report.ipynb", "docs/reports.md")) is None
    assert site.place(site.target("no_such_page.md", "docs/start.md")) is None
    assert site.place(site.target("../pyproject.toml", "docs/start.md")) is None


def test_every_public_module_is_in_the_reference_once():
    found = [
        name for text in site.reference_pages().values() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    ]
    files = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "rnnstudy").rglob("*.py")}
    modules = {".".join(path.parent.parts if path.name == "__init__" else path.parts) for path in files}
    assert sorted(found) == sorted(modules - {"rnnstudy"})
    assert len(found) > 250


def test_the_names_of_the_package_are_those_that_it_exports():
    import rnnstudy

    lines = dict(re.findall(r"^- \[`rnnstudy\.(\w+)`\]\[([\w.]+)\]: \S", site.public_names(), re.MULTILINE))
    assert sorted(lines) == sorted(rnnstudy.__all__)
    objects = {name: getattr(rnnstudy, name) for name in lines}
    assert lines == {name: f"{one.__module__}.{one.__name__}" for name, one in objects.items()}


@pytest.mark.parametrize(("page", "folder"), [("docs/reports.md", "reports"), ("docs/course.md", "reports/course")])
def test_every_report_is_on_its_page(page, folder):
    linked = {site.target(link, page) for link in site.links((ROOT / page).read_text(encoding="utf-8"))}
    sources = [path.relative_to(ROOT).with_suffix(".ipynb").as_posix() for path in (ROOT / folder).glob("*.py")]
    assert set(sources) - linked == set()


def test_the_picture_of_the_wings_is_drawn_from_their_order():
    wings = loaded("wings")
    assert wings.PICTURE.read_text(encoding="utf-8") == wings.wings_picture(), "run python docs/wings.py"


def test_the_findings_are_those_of_the_readme():
    assert sum(line.startswith("- ") for line in site.findings().splitlines()) == 5
    assert all(line in (ROOT / "README.md").read_text(encoding="utf-8") for line in site.findings().splitlines())


def test_every_copied_page_gets_a_way_back():
    page = b'<html><nav class="top" aria-label="x"><a href="index.html">All reports</a></nav></html>'
    assert b'"x"><a href="../../index.html">Documentation</a>' in site.with_way_back(page, "reports/course/1.html")
    with pytest.raises(ValueError, match=r"reports/a\.html has no navigation"):
        site.with_way_back(b"<html></html>", "reports/a.html")
    for path in site.copied_files():
        if path.endswith(".html"):
            assert site.NAVIGATION.search((ROOT / path).read_text(encoding="utf-8")), path


def test_the_names_of_headings_and_the_prose_below_them():
    page = search.with_names(
        "<main><nav><p>no</p></nav><h1>One</h1><p>a &lt; b<sub>t</sub></p><pre>no</pre><h2>Two</h2><ul><li>c<li>d</ul>"
        '<details class="code"><summary>code</summary>no</details>'
        "<details><summary>Solution</summary><p>e</p></details><h2>Two</h2><table><td><p>no</p></table></main>"
    )
    assert search.entries(page, "reports/x.html") == [
        {"location": "reports/x.html", "title": "One", "text": "a &lt; bt"},
        {"location": "reports/x.html#two", "title": "Two", "text": "c d Solution e"},
        {"location": "reports/x.html#two-2", "title": "Two", "text": ""},
    ]


@pytest.mark.parametrize("path", [path for path in site.copied_files() if path.endswith(".html")])
def test_the_search_knows_every_copied_page(path):
    found = search.entries(search.with_names((ROOT / path).read_text(encoding="utf-8")), path)
    assert found[0]["location"] == path
    assert all(one["title"] for one in found)
    assert len({one["location"] for one in found}) == len(found)
    assert sum(len(one["text"]) for one in found) > 300


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it. Needs the extra `docs`."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


class Parts(HTMLParser):
    """What a page refers to, the names that can be referred to on it, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        found = [values[name] for name in ("href", "src", "srcset") if name in values]
        self.references += found
        if tag in {"script", "img", "iframe", "source"} or (tag == "link" and values.get("rel") != "canonical"):
            self.loaded += found

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.slow
def test_every_link_of_the_built_site_leads_somewhere(built):
    pages = {path: Parts(path.read_text(encoding="utf-8")) for path in built.rglob("*.html")}
    assert len(pages) > 60
    wrong = []
    for path, parts in pages.items():
        for reference in parts.references:
            address, _, name = reference.partition("#")
            if re.match(r"[a-z]+:|//", address):
                continue
            there = path if not address else Path(os.path.normpath(path.parent / unquote(address)))
            # The page for addresses that are not there refers to the root of a server.
            lost = path.name != "404.html" and not there.is_file()
            if lost or (name and there in pages and unquote(name) not in pages[there].names):
                wrong.append(f"{path.relative_to(built)}: {reference}")
    assert wrong == []


@pytest.mark.slow
def test_nothing_is_loaded_from_the_network(built):
    for path in built.rglob("*.html"):
        loaded = Parts(path.read_text(encoding="utf-8")).loaded
        assert [one for one in loaded if re.match(r"https?:|//", one)] == [], path


def described(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """The public classes, functions and methods of a module or class."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef) and not inner.name.startswith("_"):
            yield inner
            yield from described(inner) if isinstance(inner, ast.ClassDef) else ()


@pytest.mark.slow
def test_the_reference_says_what_the_docstrings_say(built):
    """Word by word: Markdown takes no underscore, bracket or star out of an equation."""

    def words(text: str) -> str:
        return re.sub(r"[\s`]+", "", text)

    checked = 0
    for wing in ("cells", "tasks", "optimisers", "probes"):
        shown = words("".join(Parts((built / "reference" / f"{wing}.html").read_text(encoding="utf-8")).text))
        for file in (ROOT / "rnnstudy" / wing).glob("*.py"):
            for node in described(ast.parse(file.read_text(encoding="utf-8"))):
                docstring = ast.get_docstring(node)
                for paragraph in (docstring or "").split("\n\n"):
                    # What follows is shown as a list, and what is between stars is emphasised.
                    if re.search(r"^(Args|Attributes|Fields|Raises|Returns):|^ *- |\*", paragraph, re.MULTILINE):
                        continue
                    assert words(paragraph) in shown, (file, paragraph)
                    checked += 1
    assert checked > 200
    escaped = [path for path in (built / "reference").glob("*.html") if "\\_" in path.read_text(encoding="utf-8")]
    assert escaped == [], "what hides an underscore from Markdown is not shown"


@pytest.mark.slow
def test_a_reader_walks_every_page(built, browser):
    """Each page at both widths and in both themes, as a file without a network: nothing fails, nothing overflows."""
    pages = sorted(path for path in built.rglob("*.html") if path.name != "404.html")
    for width, scheme in ((1280, "light"), (400, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        for path in pages:
            page, said = context.new_page(), []
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("requestfailed", lambda request, said=said: said.append(request.url))
            page.on("request", lambda one, said=said: one.url.startswith("http") and said.append(one.url))
            page.goto(path.as_uri())
            assert page.title(), path
            assert page.locator("h1").count() >= 1, path
            missing = "[...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).map(i => i.src)"
            assert page.evaluate(missing) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            assert said == [], path
            page.close()
        context.close()


@pytest.mark.slow
def test_what_the_search_knows_is_there(built):
    known = json.loads((built / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    names = {path: Parts(path.read_text(encoding="utf-8")).names for path in built.rglob("*.html")}
    for one in known:
        address, _, name = one["location"].partition("#")
        assert not name or unquote(name) in names[built / unquote(address or "index.html")], one["location"]
    assert sum(one["location"].startswith("reports/") for one in known) > 150


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("half-life", None),
        ("squeezing curve", "/reports/course/3_one_step.html#the-squeezing-curve"),
        ("PyTorch draws a GRU", "/reports/fair_comparison.html"),
    ],
)
def test_a_reader_searches_without_a_network(built, browser, typed, address):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((built / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type(typed)
    links = page.locator(".md-search-result__item a")
    links.first.wait_for(timeout=60_000)
    found = links.evaluate_all("links => links.map(link => [link.href, link.pathname + link.hash])")
    if address:
        # The search adds the words that were found, as ?h=…, to the addresses.
        [there] = [whole for whole, place in found if place.endswith(address)]
        page.goto(there)
        assert page.locator("h1").count() == 1
    context.close()
