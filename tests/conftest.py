"""One torch thread; and every shape that an annotation states is checked while the tests run."""

import importlib
import typing
from collections.abc import Callable
from typing import Any

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

PACKAGES = ["rnnstudy.tasks", "rnnstudy.cells", "rnnstudy.unroll", "rnnstudy.probes", "rnnstudy.optimisers"]

torch.set_num_threads(1)

# A whole number serves where a float is asked for, as everywhere in Python's type system.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(annotated: Callable[..., Any]) -> Callable[..., Any]:
    """`annotated` with its arguments and its result checked; beartype cannot check `Self` outside its class."""
    hints = getattr(annotated, "__annotations__", {}).values()
    return annotated if typing.Self in hints else check(annotated)


install_import_hook(PACKAGES, f"{__name__}.checked")


def pytest_configure() -> None:
    """Specifications check their own fields, and tests look at what they say: their constructors stay as they are."""
    for package in PACKAGES:
        importlib.import_module(package)
    from rnnstudy.discovery import concrete
    from rnnstudy.spec import Spec

    for specification in concrete(Spec):
        constructor = specification.__init__
        if constructor.__globals__["__name__"].startswith("jaxtyping"):
            specification.__init__ = constructor.__wrapped__
