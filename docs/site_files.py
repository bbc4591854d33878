"""What the documentation site holds beside the pages in this folder; MkDocs calls `on_files` and `on_page_markdown`.

The site mirrors the repository, so that every link between the pages, reports and sources means the same in both:

- pages of this folder, and the pages of other folders that `PAGES` names;
- the built reports, the course and `explore.html` as they are, with figures, and the experiments that they link to;
- the reference: a page for each wing with the docstrings of all its modules, made from the files that there are.

Links in the pages are written as they work in the repository; `rewritten` translates them.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "mlruns/README.md": "store.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages elsewhere in the repository, and what they are called in the site."""

COPIED = [
    *("reports/*.html", "reports/*.ipynb", "reports/figures/*/*", "reports/ledger/*.toml"),
    *("experiments/*.py", "tests/test_architecture.py"),
    *("reports/course/*.html", "reports/course/*.ipynb", "reports/course/figures/*/*"),
]
"""Files that the site holds as they are, at the same places."""

LINK = re.compile(r"""(\]\(|\b(?:src|srcset|href)=")(?![a-z]+:|#|/)([^)#"\s]+)""")
"""The target of a link or of a picture, in Markdown or HTML, unless it is an address or a place on the same page."""

BACK = '<a href="{home}">Documentation</a>'
"""The link that a report page gets at its top, where there is a site to go back to."""

NAVIGATION = re.compile(r'<nav class="(top|contents)"[^>]*>')


SEPARATORS = {"top": '<span aria-hidden="true">›</span>', "contents": "<br>"}
"""What follows it, by the kind of the page's navigation."""


def copied_files() -> list[str]:
    """What `COPIED` matches, relative to the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in COPIED for path in ROOT.glob(pattern))


def place(path: str) -> str | None:
    """Where the site has a file of the repository: the source of a page, or a copied file. None for other files.

    For a notebook it is its page, and for a module the page of its wing in the reference.
    """
    page = str(Path(path).with_suffix(".html"))
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    if path.endswith(".ipynb") and page in copied_files():
        return page
    if path in copied_files():
        return path
    parts = Path(path).parts
    if parts[0] == "rnnstudy" and len(parts) > 1 and (ROOT / path).exists():
        return f"reference/{parts[1].removesuffix('.py')}.md"
    return None


def links(text: str) -> list[str]:
    """The targets of the links and pictures of a page, without those that `LINK` leaves out."""
    return [target for _, target in LINK.findall(text)]


def target(link: str, page: str) -> str:
    """The file, relative to the repository, that a link on the page `page` of the repository means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def rewritten(text: str, page: str) -> str:
    """The text of the page `page` of the repository, with links as they are in the site.

    A link to what the site does not have stays as it is; MkDocs warns of it, and a strict build fails.
    """
    here = posixpath.dirname(place(page) or page)

    def translated(match: re.Match[str]) -> str:
        there = place(target(match[2], page))
        return match[0] if there is None else match[1] + posixpath.relpath(there, here or ".")

    # MkDocs translates links in Markdown to addresses; in HTML they are addresses already.
    return re.sub(r'((?:src|srcset|href)="[^":]+)\.md\b', r"\1.html", LINK.sub(translated, text))


def modules(wing: str = "") -> list[str]:
    """The dotted names of the modules of a wing, or of the whole package, each package before its modules."""
    start = ROOT / "rnnstudy" / wing
    files = start.rglob("*.py") if start.is_dir() else [start.with_suffix(".py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))


def wings() -> list[str]:
    """The parts of the package, as files and folders."""
    return sorted({name.split(".")[1] for name in modules() if "." in name})


def tree_of(module: str) -> ast.Module:
    """The syntax of a module of the package, by its dotted name."""
    path = ROOT.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))


def definition(module: str, name: str) -> tuple[str, str]:
    """Where a name of a module is defined, through all imports, as a dotted path; and its docstring's first line."""
    nodes = list(ast.walk(tree_of(module)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(node.module, alias.name)
    [found] = [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
    return f"{module}.{name}", (ast.get_docstring(found) or "").partition("\n\n")[0].replace("\n", " ")


def public_names() -> str:
    """The names that `rnnstudy` itself exports, each with a link to its place in the reference, as a list."""
    [exported] = [
        ast.literal_eval(node.value)
        for node in tree_of("rnnstudy").body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    found = {name: definition("rnnstudy", name) for name in exported}
    return "\n".join(f"- [`rnnstudy.{name}`][{path}]: {words}" for name, (path, words) in found.items())


def findings() -> str:
    """The findings that the README states."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("<!-- findings: ")[1].partition("-->")[2].partition("<!-- end of findings -->")[0].strip()


def drawing(path: Path) -> str:
    """A picture of this folder as part of a page, so that it has the colours of the page."""
    return f'<div class="drawing" markdown="0">\n{path.read_text(encoding="utf-8").strip()}\n</div>'


MADE = {"<!-- findings of README.md -->": findings, "<!-- names of rnnstudy -->": public_names}
"""Lines of the pages in whose place the site has a text that is made."""

DRAWING = re.compile(r"!\[[^\]]*\]\((pictures/[^)]+\.svg)\)")


def reference(wing: str) -> str:
    """The page of the reference about one wing."""
    listed = "\n\n".join(f"::: {name}" for name in modules(wing))
    return f"# {wing}\n\n{listed}\n"


def reference_pages() -> dict[str, str]:
    """Name to text of the pages that are made from the docstrings."""
    return {f"reference/{wing}.md": reference(wing) for wing in wings()}


def with_way_back(page: bytes, path: str) -> bytes:
    """A report's page with a link to the site; `path` is where the site has it."""
    home = posixpath.relpath("index.html", posixpath.dirname(path))
    text, found = NAVIGATION.subn(
        lambda match: match[0] + BACK.format(home=home) + SEPARATORS[match[1]], page.decode("utf-8"), count=1
    )
    if not found:
        raise ValueError(f"{path} has no navigation to put a link to the documentation into")
    return text.encode("utf-8")


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds to the files of the site what is not in this folder."""
    from mkdocs.structure.files import File

    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, text in reference_pages().items():
        files.append(File.generated(config, name, content=text))
    for path in copied_files():
        if path.endswith(".html"):
            content = with_way_back((ROOT / path).read_bytes(), path)
            files.append(File.generated(config, path, content=content))
        else:
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Translates the links of a page, and puts in what is made."""
    for line, text in MADE.items():
        if line in markdown:
            markdown = markdown.replace(line, text())
    sources = {name: source for source, name in PAGES.items()}
    text = rewritten(markdown, sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    return DRAWING.sub(lambda match: drawing(ROOT / "docs" / match[1]), text)
