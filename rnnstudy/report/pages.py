"""Reports as web pages: one for each notebook, and the index page with every figure."""

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnstudy.store.project import Project

if TYPE_CHECKING:
    from nbformat import NotebookNode


INTRODUCTION = "introduction.md"
"""The file beside the reports' sources with the text that begins the index page."""


def notebook_page(notebook: "NotebookNode", name: str) -> bytes:
    """A notebook with its outputs as one self-contained file: pictures are embedded, code is folded."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(
        template_name="basic",
        template_file="report.html.j2",
        extra_loaders=[DictLoader({"report.html.j2": _TEMPLATE})],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    parts: Mapping[str, str] = {
        "title": _title(notebook) or name,
        "style": _STYLE + HtmlFormatter(style="default").get_style_defs(".highlight"),
        "body": body,
    }
    return _PAGE.format(**parts).encode()


def _title(notebook: "NotebookNode") -> str:
    """The first heading."""
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", texts, re.MULTILINE)
    return heading[1] if heading else ""


def index_page(project: Project, folder: Path, names: Sequence[str]) -> bytes:
    """All figures with a story, of the reports `names`, in that order, built in `folder`; links are relative to it."""
    stories = [(name, story) for name in names for story in _stories(folder, name)]
    introduction = project.reports / INTRODUCTION
    opening = _html(introduction.read_text(encoding="utf-8")) if introduction.is_file() else "<h1>Reports</h1>"
    contents = "".join(
        f'<li><a href="#{_anchor(name, story)}">{html.escape(story["title"])}</a></li>' for name, story in stories
    )
    listed = f'<ol class="contents">{contents}</ol>' if stories else "<p>No figure has been drawn yet.</p>"
    sections = [_section(project, folder, name, story) for name, story in stories]
    body = "\n".join([opening, listed, *sections, _closing(folder, names)])
    return _PAGE.format(title="Reports", style=_STYLE + _INDEX_STYLE, body=body).encode()


def _stories(folder: Path, name: str) -> list[dict[str, Any]]:
    """The descriptions of a report's figures that have a takeaway, in the order in which the report shows them."""
    described = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "figures" / name).glob("*.json")]
    # Files written by earlier versions call the takeaway `see`.
    stories = [{"takeaway": one["see"], **one} if "see" in one else one for one in described]
    return sorted((story for story in stories if "takeaway" in story), key=lambda story: story["place"])


def _section(project: Project, folder: Path, name: str, story: Mapping[str, Any]) -> str:
    """A figure, what to see in it, and where it comes from."""
    base = f"figures/{name}/{story['figure']}"
    targets = {"report": f"{name}.html", "notebook": f"{name}.ipynb"}
    targets |= {path: Path(os.path.relpath(project.root / path, folder)).as_posix() for path in story["experiments"]}
    targets |= {kind.upper(): f"{base}.{kind}" for kind in ("svg", "csv", "json")}
    links = [f'<a href="{target}">{text}</a>' for text, target in targets.items() if (folder / target).is_file()]
    commands = " ".join(f"<code>{html.escape(command)}</code>" for command in story["command"].split(" && "))
    runs = "computed, without runs"
    if story["runs"]:
        command = f"<code>rnnstudy show {story['runs'][0]}</code>"
        runs = f"{len(story['runs'])} runs; {command} shows the first of them (the JSON lists the keys of all)"
    return f"""<section id="{_anchor(name, story)}">
<h2>{html.escape(story["title"])}</h2>
<a href="{base}.svg"><img src="{base}.png" alt="{html.escape(story["caption"])}" loading="lazy"></a>
{_html(story["takeaway"])}
<p class="caption">{html.escape(story["caption"])}</p>
<p class="source">{runs}<br>drawn by {commands}<br>{" · ".join(links)}</p>
</section>"""


def _closing(folder: Path, names: Sequence[str]) -> str:
    rows = "".join(_entry(folder, name) for name in names)
    return (
        f"<section><h2>All reports</h2><ul>{rows}</ul><p><code>rnnstudy report --from reports/data</code> redraws "
        "every figure from the committed results, without training; <code>make study</code> trains everything again."
        "</p></section>"
    )


def _entry(folder: Path, name: str) -> str:
    """A report in the list of all: a link, or the command that builds it where it has not been built."""
    if (folder / f"{name}.html").is_file():
        return f'<li><a href="{name}.html">{name}</a></li>'
    return f"<li>{name}: not built yet (<code>rnnstudy report {name}</code>)</li>"


def _anchor(name: str, story: Mapping[str, Any]) -> str:
    return f"{name}-{story['figure']}"


def _html(markdown: str) -> str:
    from nbconvert.filters import markdown2html

    return markdown2html(markdown)


_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{%- block input -%}
<details class="code"><summary>code</summary>{{ cell.source | highlight_code(metadata=cell.metadata) }}</details>
{%- endblock input -%}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
body { margin: 0; background: #fff; color: #1a1a1a; font: 17px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.4rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.7rem; text-align: right; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
.output_area, .output_html { overflow-x: auto; }
details.code { color: #666; font-size: 0.8rem; margin: 0.4rem 0; }
details.code pre { overflow-x: auto; background: #f6f6f6; padding: 0.7rem; border-radius: 4px; }
code { background: #f3f3f3; padding: 0.1em 0.25em; border-radius: 3px; }
blockquote { border-left: 4px solid #ccc; margin-left: 0; padding-left: 1rem; color: #444; }
"""

_INDEX_STYLE = """
section { margin: 3rem 0; border-top: 1px solid #ddd; }
section img { display: block; margin: 0 auto; }
ol.contents { columns: 2; column-gap: 2rem; font-size: 0.9rem; }
.caption { color: #555; font-size: 0.82rem; }
.source { color: #555; font-size: 0.78rem; }
.anchor-link { display: none; }
@media (max-width: 40rem) { ol.contents { columns: 1; } }
"""
