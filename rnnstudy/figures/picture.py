"""A figure together with the numbers and runs behind it, and its bytes as PNG or SVG."""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

__all__ = ["Picture", "rendered"]


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure together with what is behind it.

    Attributes:
        figure: drawn without a display.
        data: the numbers in the figure, one row per point, in a fixed order.
        keys: the runs it was made from, sorted; none for a figure that is computed from no run.
        caption: what a reader must know: bands, choices, counts.
    """

    figure: Figure
    data: pd.DataFrame
    keys: tuple[str, ...]
    caption: str

    def __repr__(self) -> str:
        return f"Picture of {len(self.keys)} runs. {self.caption}"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """For notebooks: the PNG, and the caption as its alternative text."""
        return rendered(self.figure, "png"), {"alt": self.caption}


def rendered(figure: Figure, kind: Literal["png", "svg"], *, dots_per_inch: int = 160) -> bytes:
    """The bytes of a figure, without date and version, and with fixed identifiers: equal figures have equal bytes."""
    buffer = BytesIO()
    absent = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnnstudy"}):
        figure.savefig(buffer, format=kind, dpi=dots_per_inch, metadata=absent)
    return buffer.getvalue()
