"""The course: notebooks in `reports/course`, built as the reports are, with an index page of their own.

They need no runs. Each begins with `Notebook("course/<name>")`.
"""

from collections.abc import Iterable
from pathlib import Path

from rnnstudy.report.build import build_reports
from rnnstudy.report.outline import known_reports
from rnnstudy.spec import RequestError, nearest
from rnnstudy.store.project import Project

COURSE = "course"
"""The name of the whole course, and of its folder beside the reports."""


def of_course(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that mean the course, `course` or `course/<name>`, and the other names."""
    names = list(names)
    course = [name for name in names if name.partition("/")[0] == COURSE]
    return course, [name for name in names if name not in course]


def build_course(names: Iterable[str], project: Project, *, committed: bool = False) -> list[Path]:
    """Build notebooks of the course: `course/<name>`, or `course` for all of them.

    They are written to `build/reports/course` as .ipynb, .html and figures, with an index page; with `committed`, to
    `reports/course`. Returns the files written.

    Raises `RequestError` for a notebook that does not exist or a project without a course, and `ReportError` when one
    stops.
    """
    part = Project(project.root)
    part.reports = project.reports / COURSE
    part.built_reports = part.reports if committed else project.built_reports / COURSE
    known = known_reports(part)
    if not known:
        raise RequestError(f"there is no course in {project.root}; its notebooks would be in {part.reports}")
    wanted = [name.partition("/")[2] for name in names]
    for name in wanted:
        if name and name not in known:
            close = nearest(name, known).replace("'", f"'{COURSE}/", 1) or ";"
            raise RequestError(f"the course has no notebook '{name}'{close} its notebooks: {', '.join(known)}")
    return build_reports(wanted if all(wanted) else known, part)
