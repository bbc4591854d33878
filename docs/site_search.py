"""The site's search finds what the reports and the course say; MkDocs calls `on_post_build`.

They are pages that the site holds as they are, of which MkDocs knows nothing. Once the site is built, their headings
get names that an address can end with, and their texts, section by section, join what the search knows.
"""

import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

PAGES = "reports"
"""The folder of the site whose pages are taken in."""

HEADINGS = ("h1", "h2", "h3")
TEXTS = ("p", "li", "figcaption", "summary", "dd", "label")
SKIPPED = ("script", "style", "nav", "pre", "svg", "math", "table", "select", "template")
"""Not prose: numbers and code would bury the sentences."""

BARE_HEADING = re.compile(r"<(h[23])>(.*?)</\1>", re.DOTALL)


def slug(heading: str) -> str:
    """A name for a heading.

    >>> slug("By hand: <em>W_hh</em> &amp; more")
    'by-hand-w_hh-more'
    """
    return re.sub(r"[^\w]+", "-", re.sub(r"<[^>]*>|&#?\\w+;", "", heading.replace("&amp;", ""))).strip("-").lower()


def with_names(page: str) -> str:
    """A page whose headings of the second and third order all have a name, each its own.

    >>> with_names('<h2>Equal</h2><h3>Equal</h3><h2 id="x">Named</h2>')
    '<h2 id="equal">Equal</h2><h3 id="equal-2">Equal</h3><h2 id="x">Named</h2>'
    """
    taken = set(re.findall(r'\bid="([^"]*)"', page))

    def named(match: re.Match[str]) -> str:
        first = slug(match[2]) or "section"
        name = next(one for one in (first, *(f"{first}-{n}" for n in range(2, 10_000))) if one not in taken)
        taken.add(name)
        return f'<{match[1]} id="{name}">{match[2]}</{match[1]}>'

    return BARE_HEADING.sub(named, page)


class Sections(HTMLParser):
    """The sections of a page, each with its name (empty for the beginning), title and prose."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        kind = "pre" if tag == "details" and values.get("class") == "code" else tag
        if tag in HEADINGS and not set(self._inside) & set(SKIPPED):
            name = "" if tag == "h1" else values.get("id") or ""
            self.found.append({"name": name, "title": "", "text": ""})
        if tag in ("details", *HEADINGS, *TEXTS, *SKIPPED):
            # Many a list leaves out what would end an item.
            if tag in TEXTS and self._inside and self._inside[-1] == tag:
                self._inside.pop()
            self._inside.append(kind)
        if tag in TEXTS and self.found:
            self.found[-1]["text"] += " "

    def handle_endtag(self, tag: str) -> None:
        kinds = ("details", "pre") if tag == "details" else (tag,)
        if any(kind in self._inside for kind in kinds):
            while self._inside.pop() not in kinds:
                """What was left open inside ends with it."""

    def handle_data(self, data: str) -> None:
        inside = set(self._inside)
        if not self.found or inside & set(SKIPPED):
            return
        if inside & set(HEADINGS):
            self.found[-1]["title"] += data.replace("¶", "")
        elif inside & set(TEXTS):
            self.found[-1]["text"] += data


def entries(page: str, location: str) -> list[dict[str, Any]]:
    """What the search knows of a page: title and text of each section, and its address in the site."""
    found = Sections(page).found
    return [
        {
            "location": f"{location}#{one['name']}" if one["name"] else location,
            "title": escape(" ".join(one["title"].split()), quote=False),
            "text": escape(" ".join(one["text"].split()), quote=False),
        }
        for one in found
    ]


def on_post_build(config: "MkDocsConfig") -> None:
    """Takes the pages in: after the search has written what it knows, before that is copied for files alone."""
    site = Path(config.site_dir)
    index = site / "search" / "search_index.json"
    known = json.loads(index.read_text(encoding="utf-8"))
    for path in sorted((site / PAGES).rglob("*.html")):
        page = with_names(path.read_text(encoding="utf-8"))
        path.write_text(page, encoding="utf-8")
        known["docs"] += entries(page, path.relative_to(site).as_posix())
    index.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")


# Between MkDocs's plugins `search` (0) and `offline` (-100).
on_post_build.mkdocs_priority = -50  # type: ignore[attr-defined]
