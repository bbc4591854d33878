"""Which launcher trains what, where several share one sweep: a file for each claimed run, made exclusively.

A claim file names its owner's host, process and start. It counts as long as the owner lives: on this host, as long as
the process does; on another, as long as the file is touched now and then. A claim that no longer counts is taken over
under a lock, so that of two that want it one gets it.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from rnnstudy.spec import SpecError
from rnnstudy.store.owner import Owner
from rnnstudy.training.atomic import write_all

SECONDS_BETWEEN_BEATS = 30.0
"""How often a launcher touches its claims."""

SECONDS_WITHOUT_BEAT = 300.0
"""After so long without a touch, a claim of another host no longer counts."""

SECONDS_TO_WRITE = 10.0
"""How long a claim file may stand without its content: it is made first and written then."""


class Claims:
    """The claims of one launcher among those of others, in a folder that all of them see.

    `ended.log` in it has a line for each run that a launcher has brought to its end: who planned before that looks it
    up in the store instead of training it again.
    """

    def __init__(self, folder: Path, owner: Owner | None = None) -> None:
        self.folder = folder
        self.owner = owner or Owner.this()
        self.held: set[str] = set()
        self._touched = time.monotonic()
        self._log = folder / "ended.log"
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim what is free of `keys`; gives those that are this launcher's now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return {key for key in keys if key in self.held or self._take(key)}

    def _take(self, key: str) -> bool:
        try:
            descriptor = os.open(self._path(key), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if not self._take_over(key):
                return False
        else:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._text())
        self.held.add(key)
        return True

    def _take_over(self, key: str) -> bool:
        from filelock import FileLock

        with FileLock(str(self.folder / "take-over.lock")):
            # Looked at again under the lock: another launcher may have been faster.
            if self.holder(key) is not None:
                return False
            write_all({self._path(key): self._text().encode()})
            return True

    def release(self, keys: Iterable[str]) -> None:
        """Give claims up."""
        for key in set(keys) & self.held:
            self._path(key).unlink(missing_ok=True)
            self.held.discard(key)

    def ended(self, keys: Iterable[str]) -> None:
        """These runs are in the store: tell the others, then give the claims up."""
        keys = list(keys)
        with self._log.open("ab") as file:
            file.write("".join(f"{key}\n" for key in keys).encode())
        self.release(keys)

    def news(self) -> set[str]:
        """The runs that any launcher has brought to their end since the last look, or since this one began."""
        if not self._log.exists():
            return set()
        with self._log.open("rb") as file:
            file.seek(self._read)
            told, _, _ = file.read().rpartition(b"\n")
        self._read += len(told) + bool(told)
        return set(told.decode().split())

    def holder(self, key: str) -> Owner | None:
        """Who holds the claim of a run; None when nobody does, or nobody who lives."""
        path = self._path(key)
        try:
            text, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
        except FileNotFoundError:
            return None
        since = time.time() - touched
        try:
            owner = Owner(**json.loads(text))
        except (ValueError, TypeError):
            # Made a moment ago and not written yet; or cut by a full disk or a crash, long ago.
            return Owner("an unknown host", 0, touched) if since < SECONDS_TO_WRITE else None
        return owner if (owner.alive if owner.here else since < SECONDS_WITHOUT_BEAT) else None

    def others(self, keys: Iterable[str]) -> dict[str, Owner]:
        """Who else holds which of `keys`."""
        if not self.folder.is_dir():
            return {}
        claimed = {path.stem for path in self.folder.glob("*.json")}
        found = {key: self.holder(key) for key in keys if key in claimed and key not in self.held}
        return {key: owner for key, owner in found.items() if owner is not None and owner != self.owner}

    def require_free(self, keys: Iterable[str]) -> None:
        """Raises `SpecError` when another process trains one of `keys`."""
        for key, owner in self.others(keys).items():
            raise SpecError(f"run {key} is being trained by {owner}; wait for it, or end it first")

    def beat(self) -> None:
        """Touch this launcher's claims when it is time: other hosts cannot see whether the process lives."""
        if time.monotonic() - self._touched >= SECONDS_BETWEEN_BEATS:
            self._touched = time.monotonic()
            for key in self.held:
                with contextlib.suppress(OSError):
                    os.utime(self._path(key))

    def close(self) -> None:
        """Give all claims up."""
        self.release(list(self.held))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _text(self) -> str:
        return json.dumps(dataclasses.asdict(self.owner)) + "\n"
