"""What there is: every task, cell and probe that has been imported, with where it comes from."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

from rnnstudy.spec import Spec, SpecError, concrete, nearest

Kind = Literal["tasks", "cells", "probes"]


def known_classes(kind: Kind) -> dict[str, type[Any]]:
    """Name to class, in alphabetical order: those of the package, and those of experiment files loaded before."""
    # Imported here, so that asking for one kind does not load the others.
    if kind == "tasks":
        import rnnstudy.tasks
        from rnnstudy.tasks.task import Task as base
    elif kind == "cells":
        import rnnstudy.cells
        from rnnstudy.cells.cell import Cell as base
    else:
        import rnnstudy.probes  # noqa: F401  (importing the package finds its modules)
        from rnnstudy.probes.probe import Probe as base
    return {cls.__name__: cls for cls in concrete(base)}


def catalogue_lines(kind: Kind) -> list[str]:
    """One line for each: its name, what it is in its own words, and its source."""
    found = known_classes(kind)
    width = max(map(len, found), default=0)
    return [f"{name:{width}}  {_summary(cls)}  [{cls.source}]" for name, cls in found.items()]


def make_probe(name: str, settings: Sequence[str] = ()) -> Any:
    """The probe called `name`, with fields set from texts such as `sequences=8`.

    Raises `SpecError` for a probe or field that is not there, or an impossible value.
    """
    from rnnstudy.spec import assign
    from rnnstudy.sweep.grids import parsed

    known = known_classes("probes")
    if name not in known:
        hint = nearest(name, known) or ";"
        raise SpecError(f"there is no probe '{name}'{hint} There are {', '.join(known)}")
    built: Spec = known[name]()
    for setting in settings:
        field, value = parsed(setting)
        built = assign(built, field, value)
    return built


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
