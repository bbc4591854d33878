"""Claims: which launcher trains which run, where several launchers share one sweep.

A claim is a file that names its launcher and carries a token, a number larger than that of every earlier claim in the
folder. A launcher shows that it lives by its lease: a file whose content it changes every few seconds. Claims change
under one lock. What holds, whatever the clocks of the machines show and however long a launcher is paused:

1. A claim is taken over only from a launcher that is seen to have ended, or whose lease the other launcher has watched
   for `SECONDS_OF_LEASE`, by its own monotonic clock, without a change. No time of day and no time stamp is compared.
2. The tokens of the claims on a run increase.
3. At any moment at most one launcher has a run's confirmation (`confirm`), which it needs for each write. A launcher
   whose lease may have run out renews it under the lock, and then sees whether its claim has gone.
4. A launcher removes a claim only if it carries its own token: what another launcher has taken over stays.
5. The claims of a launcher that has ended become free, after `SECONDS_OF_LEASE` of watching at the latest.

What is written within `SECONDS_TO_WRITE` of its confirmation is written before anybody can take over. Only a process
that is stopped for longer, between the confirmation and the write, may write once more; the run then has the same
records twice, and MLflow keeps one of two equal points.
"""

import contextlib
import dataclasses
import json
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rnnstudy.spec import RequestError
from rnnstudy.store.errors import write_error
from rnnstudy.store.owner import Owner
from rnnstudy.training.atomic import write_all

SECONDS_BETWEEN_HEARTBEATS = 10.0
"""How often a launcher renews its lease."""

SECONDS_OF_LEASE = 120.0
"""After so long without a renewal, what a launcher of another machine or container has claimed is free."""

SECONDS_TO_WRITE = 30.0
"""How long before the end of its lease a launcher needs a new one to go on writing."""

SECONDS_FOR_LOCK = 10.0
"""How long to wait for the lock; its holder needs it for a few files."""

UNKNOWN = Owner("an unknown host", 0, 0.0)


def seconds_since_boot() -> float:
    """A monotonic clock that goes on while the machine sleeps, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a claim file says. Older versions wrote no launcher and no token."""

    owner: Owner
    launcher: str = ""
    token: int = 0


@dataclasses.dataclass
class Watch:
    """A launcher's lease as it was seen last, and for how many seconds it has been seen without a change."""

    text: str
    looked: float
    silent: float = 0.0


class Claims:
    """The claims of one launcher, in a folder that all launchers of the sweep see.

    `ended.log` in the folder has a line for each run that a launcher has finished: a launcher that made its plan before
    that reads the run from the store instead of training it again.

    Args:
        folder: where the claims are.
        owner: the launcher's process; None for this one.
        clock: seconds, for watching other launchers.
        own_clock: seconds, for this launcher's own lease; it goes on while the machine sleeps.
    """

    def __init__(
        self,
        folder: Path,
        owner: Owner | None = None,
        clock: Callable[[], float] = time.monotonic,
        own_clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self.folder = folder
        self.owner = owner or Owner.this()
        self._launcher = secrets.token_hex(8)
        self._clock, self._own_clock = clock, own_clock
        # Of the launcher's main thread and of its writer's.
        self._mutex = threading.RLock()
        self._tokens: dict[str, int] = {}
        self._lost: set[str] = set()
        self._watched: dict[str, Watch] = {}
        self._renewals, self._renewed, self._beat = 0, -math.inf, -math.inf
        self._log = folder / "ended.log"
        self._read = self._log.stat().st_size if self._log.exists() else 0

    @property
    def held(self) -> set[str]:
        """The runs that this launcher has claimed, as far as it knows."""
        return set(self._tokens)

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim those of `keys` that are free; returns those that this launcher holds now.

        Raises `StoreError` or `DiskFull` for a folder that cannot be written.
        """
        keys = set(keys)
        with self._mutex:
            if wanted := sorted(keys - self._tokens.keys()):
                try:
                    with self._locked():
                        lives: dict[str, bool] = {}
                        claims = {key: self._claim(key) for key in wanted}
                        free = [key for key, claim in claims.items() if not self._in_the_way(key, claim, lives)]
                        if free:
                            self._renew()
                        for key in free:
                            self._take(key)
                except TimeoutError:
                    """As if others held the claims: the launcher tries again."""
                except OSError as error:
                    raise write_error(error, self.folder) from None
            return keys & self._tokens.keys()

    def _take(self, key: str) -> None:
        counter = self.folder / "last-token"
        try:
            token = int(counter.read_text(encoding="utf-8")) + 1
        except (FileNotFoundError, ValueError):
            token = 1
        write_all({counter: f"{token}\n".encode()})
        content = {"launcher": self._launcher, "token": token, **dataclasses.asdict(self.owner)}
        write_all({self._path(key): f"{json.dumps(content)}\n".encode()})
        self._tokens[key] = token

    def confirm(self, key: str) -> bool:
        """Whether this launcher may write a run: its claim is there, and nobody can take it over at this moment.

        Raises `OSError` where that cannot be found out now.
        """
        with self._mutex:
            if key not in self._tokens:
                return False
            if self._may_have_run_out:
                with self._locked():
                    self._renew()
            return self._is_own(key)

    def _is_own(self, key: str) -> bool:
        """Whether the claim of a run is still this launcher's; otherwise it counts as lost from now on."""
        claim = self._claim(key)
        if claim is not None and (claim.launcher, claim.token) == (self._launcher, self._tokens[key]):
            return True
        del self._tokens[key]
        self._lost.add(key)
        return False

    def newly_lost(self) -> set[str]:
        """The runs whose claims were found gone, or to be another launcher's, since the last call."""
        with self._mutex:
            lost, self._lost = self._lost, set()
            return lost

    def release(self, keys: Iterable[str]) -> None:
        """Give these claims up."""
        with self._mutex:
            own = set(keys) & self._tokens.keys()
            if not own:
                return
            # Without the lock the files stay, until it is seen that their launcher has ended.
            with contextlib.suppress(OSError), self._locked():
                for key in own:
                    if self._is_own(key):
                        self._path(key).unlink(missing_ok=True)
            for key in own:
                self._tokens.pop(key, None)

    def ended(self, keys: Iterable[str]) -> None:
        """These runs are in the store: log that for other launchers, then release the claims."""
        keys = list(keys)
        self.folder.mkdir(parents=True, exist_ok=True)
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
        """The owner of the claim of a run; None if it is unclaimed, or if the claiming process has ended."""
        with self._mutex:
            claim = self._claim(key)
            return claim.owner if claim is not None and self._lives(key, claim, {}) else None

    def others(self, keys: Iterable[str]) -> dict[str, Owner]:
        """The other launchers that hold one of `keys`."""
        if not self.folder.is_dir():
            return {}
        claimed = {path.stem for path in self.folder.glob("*.json")}
        found: dict[str, Owner] = {}
        with self._mutex:
            lives: dict[str, bool] = {}
            for key in keys:
                claim = self._claim(key) if key in claimed and key not in self._tokens else None
                if claim is not None and self._in_the_way(key, claim, lives):
                    found[key] = claim.owner
        return found

    def require_free(self, keys: Iterable[str]) -> None:
        """Raises `RequestError` when another process trains one of `keys`."""
        for key, owner in self.others(keys).items():
            raise RequestError(f"run {key} is being trained by {owner}; {self.remedy(key, owner)}")

    def remedy(self, key: str, owner: Owner) -> str:
        """What to do about a claim that is in the way."""
        remedy = "wait for it, or end it first"
        return remedy if owner.alive else f"{remedy}; if that machine is gone, delete {self._path(key)}"

    def heartbeat(self) -> None:
        """Renew this launcher's lease when it is time, and see whether its claims are still there."""
        with self._mutex:
            now = self._own_clock()
            if not self._tokens or now - self._beat < SECONDS_BETWEEN_HEARTBEATS:
                return
            self._beat = now
            # A folder that cannot be reached for a while: `confirm` then says so.
            with contextlib.suppress(OSError):
                with self._locked() if self._may_have_run_out else contextlib.nullcontext():
                    self._renew()
                for key in self.held:
                    self._is_own(key)

    def close(self) -> None:
        """Give all claims up."""
        self.release(self.held)
        with contextlib.suppress(OSError):
            self._lease(self._launcher).unlink(missing_ok=True)
            self._remove_leases()

    def _remove_leases(self) -> None:
        """Remove what launchers that were killed have left, once nothing is claimed by them."""
        claims = [self._claim(path.stem) for path in self.folder.glob("*.json")]
        claiming = {claim.launcher for claim in claims if claim is not None}
        for lease in self.folder.glob("*.lease"):
            if lease.stem not in claiming and self._parsed(lease.read_text(encoding="utf-8")).owner.alive is False:
                lease.unlink(missing_ok=True)

    # Leases

    @property
    def _may_have_run_out(self) -> bool:
        return self._own_clock() - self._renewed > SECONDS_OF_LEASE - SECONDS_TO_WRITE

    def _renew(self) -> None:
        now = self._own_clock()
        self._renewals += 1
        content = {"renewals": self._renewals, **dataclasses.asdict(self.owner)}
        write_all({self._lease(self._launcher): f"{json.dumps(content)}\n".encode()})
        self._renewed = now

    def _in_the_way(self, key: str, claim: Claim | None, known: dict[str, bool]) -> bool:
        """Whether a claim is that of another launcher, and valid."""
        return claim is not None and claim.launcher != self._launcher and self._lives(key, claim, known)

    def _lives(self, key: str, claim: Claim, known: dict[str, bool]) -> bool:
        """Whether the launcher of a claim lives, as far as can be told; `known` from the same moment."""
        # A claim of an older version is its own sign of life: it is touched.
        name = claim.launcher or key
        if name not in known:
            alive = claim.owner.alive
            path = self._lease(claim.launcher) if claim.launcher else self._path(key)
            known[name] = not self._silent(name, path) if alive is None else alive
        return known[name]

    def _silent(self, name: str, lease: Path) -> bool:
        """Whether a lease has not changed while it was watched for long enough."""
        try:
            text = f"{lease.stat().st_mtime_ns} {lease.read_text(encoding='utf-8', errors='replace')}"
        except FileNotFoundError:
            text = ""
        now = self._clock()
        watch = self._watched.get(name)
        if watch is None or watch.text != text:
            self._watched[name] = Watch(text, now)
            return False
        # This launcher may itself have been stopped since it looked last, together with the other one.
        watch.silent += min(now - watch.looked, SECONDS_BETWEEN_HEARTBEATS)
        watch.looked = now
        return watch.silent >= SECONDS_OF_LEASE

    # Files

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Excludes other launchers. Raises `TimeoutError` when one of them keeps the lock."""
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.folder / "take-over.lock"), timeout=SECONDS_FOR_LOCK):
            yield

    def _claim(self, key: str) -> Claim | None:
        """The claim of a run, or None."""
        try:
            return self._parsed(self._path(key).read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None

    @staticmethod
    def _parsed(text: str) -> Claim:
        """A claim from its text. One that cannot be read, of a full disk perhaps, has an unknown owner."""
        try:
            fields = json.loads(text)
            owner = Owner(fields["host"], int(fields["pid"]), float(fields["started"]), fields.get("space", ""))
            launcher = fields.get("launcher", "")
            if not re.fullmatch("[0-9a-f]*", launcher) or not isinstance(owner.space, str):
                return Claim(UNKNOWN)
            return Claim(owner, launcher, int(fields.get("token", 0)))
        except (ValueError, TypeError, KeyError, AttributeError):
            return Claim(UNKNOWN)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _lease(self, launcher: str) -> Path:
        return self.folder / f"{launcher}.lease"
