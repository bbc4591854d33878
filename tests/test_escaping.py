"""Texts that come from data are texts on every page: no tag, no script, no address that runs something."""

import json
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from rnnstudy.figures.picture import rendered
from rnnstudy.report.outline import Chapter, Header, Outline
from rnnstudy.report.pages import index_page, notebook_page
from rnnstudy.report.sanitising import clean_html
from rnnstudy.store.project import Project

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "<svg onload=alert(1)>",
    "<iframe src='http://example.org'></iframe>",
    "<style>*{display:none}</style>",
    "<b style='background:url(javascript:alert(1))'>x</b>",
    "</p></main><form action='http://example.org'><input></form>",
)


class Page(HTMLParser):
    """Collects what of a page a browser would run, or what would change the rest of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "svg", "form", "input", "object", "embed", "base"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or ("javascript:" in (value or "") and name in ("href", "src", "style")):
                self.found.append(f"{tag} {name}={value}")


def running(page: str) -> list[str]:
    head, _, body = page.partition("</head>")
    return Page(head).found + Page(body).found + (["style"] if "<style" in body else [])


@pytest.mark.parametrize("text", HOSTILE)
def test_a_notebook_page_shows_data_as_text(text: str) -> None:
    outputs = [
        nbformat.v4.new_output("display_data", {kind: text, "text/plain": "x"})
        for kind in ("text/markdown", "text/html")
    ]
    outputs += [
        nbformat.v4.new_output("stream", text=text),
        nbformat.v4.new_output("execute_result", {"text/plain": text}),
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# {text}"), nbformat.v4.new_code_cell("1", outputs=outputs)]
    outline = Outline({"x": Header(text, 1.0, ())}, (Chapter(text, text, ("x",)),))
    assert running(notebook_page(notebook, "x", outline, {"x"}).decode()) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_the_index_page_shows_data_as_text(text: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures" / "x"
    figures.mkdir(parents=True)
    story = {"figure": "curve", "title": text, "takeaway": text, "caption": text, "command": text, "place": 1}
    (figures / "curve.png").write_bytes(rendered(plt.figure(figsize=(1, 1)), "png"))
    (figures / "curve.json").write_text(json.dumps({**story, "experiments": [], "runs": [text]}))
    outline = Outline({"x": Header(text, 1.0, ())}, (Chapter(text, text, ("x",)),))
    assert running(index_page(Project(tmp_path), tmp_path, outline).decode()) == []


def test_what_reports_use_stays() -> None:
    table = '<table border="1" class="dataframe"><tbody><tr><td>1</td></tr></tbody></table>'
    html = f"<p>10<sup>−3</sup> <em>a</em> <code>x</code></p>{table}"
    assert clean_html(html) == html


@pytest.mark.parametrize("text", HOSTILE)
def test_a_figure_shows_data_as_text(text: str) -> None:
    figure, axes = plt.subplots()
    axes.set_title(f"--> {text}")
    drawn = rendered(figure, "svg").decode()
    plt.close(figure)
    assert Page(drawn).found == ["svg"]
