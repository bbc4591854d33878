"""The writer: nothing is lost, doubled or out of order, whatever the store does, and messages say what happens."""

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rnnstudy.cells import Elman
from rnnstudy.run import Run
from rnnstudy.store import writer as writers
from rnnstudy.store.errors import DiskFull, StoreError, StoreUnavailable
from rnnstudy.store.writer import FallbackTracker, Writer
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.records import Outcome, Record

RUN = Run(task=TemporalOrder(length=10), cell=Elman(width=3))
AWAY = StoreUnavailable("the store does not answer")


class Notebook:
    """A tracker that notes its calls, after it has raised the given errors."""

    def __init__(self, *faults: Exception, always: Exception | None = None) -> None:
        self.noted: list[Any] = []
        self._faults: list[Exception] = list(faults)
        self._always = always

    def _note(self, what: Any) -> None:
        if self._always is not None:
            raise self._always
        if self._faults:
            raise self._faults.pop(0)
        self.noted.append(what)

    def begin(self, run: Run, name: str, tags: Any = (), began: float | None = None) -> None:
        self._note(("begin", run.key))

    def write(self, record: Record) -> None:
        self._note(record.step)

    def sampled(self, sample: Any, seconds: float) -> None:
        self._note(seconds)

    def interrupt(self, key: str) -> None:
        self._note("interrupt")

    def drop(self, key: str) -> None:
        self._note("drop")

    def close(self) -> None:
        self._note("close")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in [("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.02), ("SECONDS_UNTIL_REPORTED", 0.02)]:
        monkeypatch.setattr(writers, name, seconds)


def record(step: int, outcome: Outcome | None = None) -> Record:
    return Record(RUN.key, step, 1.0, {}, outcome)


def written(tracker: Any, fallback: FallbackTracker | None = None, patience: float = 60.0) -> tuple[Writer, list[str]]:
    """Write a run of three records; returns the writer and its messages."""
    writer = Writer(tracker, fallback, patience)
    writer.begin(RUN, "a", {})
    writer.write(record(1))
    writer.write(record(2))
    writer.write(record(3, Outcome("finished", 3)))
    writer.close()
    return writer, list(writer.messages())


WHOLE = [("begin", RUN.key), 1, 2, 3, "close"]


def test_everything_arrives_in_order():
    tracker = Notebook()
    writer, messages = written(tracker)
    assert tracker.noted == WHOLE
    assert messages == []
    assert writer.fault is None


def test_a_store_that_is_away_for_a_while_is_retried_and_a_message_says_so():
    tracker = Notebook(*[AWAY] * 8)
    writer, messages = written(tracker)
    assert tracker.noted == WHOLE
    assert messages == [
        "the store does not answer; training goes on, its records wait and are sent again",
        "the store answers again",
    ]
    assert not writer.fell_back_to_files


def test_training_does_not_wait_for_the_store():
    tracker = Notebook(*[AWAY] * 40)
    writer = Writer(tracker, None)
    began = time.monotonic()
    writer.begin(RUN, "a", {})
    for step in range(1000):
        writer.write(record(step))
    assert writer._waiting.qsize() > 900
    assert time.monotonic() - began < 10
    writer.close()
    assert tracker.noted[1:-1] == list(range(1000))


def test_a_store_that_stays_away_is_given_up_for_files():
    tracker, files = Notebook(), Notebook()
    writer = Writer(tracker, FallbackTracker("mlruns/offline/x", lambda: files), patience=0.05)
    writer.begin(RUN, "a", {})
    writer.write(record(1))
    wait_until(lambda: len(tracker.noted) == 2)
    tracker._always = AWAY
    writer.write(record(2))
    writer.write(record(3, Outcome("finished", 3)))
    writer.close()
    assert writer.fell_back_to_files
    assert tracker.noted == WHOLE[:2]
    assert files.noted == [("begin", RUN.key), 2, 3, "close"]
    assert list(writer.messages())[-1] == (
        "the store does not answer; records go to files now: "
        "when the store is back, run: rnnstudy sync mlruns/offline/x"
    )


def test_without_files_a_store_that_stays_away_ends_the_sweep():
    writer, _ = written(Notebook(always=AWAY), patience=0.05)
    assert isinstance(writer.fault, StoreError)
    assert "the same command" in str(writer.fault)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "/x/mlflow.db"), DiskFull("full")])
def test_a_full_disk_is_not_waited_for(error: Exception):
    tracker = Notebook(AWAY, error)
    writer, _ = written(tracker, FallbackTracker("x", lambda: Notebook()))
    assert isinstance(writer.fault, DiskFull)
    assert len(str(writer.fault).splitlines()) == 1
    assert tracker.noted == []


def test_a_run_that_the_store_refuses_is_dropped_and_the_others_go_on():
    tracker = Notebook()
    other = RUN.replace(seed=1)
    writer = Writer(tracker, None)
    writer.begin(RUN, "a", {})
    writer.begin(other, "b", {})
    wait_until(lambda: len(tracker.noted) == 2)
    tracker._faults = [StoreError("run a was deleted")]
    writer.write(record(1))
    writer.write(record(2, Outcome("finished", 2)))
    writer.write(Record(other.key, 7, 1.0, {}, Outcome("finished", 7)))
    writer.close()
    assert tracker.noted[2:] == [7, "close"]
    assert list(writer.messages()) == ["run a was deleted; the run was dropped, and the same command trains it again"]


def test_a_mistake_in_the_tracker_is_not_swallowed():
    writer, _ = written(Notebook(KeyError("x")))
    assert isinstance(writer.fault, KeyError)


def test_a_second_interruption_ends_the_wait():
    writer = Writer(Notebook(always=AWAY), None)
    writer.begin(RUN, "a", {})
    answers: Iterator[bool] = iter([False, False, True, True])
    began = time.monotonic()
    writer.close(lambda: next(answers))
    assert time.monotonic() - began < 10


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_that_another_launcher_has_taken_over_is_dropped_and_never_written_again():
    tracker, answers = Notebook(), [True, True, OSError("stale"), True, False]

    def may_write(key: str) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    writer = Writer(tracker, None, may_write=may_write)
    writer.begin(RUN, "a", {})
    for step in (1, 2, 3):
        writer.write(record(step))
    writer.write(record(4, Outcome("finished", 4)))
    writer.interrupt(RUN.key)
    writer.close()
    assert writer.fault is None
    assert tracker.noted == [("begin", RUN.key), 1, 2, "drop", "close"]


def test_a_run_that_was_lost_before_it_began_is_not_begun():
    tracker = Notebook()
    writer = Writer(tracker, None, may_write=lambda key: False)
    writer.begin(RUN, "a", {})
    writer.write(record(1))
    writer.close()
    assert tracker.noted == ["close"]
