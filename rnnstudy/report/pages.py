"""Reports as web pages: one for each notebook, and the index page with every figure, in chapters."""

import base64
import copy
import json
import os
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbformat import NotebookNode

from rnnstudy.report.outline import Outline
from rnnstudy.report.sanitising import clean_html
from rnnstudy.store.project import Project

INTRODUCTION = "introduction.md"
"""The file beside the reports' sources with the text that begins the index page."""

WORDS_AT_FIRST = 40
"""About so many words of a takeaway are shown on the index page; a click shows the rest."""

TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")


def notebook_page(notebook: NotebookNode, name: str, outline: Outline, present: Collection[str]) -> bytes:
    """A notebook with its outputs as one file: pictures of outputs are embedded, code is folded.

    It links the index page and, of the reports `present`, its neighbours in the order of reading.
    """
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
    # Outputs hold texts of the store and of other people's folders.
    exporter.sanitize_html = True
    exporter.register_filter("clean_html", clean_html)
    body, _ = exporter.from_notebook_node(_with_picture_sizes(notebook))
    colours = (("default", ""), ("github-dark", "(prefers-color-scheme: dark)"))
    styles = [(HtmlFormatter(style=style).get_style_defs(".highlight"), media) for style, media in colours]
    names = [other for other in outline.names if other == name or other in present]
    place = names.index(name)
    return rendered_page(
        "report.html.j2",
        title=outline.headers[name].title,
        chapter=outline.chapter_of(name),
        name=name,
        headers=outline.headers,
        whole=outline.whole,
        previous=names[place - 1] if place else None,
        following=names[place + 1] if place + 1 < len(names) else None,
        code_style="\n".join(f"@media {media} {{\n{rules}\n}}" if media else rules for rules, media in styles),
        body=Markup(body),
    )


def index_page(project: Project, folder: Path, outline: Outline) -> bytes:
    """All figures with a story, chapter by chapter, of the reports built in `folder`; links are relative to it."""
    file = project.reports / INTRODUCTION
    introduction = file.read_text(encoding="utf-8") if file.is_file() else "# Reports\n"
    heading = re.search(r"^# +(.+)$", introduction, re.MULTILINE)
    chapters = [
        {
            "anchor": f"chapter-{number}",
            "chapter": chapter,
            "stories": [story for name in chapter.reports for story in _stories(project, folder, name)],
            "built": {name: (folder / f"{name}.html").is_file() for name in chapter.reports},
        }
        for number, chapter in enumerate(outline.chapters, start=1)
    ]
    return rendered_page(
        "index.html.j2",
        title=heading[1].strip() if heading else "Reports",
        introduction=_html(introduction),
        chapters=chapters,
        headers=outline.headers,
        part=outline.part,
        explore=(folder / "explore.html").is_file(),
    )


def rendered_page(template: str, **parts: Any) -> bytes:
    """A page from one of `templates/`; texts are escaped unless they are `Markup`."""
    return Environment(loader=TEMPLATES, autoescape=True).get_template(template).render(parts).encode() + b"\n"


def _with_picture_sizes(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the size of each picture beside it, so that a page keeps its place while it loads."""
    sized = copy.deepcopy(notebook)
    for cell in sized.cells:
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                width, height = _png_size(base64.b64decode(picture))
                output.metadata.setdefault("image/png", {}).update({"width": width, "height": height})
    return sized


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the first block of a PNG; (0, 0) for other bytes."""
    return struct.unpack(">II", content[16:24]) if content.startswith(b"\x89PNG") else (0, 0)


def _stories(project: Project, folder: Path, name: str) -> list[dict[str, Any]]:
    """The descriptions of a report's figures that have a takeaway, in the order in which the report shows them.

    Each with what the page adds: its anchor, the takeaway as HTML, its picture's size, and links to what exists.
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
        targets |= {kind.upper(): f"{base}.{kind}" for kind in ("gif", "svg", "csv", "json")}
        links = [(text, target) for text, target in targets.items() if (folder / target).is_file()]
        story |= {"anchor": f"{name}-{story['figure']}", "base": base, "links": links}
        story["width"], story["height"] = _png_size((folder / f"{base}.png").read_bytes())
        first, rest = _split_after(story["takeaway"], WORDS_AT_FIRST)
        story |= {"takeaway": _html(first), "rest": _html(rest) if rest else ""}
    return stories


def _split_after(text: str, words: int) -> tuple[str, str]:
    """The first sentences of a text, with at least so many words where no long one stands in the way, and the rest.

    The rest is empty rather than a few words.
    """
    sentences = re.split(r"(?<=[.?!:]) +(?=[A-Z*])", text)
    first, count = sentences[:1], len(sentences[0].split())
    for sentence in sentences[1:]:
        length = len(sentence.split())
        if count >= words or count + length > 2 * words:
            break
        first.append(sentence)
        count += length
    rest = " ".join(sentences[len(first) :])
    return (text, "") if len(rest.split()) < words / 2 else (" ".join(first), rest)


def _html(markdown: str) -> Markup:
    from nbconvert.filters import markdown2html

    return clean_html(markdown2html(markdown))
