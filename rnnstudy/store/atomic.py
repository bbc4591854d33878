import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


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
