"""A figure together with the numbers and runs behind it, and its bytes as PNG, SVG or GIF."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["Moving", "Picture", "rendered", "rendered_gif"]


@dataclass(frozen=True)
class Moving:
    """A figure that changes: `draw(k)` puts it into the state of moment k, from 0; moments are drawn in their order."""

    figure: Figure
    draw: Callable[[int], None]
    moments: int


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure together with what is behind it.

    Attributes:
        figure: drawn without a display.
        data: the numbers in the figure, one row per point, in a fixed order.
        keys: the runs it was made from, sorted; none for a figure that is computed from no run.
        caption: what a reader must know: bands, choices, counts.
        moving: the same numbers as a moving picture, if there is one.
    """

    figure: Figure
    data: pd.DataFrame
    keys: tuple[str, ...]
    caption: str
    moving: Moving | None = None

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


def rendered_gif(moving: Moving, *, dots_per_inch: int = 90, milliseconds: int = 140, colours: int = 192) -> bytes:
    """The bytes of a GIF that shows each moment for so long, and the last one for three seconds, again and again.

    All moments have the colours of the last one, which shows everything.
    """
    canvas, pictures = FigureCanvasAgg(moving.figure), []
    moving.figure.set_dpi(dots_per_inch)
    for moment in range(moving.moments):
        moving.draw(moment)
        canvas.draw()
        # The places that the first moment was given; sizes of texts must not move the panels.
        moving.figure.set_layout_engine("none")
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = pictures[-1].quantize(colours, dither=Image.Dither.NONE)
    # The average of the lightest colours is not quite the white of the paper.
    lightest = [255 if value > 249 else value for value in palette.getpalette() or ()]
    frames = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures]
    for frame in frames:
        frame.putpalette(lightest)
    buffer, shown = BytesIO(), [milliseconds] * (len(frames) - 1) + [3000]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=shown, loop=0, optimize=False)
    return buffer.getvalue()
