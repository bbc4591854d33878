"""Faults of the machine and of the store, told apart by what can be done about them."""

import errno
from collections.abc import Iterator

from rnnstudy.spec import SpecError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class StoreUnavailable(SpecError):
    """The store did not answer as it should: it may do so later."""


class DiskFull(SpecError):
    """Nothing can be written: only the user can help."""

    @staticmethod
    def told(error: BaseException) -> "DiskFull":
        """The one line for a write that found no room."""
        if isinstance(error, DiskFull):
            return error
        named = next((one.filename for one in _causes(error) if isinstance(one, OSError) and one.filename), "")
        where = f" at {named}" if named else ""
        return DiskFull(f"the disk is full{where}; nothing is lost: make room, and the same command goes on")


def disk_is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: on the disk, in a quota, or under a limit on the size of files."""
    return any(
        isinstance(one, DiskFull)
        or (isinstance(one, OSError) and one.errno in FULL)
        or "database or disk is full" in str(one)
        for one in _causes(error)
    )


def memory_is_full(error: BaseException) -> bool:
    """Whether an allocation failed, on the host or on a GPU."""
    return any(
        isinstance(one, MemoryError)
        or type(one).__name__ == "OutOfMemoryError"
        or (isinstance(one, RuntimeError) and any(words in str(one) for words in OUT_OF_MEMORY))
        for one in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what led to it."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
