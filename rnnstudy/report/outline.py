"""The order of a project's reports: the title of each, its place, and the chapters of the index page."""

import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat

from rnnstudy.report.study import ReportError
from rnnstudy.spec import RequestError, nearest
from rnnstudy.store.project import Project

CHAPTERS = "chapters.toml"
"""The file beside the reports' sources that names the chapters of the index page."""

LAST = 1000
"""The order of a report that states none."""

FIELDS = {"from", "title", "question"}


@dataclass(frozen=True)
class Header:
    """The YAML header of a report's source:

        # ---
        # jupyter:
        #   rnnstudy:
        #     order: 20
        #     experiments: [sequence_length]
        # ---

    Attributes:
        title: the first heading of the notebook; without one, the report's name.
        order: its position on the index page, lowest first; reports of equal order are sorted by name.
        experiments: the experiments whose runs it needs; by default the one with the report's own name, if it exists.
    """

    title: str
    order: float
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Chapter:
    """Reports that belong together; `question` is what they answer. Their names are in the order of reading."""

    title: str
    question: str
    reports: tuple[str, ...]


@dataclass(frozen=True)
class Outline:
    """All reports of a project: name to header, and the chapters in the order of reading.

    `whole` and `part` are what all of them, and what one, are called on their pages.
    """

    headers: Mapping[str, Header]
    chapters: tuple[Chapter, ...]
    whole: str = "All reports"
    part: str = "Report"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The reports in the order of reading."""
        return tuple(name for chapter in self.chapters for name in chapter.reports)

    def chapter_of(self, name: str) -> Chapter:
        return next(chapter for chapter in self.chapters if name in chapter.reports)


def read_outline(project: Project) -> Outline:
    """The outline of a project's reports.

    Raises `ReportError` for a header or a `chapters.toml` with fields or values that it may not have.
    """
    headers = {name: header(name, project) for name in known_reports(project)}
    in_order = sorted(headers, key=lambda name: (headers[name].order, name))
    starts, names = _chapter_starts(project.reports / CHAPTERS)
    borders = [*starts, LAST]
    chapters = []
    for number, (start, (title, question)) in enumerate(starts.items()):
        inside = tuple(name for name in in_order if start <= headers[name].order < borders[number + 1])
        chapters.append(Chapter(title, question, inside))
    rest = tuple(name for name in in_order if not any(name in chapter.reports for chapter in chapters))
    title = "More reports" if starts else "Reports"
    return Outline(headers, tuple(one for one in (*chapters, Chapter(title, "", rest)) if one.reports), **names)


def known_reports(project: Project) -> list[str]:
    """The reports of a project, in alphabetical order."""
    return sorted(path.stem for path in project.reports.glob("*.py"))


def require_source(name: str, project: Project) -> Path:
    """The source of the report `name`. Raises `RequestError` with the nearest name when there is none."""
    source = project.reports / f"{name}.py"
    if not source.is_file():
        names = known_reports(project)
        known = f"Reports here: {', '.join(names)}" if names else f"There are no reports in {project.reports}"
        others = [other for other in project.report_names() if other not in names and "/" not in other]
        close = nearest(name, [*names, *others]) or "."
        raise RequestError(f"there is no report '{name}'{close} {known}; and, without runs, {' and '.join(others)}")
    return source


def read_notebook(source: Path) -> nbformat.NotebookNode:
    """The notebook of a percent script, with stable cell identifiers."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number:02d}"
    return notebook


def header(name: str, project: Project) -> Header:
    """The header of the report `name`. Raises `ReportError` for fields or values that it may not have."""
    with warnings.catch_warnings(action="ignore"):
        notebook = read_notebook(require_source(name, project))
    fields = notebook.metadata.get("rnnstudy", {})
    own = [name] if (project.root / "experiments" / f"{name}.py").is_file() else []
    order, experiments = fields.get("order", LAST), fields.get("experiments", own)
    valid = isinstance(order, int | float) and isinstance(experiments, list) and set(fields) <= {"order", "experiments"}
    if not valid or not all(isinstance(experiment, str) for experiment in experiments):
        raise ReportError(
            f"{project.reports / name}.py: its header may hold `order`, a number, and `experiments`, a list of names; "
            f"not {dict(fields)}"
        )
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", texts, re.MULTILINE)
    return Header(heading[1].strip() if heading else name, float(order), tuple(experiments))


def _chapter_starts(file: Path) -> tuple[dict[float, tuple[str, str]], dict[str, str]]:
    """Lowest order to title and question of each chapter, in order, and `whole` and `part` of an `Outline`.

    Both are empty where there is no such file.
    """
    if not file.is_file():
        return {}, {}
    expected = (
        "it holds [[chapter]] tables with `from`, a number below 1000, `title` and, if wanted, `question`; before them "
        "it may hold `whole` and `part`, what all reports and one are called"
    )
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
        tables = found.pop("chapter", [])
        names = {name: str(text) for name, text in found.items()}
        starts = {float(one["from"]): (str(one["title"]), str(one.get("question", ""))) for one in tables}
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"{file}: {expected}; found {type(error).__name__}: {error}") from None
    unknown = set(names) - {"whole", "part"} or any(set(one) - FIELDS for one in tables)
    if unknown or len(starts) != len(tables) or max(starts, default=0) >= LAST:
        raise ReportError(f"{file}: {expected}; each chapter with a `from` of its own")
    return dict(sorted(starts.items())), names
