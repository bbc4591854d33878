"""Errors of the machine and of the store, told apart by what can be done about them."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rnnstudy.spec import RnnstudyError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class StoreError(RnnstudyError):
    """The store refuses, or cannot be used."""


class StoreUnavailable(StoreError):
    """The store does not answer as it should; it may do so later."""


class DamagedFile(RnnstudyError):
    """A stored file is missing, damaged or of another format."""


class DiskFull(RnnstudyError):
    """Nothing can be written until the user makes room."""

    @classmethod
    def caused_by(cls, error: BaseException, folder: Path | None = None) -> "DiskFull":
        """The one-line error for a write that `disk_is_full` recognises, in `folder` if the error names no file."""
        if isinstance(error, DiskFull):
            return error
        # Of a copy, the second name is the new file.
        files = (cause.filename2 or cause.filename for cause in _causes(error) if isinstance(cause, OSError))
        named = next((Path(os.fsdecode(file)).parent for file in files if isinstance(file, str | bytes | Path)), folder)
        where = f" at {named}" if named else ""
        return cls(f"the disk is full{where}; nothing is lost: make room, and the same command goes on")


def fullest(*folders: Path | None) -> Path | None:
    """Of the folders that are there, the one whose disk has the least room."""
    return min(
        (folder for folder in folders if folder is not None and folder.is_dir()),
        key=lambda folder: shutil.disk_usage(folder).free,
        default=None,
    )


def disk_is_full(error: BaseException) -> bool:
    """Whether a write failed for lack of room: on the disk, in a quota, or under a limit on the size of files."""
    return any(
        isinstance(cause, DiskFull)
        or (isinstance(cause, OSError) and cause.errno in FULL)
        or "database or disk is full" in str(cause)
        for cause in _causes(error)
    )


def write_error(error: OSError, folder: Path) -> RnnstudyError:
    """The one-line error for a write that failed in `folder`."""
    if disk_is_full(error):
        return DiskFull.caused_by(error, folder)
    return StoreError(f"{folder} cannot be written ({error.strerror or error}); make it writable, and start again")


def memory_is_full(error: BaseException) -> bool:
    """Whether an allocation failed, on the host or on a GPU."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ == "OutOfMemoryError"
        or (isinstance(cause, RuntimeError) and any(words in str(cause) for words in OUT_OF_MEMORY))
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and the errors that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
