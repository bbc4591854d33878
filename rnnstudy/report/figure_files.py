"""A figure as files: the picture, its numbers, and where they come from."""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rnnstudy.figures.picture import Picture, rendered, rendered_gif
from rnnstudy.training.atomic import write_all

PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "torch")
"""The packages that compute and draw the numbers."""


def save(
    picture: Picture, folder: Path, name: str, provenance: Mapping[str, Any], story: Mapping[str, Any] = {}
) -> list[Path]:
    """Write `name`.png, .svg, .csv (the numbers it shows) and .json (its story and where it comes from) into `folder`.

    One that moves is also written as .gif. The same picture gives the same bytes. Each file is replaced in one step,
    after all of them have been written.

    Args:
        provenance: `experiments`, the files of its runs' experiments relative to the project; `command`, which repeats
            it; `commit` of the source that drew it, None outside a git checkout.
        story: of a figure on the index page: `title`, one line; `takeaway`, a paragraph in Markdown that says what to
            see in it; `place`, its number among the figures of its report, from 1.
    """
    description = {
        "figure": name,
        **story,
        "caption": picture.caption,
        **provenance,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "runs": list(picture.keys),
    }
    contents = {
        "png": rendered(picture.figure, "png"),
        "svg": rendered(picture.figure, "svg"),
        "csv": picture.data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode(),
        "json": (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    if picture.moving is not None:
        contents["gif"] = rendered_gif(picture.moving)
    return write_all({folder / f"{name}.{ending}": content for ending, content in contents.items()})
