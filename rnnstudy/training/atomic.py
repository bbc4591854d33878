"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path` to write to: the file moves to `path` when the block ends, and is deleted on an error.

    `path` therefore holds the old file or the new one, never a part, whenever the process is killed. A `durable` file
    is on the disk before it moves, and survives a power failure. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with naming(path, unfinished):
            yield unfinished
            if durable:
                with unfinished.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Have an `OSError` of the block name `path`, where it names no file (a failed write) or the `unfinished` one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename) == str(unfinished):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def write_all(contents: Mapping[Path, bytes | memoryview], *, durable: bool = False) -> list[Path]:
    """Write several files: all of them beside their paths first, then each moves to its path. Returns the paths."""
    with ExitStack() as stack:
        # A stack ends its blocks in reverse: the files move in the order of `contents`.
        for path, content in reversed(list(contents.items())):
            stack.enter_context(replacing(path, durable=durable)).write_bytes(content)
    return list(contents)
