"""The catalogue of tasks, cells and probes that `rnnstudy list` prints, each with its source."""

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rnnstudy.spec import RequestError, Spec, assign, concrete, nearest

if TYPE_CHECKING:
    from rich.table import Table

Kind = Literal["tasks", "cells", "probes"]


def known_classes(kind: Kind) -> dict[str, type[Any]]:
    """Name to class, in alphabetical order: those of the package and of the experiment files loaded so far."""
    # Imported here, so that asking for one kind does not load the others.
    package, base = importlib.import_module(f"rnnstudy.{kind}"), kind.removesuffix("s").title()
    return {cls.__name__: cls for cls in concrete(getattr(package, base))}


def catalogue_lines(kind: Kind) -> list[str]:
    """One line for each class: its name, the first paragraph of its docstring, and its source."""
    rows = catalogue_rows(kind)
    width = max((len(row["name"]) for row in rows), default=0)
    return [f"{row['name']:{width}}  {row['summary']}  [{row['source']}]" for row in rows]


def catalogue_table(kind: Kind) -> "Table":
    """The same for a terminal, where long lines are wrapped beside the names."""
    from rnnstudy.cli.common import make_table

    table = make_table(["name", "what it is  [source]"], left=["name", "what it is  [source]"], whole=["name"])
    table.show_header = False
    for row in catalogue_rows(kind):
        table.add_row(row["name"], f"{row['summary']}  [{row['source']}]")
    return table


def catalogue_rows(kind: Kind) -> list[dict[str, str]]:
    """Name, summary and source of each class."""
    found = known_classes(kind).items()
    return [{"name": name, "summary": _summary(cls), "source": cls.source} for name, cls in found]


def make_probe(name: str, settings: Sequence[str] = ()) -> Any:
    """The probe called `name`, with fields set from texts such as `sequences=8`.

    Raises `RequestError` for an unknown probe, `SpecError` for an unknown field or an impossible value.
    """
    from rnnstudy.sweep.grids import parsed

    known = known_classes("probes")
    if name not in known:
        hint = nearest(name, known) or "."
        raise RequestError(f"there is no probe '{name}'{hint} There are {', '.join(known)}")
    built: Spec = known[name]()
    for setting in settings:
        field, value = parsed(setting)
        built = assign(built, field, value)
    return built


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
