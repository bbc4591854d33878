"""A figure as files: the picture, its numbers, and where they come from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rnnstudy.figures.picture import Picture, rendered
from rnnstudy.training.atomic import write_all

PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "torch")
"""The packages that compute and draw the numbers."""


@dataclass(frozen=True)
class Provenance:
    """Where a figure comes from, in addition to the keys of its runs.

    Attributes:
        experiments: the experiment files, relative to the project.
        command: the command that repeats it.
        commit: the commit of the source that drew it, or None outside a git checkout.
    """

    experiments: Sequence[str]
    command: str
    commit: str | None


@dataclass(frozen=True)
class Story:
    """What a figure shows, for the index page.

    Attributes:
        title: one line.
        takeaway: a paragraph that says what to see in it, in Markdown.
        position: its number among the figures of its report, from 1.
    """

    title: str
    takeaway: str
    position: int


def save(picture: Picture, folder: Path, name: str, provenance: Provenance, story: Story | None = None) -> list[Path]:
    """Write `name`.png, .svg, .csv (the numbers it shows) and .json (provenance and story) into `folder`.

    The same picture gives the same bytes. Each file is replaced in one step, after all four have been written.
    """
    story_fields = {"title": story.title, "takeaway": story.takeaway, "place": story.position} if story else {}
    description = {
        "figure": name,
        **story_fields,
        "caption": picture.caption,
        "experiments": list(provenance.experiments),
        "command": provenance.command,
        "commit": provenance.commit,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "runs": list(picture.keys),
    }
    contents = {
        "png": rendered(picture.figure, "png"),
        "svg": rendered(picture.figure, "svg"),
        "csv": picture.data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode(),
        "json": (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    return write_all({folder / f"{name}.{ending}": content for ending, content in contents.items()})
