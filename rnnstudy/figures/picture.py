"""A figure with what it shows, and writing it so that it says where it came from."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Literal

import matplotlib
import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure with what it shows.

    Attributes:
        figure: drawn, on no display.
        data: the numbers in it, one row per point, in a fixed order.
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
        """For notebooks: the picture, and what a reader hears who cannot see it."""
        return rendered(self.figure, "png"), {"alt": self.caption}


@dataclass(frozen=True)
class Provenance:
    """Where a figure came from, beside its run keys.

    Attributes:
        experiments: the experiment files, relative to the project.
        command: what repeats it.
        commit: of the source that drew it, or None outside a git checkout.
        versions: package name to version.
    """

    experiments: tuple[str, ...]
    command: str
    commit: str | None
    versions: Mapping[str, str]

    @staticmethod
    def of(experiments: Sequence[str], command: str, commit: str | None) -> "Provenance":
        """With the versions of the packages that computed and drew the numbers."""
        packages = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "torch")
        versions = {name: metadata.version(name) for name in packages}
        return Provenance(tuple(experiments), command, commit, versions)


@dataclass(frozen=True)
class Story:
    """What a figure tells, for the index page.

    Attributes:
        title: one line.
        see: a paragraph that says what to see in it, in Markdown.
        place: its number among the figures of its report, from 1.
    """

    title: str
    see: str
    place: int


def save(picture: Picture, folder: Path, name: str, provenance: Provenance, story: Story | None = None) -> list[Path]:
    """Write `name`.png, .svg, .csv (what the figure shows) and .json (where it came from, what it tells) into `folder`.

    The same picture gives the same bytes. Each file is replaced in one step, after all four could be written.
    """
    told = {"title": story.title, "see": story.see, "place": story.place} if story else {}
    described = {
        "figure": name,
        **told,
        "caption": picture.caption,
        "experiments": list(provenance.experiments),
        "command": provenance.command,
        "commit": provenance.commit,
        "versions": dict(provenance.versions),
        "runs": list(picture.keys),
    }
    contents = {
        "png": rendered(picture.figure, "png"),
        "svg": rendered(picture.figure, "svg"),
        "csv": picture.data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode(),
        "json": (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    return write_all({folder / f"{name}.{ending}": content for ending, content in contents.items()})


def rendered(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The bytes of a picture: no date, no version, and the same identifiers every time."""
    buffer = BytesIO()
    absent = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnnstudy"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=absent)
    return buffer.getvalue()


def write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write files so that each is there whole or not at all: all of them aside first, then each moved into place."""
    aside: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            aside[path] = Path(temporary)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # mkstemp's files are for their owner alone; a report is for everyone.
            os.chmod(temporary, 0o644)
        for path, temporary in aside.items():
            os.replace(temporary, path)
    finally:
        for temporary in aside.values():
            temporary.unlink(missing_ok=True)
    return list(contents)
