"""Reports as web pages: one for each notebook, and the index page with every figure."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbformat import NotebookNode

from rnnstudy.store.project import Project

INTRODUCTION = "introduction.md"
"""The file beside the reports' sources with the text that begins the index page."""

TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")


def notebook_page(notebook: NotebookNode, name: str) -> bytes:
    """A notebook with its outputs as one self-contained file: pictures are embedded, code is folded."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(
        template_name="basic",
        template_file="notebook.html.j2",
        extra_loaders=[TEMPLATES],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        # Not embed_images: it would empty the tags inside a line of Markdown, such as <sup>.
    )
    body, _ = exporter.from_notebook_node(notebook)
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", texts, re.MULTILINE)
    style = HtmlFormatter(style="default").get_style_defs(".highlight")
    return _page("page.html.j2", title=heading[1] if heading else name, style=Markup(style), body=Markup(body))


def index_page(project: Project, folder: Path, names: Sequence[str]) -> bytes:
    """All figures with a story, of the reports `names`, in that order, built in `folder`; links are relative to it."""
    introduction = project.reports / INTRODUCTION
    return _page(
        "index.html.j2",
        title="Reports",
        introduction=_html(introduction.read_text(encoding="utf-8")) if introduction.is_file() else None,
        stories=[story for name in names for story in _stories(project, folder, name)],
        reports={name: (folder / f"{name}.html").is_file() for name in names},
    )


def _page(template: str, **parts: Any) -> bytes:
    return Environment(loader=TEMPLATES, autoescape=True).get_template(template).render(parts).encode() + b"\n"


def _stories(project: Project, folder: Path, name: str) -> list[dict[str, Any]]:
    """The descriptions of a report's figures that have a takeaway, in the order in which the report shows them.

    Each with what the page adds: its anchor, the takeaway as HTML, and links to the files that exist.
    """
    described = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "figures" / name).glob("*.json")]
    # Files written by earlier versions call the takeaway `see`.
    stories = [{"takeaway": one["see"], **one} if "see" in one else one for one in described]
    stories = sorted((story for story in stories if "takeaway" in story), key=lambda story: story["place"])
    for story in stories:
        base = f"figures/{name}/{story['figure']}"
        targets = {"report": f"{name}.html", "notebook": f"{name}.ipynb"}
        targets |= {
            path: Path(os.path.relpath(project.root / path, folder)).as_posix() for path in story["experiments"]
        }
        targets |= {kind.upper(): f"{base}.{kind}" for kind in ("svg", "csv", "json")}
        links = [(text, target) for text, target in targets.items() if (folder / target).is_file()]
        story |= {"anchor": f"{name}-{story['figure']}", "base": base, "links": links}
        story["takeaway"] = _html(story["takeaway"])
    return stories


def _html(markdown: str) -> Markup:
    from nbconvert.filters import markdown2html

    return Markup(markdown2html(markdown))
