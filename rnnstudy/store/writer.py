"""The writer of a sweep: a thread that writes records during training, and retries while the store is unavailable.

Records wait in memory during the pauses between retries, which grow longer. A store that stays away is given up: the
records that it lacks go into a folder of files, for `rnnstudy sync`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rnnstudy.run import Run
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.errors import DiskFull, StoreError, StoreUnavailable, disk_is_full
from rnnstudy.store.system_metrics import Sample
from rnnstudy.store.tracker import Tracker
from rnnstudy.training.records import Record

SECONDS_OF_PATIENCE = 180.0
"""How long a store may stay away before records go to files."""

SECONDS_OF_PATIENCE_AT_THE_END = 30.0
"""The same, when training has ended and only the store is waited for."""

SECONDS_UNTIL_REPORTED = 2.0
"""How long a store may stay away before the user is told."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a retry: doubled each time."""


@dataclass(frozen=True)
class FallbackTracker:
    """Where records go when the store stays away: its name for the user, and the function that opens it."""

    name: str
    open: Callable[[], Tracker]


class Writer:
    """Writes what a launcher passes to it, in order, in its own thread.

    Before each write it asks `may_write` about the run's key. If the answer is no, another launcher has taken the run
    over, and it is dropped; an `OSError` means that the answer cannot be had now.

    Attributes:
        busy: seconds that the thread has spent writing.
        fell_back_to_files: whether the store was given up, and files are written in its place.
        fault: why nothing can be written any more (a full disk, for example), or None.
    """

    def __init__(
        self,
        tracker: Tracker,
        fallback: FallbackTracker | None,
        patience: float = SECONDS_OF_PATIENCE,
        may_write: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.busy = 0.0
        self.fell_back_to_files = False
        self.fault: Exception | None = None
        self._tracker, self._fallback, self._patience = tracker, fallback, patience
        self._may_write = may_write
        self._waiting: queue.SimpleQueue[tuple[Callable[[], None], str | None] | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._open: dict[str, tuple[Run, str, Mapping[str, str], float | None]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def begin(self, run: Run, name: str, tags: Mapping[str, str], began: float | None = None) -> None:
        """A run starts, or continues; its first update `began` at this time, in seconds since 1970 (None: now)."""

        def act() -> None:
            if self._may_write(run.key):
                self._open[run.key] = (run, name, tags, began)
                self._tracker.begin(run, name, tags, began)

        self._waiting.put((act, run.key))

    def write(self, record: Record) -> None:
        """Write a record; one with an outcome ends its run."""

        def act() -> None:
            if self._writes(record.key):
                self._tracker.write(record)
                if record.outcome is not None:
                    del self._open[record.key]

        self._waiting.put((act, record.key))

    def sampled(self, sample: Sample) -> None:
        """Write a reading of the machine's sensors, made now."""
        seconds = time.time()
        self.then(lambda: self._tracker.sampled(sample, seconds))

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can continue later."""

        def act() -> None:
            if self._writes(key):
                self._tracker.interrupt(key)
                del self._open[key]

        self._waiting.put((act, key))

    def _writes(self, key: str) -> bool:
        """Whether a run is open and still this launcher's; otherwise it is dropped."""
        if key in self._open and not self._may_write(key):
            del self._open[key]
            self._tracker.drop(key)
        return key in self._open

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` in the writer's thread once everything passed before is in the store (or in the files)."""
        self._waiting.put((action, None))

    def messages(self) -> Iterator[str]:
        """The lines for the user since the last call."""
        while not self._messages.empty():
            yield self._messages.get()

    def close(self, cut_short: Callable[[], bool] = lambda: False) -> None:
        """Write what waits, and end the thread; stops waiting for it as soon as `cut_short()` is true."""
        self._ending.set()
        # Looked up when it is called: the tracker may have been replaced by then.
        self.then(lambda: self._tracker.close())
        self._waiting.put(None)
        while not cut_short() and self._thread.is_alive():
            self._thread.join(0.1)
        cut_short()

    def _work(self) -> None:
        try:
            while (waiting := self._waiting.get()) is not None:
                self._carry_out(*waiting)
        except Exception as error:
            # A bug, not a store error: raised again by the launcher.
            self.fault = error

    def _carry_out(self, act: Callable[[], None], key: str | None) -> None:
        """Call `act`, which concerns the run `key` if any, until it succeeds or there is a fault."""
        began, pause, reported = time.monotonic(), FIRST_PAUSE, False
        while self.fault is None:
            started = time.monotonic()
            try:
                act()
            except (RnnstudyError, OSError) as error:
                self.busy += time.monotonic() - started
                if disk_is_full(error):
                    self.fault = DiskFull.caused_by(error)
                    return
                if not isinstance(error, StoreUnavailable | OSError):
                    # The store has refused: the run was deleted in MLflow's pages, for example.
                    self._messages.put(f"{error}; the run was dropped, and the same command trains it again")
                    self._open.pop(key or "", None)
                    return
                if time.monotonic() - began > self._patience_now():
                    if self._fallback is None:
                        self.fault = StoreError(f"{error}; what was not written is trained again by the same command")
                        return
                    self._fall_back(error, self._fallback)
                    began, reported = time.monotonic(), False
                    continue
                if not reported and time.monotonic() - began > SECONDS_UNTIL_REPORTED:
                    reported = True
                    self._messages.put(f"{error}; training goes on, its records wait and are sent again")
                self._ending.wait(pause) if not self._ending.is_set() else time.sleep(min(pause, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.busy += time.monotonic() - started
                if reported:
                    self._messages.put("the store answers again")
                return

    def _patience_now(self) -> float:
        return min(self._patience, SECONDS_OF_PATIENCE_AT_THE_END) if self._ending.is_set() else self._patience

    def _fall_back(self, error: Exception, fallback: FallbackTracker) -> None:
        """Write files from now on; the runs that were being written continue there."""
        self._fallback, self.fell_back_to_files = None, True
        try:
            self._tracker = fallback.open()
            for opened in self._open.values():
                self._tracker.begin(*opened)
        except (RnnstudyError, OSError) as second:
            self.fault = DiskFull.caused_by(second) if disk_is_full(second) else StoreError(f"{error}; {second}")
            return
        self._messages.put(
            f"{error}; records go to files now: when the store is back, run: rnnstudy sync {fallback.name}"
        )
