"""Claims: which launcher trains which run, where several launchers share one sweep.

A claim is a file, created exclusively, that names its owner's host, process and start time. It is valid while the owner
lives: on this host, as long as the process exists; on another host, as long as the file is touched regularly. An
invalid claim is taken over under a lock, so that only one launcher gets it.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from rnnstudy.spec import RequestError
from rnnstudy.store.owner import Owner
from rnnstudy.training.atomic import write_all

SECONDS_BETWEEN_HEARTBEATS = 30.0
"""How often a launcher touches its claims."""

SECONDS_WITHOUT_HEARTBEAT = 300.0
"""After so long without a heartbeat, a claim of another host is invalid."""

SECONDS_TO_WRITE = 10.0
"""How long a claim file may stay empty: it is created first and written afterwards."""


class Claims:
    """The claims of one launcher, in a folder that all launchers of the sweep see.

    `ended.log` in the folder has a line for each run that a launcher has finished: a launcher that made its plan before
    that reads the run from the store instead of training it again.
    """

    def __init__(self, folder: Path, owner: Owner | None = None) -> None:
        self.folder = folder
        self.owner = owner or Owner.this()
        self.held: set[str] = set()
        self._touched = time.monotonic()
        self._log = folder / "ended.log"
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim those of `keys` that are free; returns those that this launcher holds now."""
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
            # Checked again under the lock: another launcher may have been faster.
            if self.holder(key) is not None:
                return False
            write_all({self._path(key): self._text().encode()})
            return True

    def release(self, keys: Iterable[str]) -> None:
        """Give these claims up."""
        for key in set(keys) & self.held:
            self._path(key).unlink(missing_ok=True)
            self.held.discard(key)

    def ended(self, keys: Iterable[str]) -> None:
        """These runs are in the store: log that for other launchers, then release the claims."""
        keys = list(keys)
        with self._log.open("ab") as file:
            file.write("".join(f"{key}\n" for key in keys).encode())
        self.release(keys)

    def newly_ended(self) -> set[str]:
        """The runs that any launcher has ended since the last call, or since this object was made."""
        if not self._log.exists():
            return set()
        with self._log.open("rb") as file:
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + bool(lines)
        return set(lines.decode().split())

    def holder(self, key: str) -> Owner | None:
        """The owner of the claim of a run; None if it is unclaimed, or if the claiming process has died."""
        path = self._path(key)
        try:
            text, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
        except FileNotFoundError:
            return None
        since = time.time() - touched
        try:
            owner = Owner(**json.loads(text))
        except (ValueError, TypeError):
            # Created a moment ago and not written yet, or cut short by a full disk or a crash long ago.
            return Owner("an unknown host", 0, touched) if since < SECONDS_TO_WRITE else None
        return owner if (owner.alive if owner.here else since < SECONDS_WITHOUT_HEARTBEAT) else None

    def others(self, keys: Iterable[str]) -> dict[str, Owner]:
        """The other launchers that hold one of `keys`."""
        if not self.folder.is_dir():
            return {}
        claimed = {path.stem for path in self.folder.glob("*.json")}
        found = {key: self.holder(key) for key in keys if key in claimed and key not in self.held}
        return {key: owner for key, owner in found.items() if owner is not None and owner != self.owner}

    def require_free(self, keys: Iterable[str]) -> None:
        """Raises `RequestError` when another process trains one of `keys`."""
        for key, owner in self.others(keys).items():
            raise RequestError(f"run {key} is being trained by {owner}; wait for it, or end it first")

    def heartbeat(self) -> None:
        """Touch this launcher's claims when it is time: other hosts cannot see whether its process lives."""
        if time.monotonic() - self._touched >= SECONDS_BETWEEN_HEARTBEATS:
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
