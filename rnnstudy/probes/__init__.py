"""What is measured, one file each."""

from typing import Any

from rnnstudy.discovery import missing_name, specifications

_found = specifications(__name__, __path__)
globals().update(_found)
__all__ = sorted(_found)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    missing_name(__name__, name, _found)
