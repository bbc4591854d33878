"""Where the files of a task lie: a path in an experiment file begins at that file, wherever the command is given."""

from pathlib import Path

from rnnstudy.errors import SpecError, shown

_newest: list[Path] = []
_earlier: list[Path] = []


def look_in(*folders: Path) -> None:
    """Relative paths begin at the first of these folders in which they lead to something, or at the working directory.

    Called with the folder of an experiment file, and that of its project, before the file's code runs.
    """
    for folder in reversed(_newest):
        if folder not in _earlier:
            _earlier.insert(0, folder)
    _newest[:] = folders


def find(path: str, *, identified: bool) -> Path | None:
    """The file or folder that `path` names, or None where there is none.

    One that is `identified` by its content may have been moved: it is looked for, by its path and by its name, in the
    folders of experiment files that were read before, too. Raises `SpecError` for what is no path.
    """
    if not path:
        raise SpecError("'' is no path of a file or folder (it is empty)")
    try:
        named = Path(path).expanduser()
        places = [folder / named for folder in _newest] + [named]
        if identified:
            places += [folder / part for part in (named, named.name) for folder in (*_newest, *_earlier, Path())]
        return next((place for place in places if place.exists()), None)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{shown(path)} is no path of a file or folder ({reason})") from None


def places_of(path: str) -> str:
    """In words, where `path` is looked for."""
    return "" if Path(path).is_absolute() else f" in {' or '.join(map(str, dict.fromkeys((*_newest, Path.cwd()))))}"
