"""Packages re-export what they find in their modules: adding a task, a cell or a probe is adding one file."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from typing import Any, NoReturn

from rnnstudy.spec import Spec, nearest


def specifications(package: str, path: Iterable[str]) -> dict[str, Any]:
    """Every specification class defined in the modules of `package`, by class name."""
    found: dict[str, Any] = {}
    for module_info in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{package}.{module_info.name}")
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, Spec) and value.__module__ == module.__name__:
                found[name] = value
    return found


def concrete(base: type[Spec]) -> list[type[Spec]]:
    """Every subclass of `base` that can be built, in alphabetical order, wherever it was defined."""
    found: set[type[Spec]] = set()
    waiting = [base]
    while waiting:
        for child in waiting.pop().__subclasses__():
            waiting.append(child)
            if not inspect.isabstract(child):
                found.add(child)
    return sorted(found, key=lambda cls: (cls.__name__, cls.__module__))


def missing_name(package: str, name: str, found: Iterable[str]) -> NoReturn:
    """Raise the error of a package's `__getattr__`, with the nearest name that the package does have."""
    names = sorted(found)
    hint = nearest(name, names) or ";"
    raise AttributeError(f"{package} has no '{name}'{hint} It has {', '.join(names)}", name=name)
