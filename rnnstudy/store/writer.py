"""The writer of a sweep: a thread that hands records to the store while training goes on, and bears with the store.

A store that does not answer is asked again, after longer and longer pauses, while the records wait in memory. One that
stays away is given up: what it has not got goes into a folder of files, for `rnnstudy sync`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.store.errors import DiskFull, StoreUnavailable, disk_is_full
from rnnstudy.store.system_metrics import Sample
from rnnstudy.store.tracker import Tracker
from rnnstudy.training.records import Record

SECONDS_OF_PATIENCE = 180.0
"""How long a store may stay away before records go to files."""

SECONDS_OF_PATIENCE_AT_THE_END = 30.0
"""The same, when nothing is left to do but wait for the store."""

SECONDS_UNTIL_TOLD = 2.0
"""A store that does not answer for so long is worth a line."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before the store is asked again: doubled each time."""


@dataclass(frozen=True)
class FallbackTracker:
    """Where records go when the store stays away: how it is named to the user, and how it is opened."""

    name: str
    open: Callable[[], Tracker]


class Writer:
    """Hands on, in order and in a thread of its own, what a launcher wants written.

    Attributes:
        busy: seconds that the thread has spent writing.
        in_files: whether the store was given up, and files stand in for it.
        fault: why nothing can be written any more (a full disk, say), or None.
    """

    def __init__(self, tracker: Tracker, refuge: FallbackTracker | None, patience: float = SECONDS_OF_PATIENCE) -> None:
        self.busy = 0.0
        self.in_files = False
        self.fault: Exception | None = None
        self._tracker, self._refuge, self._patience = tracker, refuge, patience
        self._waiting: queue.SimpleQueue[tuple[Callable[[], None], str | None] | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._open: dict[str, tuple[Run, str, Mapping[str, str]]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def begin(self, run: Run, name: str, tags: Mapping[str, str]) -> None:
        """A run starts, or goes on."""

        def act() -> None:
            self._open[run.key] = (run, name, tags)
            self._tracker.begin(run, name, tags)

        self._put(act, run.key)

    def write(self, record: Record) -> None:
        """Keep a record; one with an outcome ends its run."""

        def act() -> None:
            if record.key in self._open:
                self._tracker.write(record)
                if record.outcome is not None:
                    del self._open[record.key]

        self._put(act, record.key)

    def sampled(self, sample: Sample) -> None:
        """What the machine's sensors say now."""
        seconds = time.time()
        self._put(lambda: self._tracker.sampled(sample, seconds), None)

    def interrupt(self, key: str) -> None:
        """A run was stopped from outside and can go on later."""

        def act() -> None:
            if key in self._open:
                self._tracker.interrupt(key)
                del self._open[key]

        self._put(act, key)

    def then(self, action: Callable[[], None]) -> None:
        """Do something when everything so far is in the store (or in the files that stand in for it)."""
        self._put(action, None)

    def news(self) -> Iterator[str]:
        """What is to be said, a line each."""
        while not self._news.empty():
            yield self._news.get()

    @property
    def behind(self) -> int:
        """How many things wait to be written."""
        return self._waiting.qsize()

    def close(self, cut_short: Callable[[], bool] = lambda: False) -> None:
        """Write what waits, and end; `cut_short` is asked meanwhile whether to give up."""
        self._ending.set()
        self._put(self._tracker_closes, None)
        self._waiting.put(None)
        while not cut_short() and self._thread.is_alive():
            self._thread.join(0.1)
        cut_short()

    def _work(self) -> None:
        try:
            while (waiting := self._waiting.get()) is not None:
                self._do(*waiting)
        except Exception as error:
            # A mistake of ours; the launcher raises it.
            self.fault = error

    def _put(self, act: Callable[[], None], key: str | None) -> None:
        self._waiting.put((act, key))

    def _tracker_closes(self) -> None:
        self._tracker.close()

    def _do(self, act: Callable[[], None], key: str | None) -> None:
        """Carry one thing out, however often the store must be asked. It may concern one run, or none."""
        began, pause, told = time.monotonic(), FIRST_PAUSE, False
        while self.fault is None:
            started = time.monotonic()
            try:
                act()
            except (SpecError, OSError) as error:
                self.busy += time.monotonic() - started
                if disk_is_full(error):
                    self.fault = DiskFull.told(error)
                    return
                if not isinstance(error, StoreUnavailable | OSError):
                    # The store has answered, and said no: the run was deleted in its pages, for example.
                    self._news.put(f"{error}; the run was dropped, and the same command trains it again")
                    self._open.pop(key or "", None)
                    return
                if time.monotonic() - began > self._patience_now():
                    if self._refuge is None:
                        self.fault = SpecError(f"{error}; what was not written is trained again by the same command")
                        return
                    self._take_refuge(error, self._refuge)
                    began, told = time.monotonic(), False
                    continue
                if not told and time.monotonic() - began > SECONDS_UNTIL_TOLD:
                    told = True
                    self._news.put(f"{error}; training goes on, its records wait and are sent again")
                self._ending.wait(pause) if not self._ending.is_set() else time.sleep(min(pause, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.busy += time.monotonic() - started
                if told:
                    self._news.put("the store answers again")
                return

    def _patience_now(self) -> float:
        return min(self._patience, SECONDS_OF_PATIENCE_AT_THE_END) if self._ending.is_set() else self._patience

    def _take_refuge(self, error: Exception, refuge: FallbackTracker) -> None:
        """From here on files stand in for the store; the runs that were being written go on there."""
        self._refuge, self.in_files = None, True
        try:
            self._tracker = refuge.open()
            for run, name, tags in self._open.values():
                self._tracker.begin(run, name, tags)
        except (SpecError, OSError) as second:
            self.fault = DiskFull.told(second) if disk_is_full(second) else SpecError(f"{error}; {second}")
            return
        self._news.put(f"{error}; records go to files now: when the store is back, run: rnnstudy sync {refuge.name}")
