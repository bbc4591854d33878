"""Launching: claim populations, hand them to workers, write what comes back, and bear with whatever breaks."""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from rnnstudy.engines.choice import Wanted
from rnnstudy.run import Run
from rnnstudy.spec import SpecError
from rnnstudy.store.errors import StoreUnavailable
from rnnstudy.store.project import Project
from rnnstudy.store.system_metrics import Machine
from rnnstudy.store.tracker import Tracker
from rnnstudy.store.writer import FallbackTracker, Writer
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.messages import (
    Assignment,
    Failed,
    Finished,
    Message,
    Notice,
    OutOfDisk,
    OutOfMemory,
    Stopped,
    halves,
    part_of,
    resume_of,
)
from rnnstudy.sweep.plan import ATTEMPTS, Plan
from rnnstudy.sweep.queue import WorkQueue
from rnnstudy.sweep.signals import STOPPING
from rnnstudy.sweep.workers import ProcessPool, Worker, WorkerPool
from rnnstudy.training.checkpoint import keys_in
from rnnstudy.training.devices import devices
from rnnstudy.training.population import Population
from rnnstudy.training.records import Check, Outcome, Record, TrainingProgress

SECONDS_TO_STOP = 60.0
"""How long workers may take to save their checkpoints before they are ended."""

SECONDS_BETWEEN_TURNS = 0.1
"""How long a launcher waits for its workers before it looks at everything else, too."""

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a launcher looks after the runs that others have claimed."""


class ProgressListener(Protocol):
    """Is told how a sweep goes on; draws it, or does nothing."""

    def started(self, task: Assignment) -> None: ...

    def progressed(self, task: Assignment, progress: TrainingProgress) -> None: ...

    def ended(self, task: Assignment, message: str) -> None: ...

    def said(self, line: str) -> None: ...


@dataclass
class SweepSummary:
    """How a sweep ended: keys by what became of them; `writing_seconds` were spent writing, beside the training;
    `in_files` when the store stayed away and files hold what it has not got."""

    served: set[str] = field(default_factory=set)
    ended: dict[str, Outcome] = field(default_factory=dict)
    interrupted: bool = False
    writing_seconds: float = 0.0
    in_files: bool = False

    @property
    def failed(self) -> list[str]:
        return [key for key, outcome in self.ended.items() if outcome.status == "failed"]


@dataclass
class CrashCount:
    """How often in a row a population's worker died without the population getting further."""

    times: int = 0
    furthest: int = -1

    def count(self, step: int) -> None:
        """Another death, after this many updates."""
        self.times = 1 if step > self.furthest >= 0 else self.times + 1
        self.furthest = max(self.furthest, step)


class Launcher:
    """Trains what a supply hands out with worker processes. One process, this one, writes to the tracker.

    Args:
        supply: where populations come from.
        tracker: where records go, through a thread of their own.
        project: whose folders are used.
        experiment: the file that workers import, so that its classes exist in them.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; workers are spread over all GPUs where none is named.
        engine: what trains.
        workers: most worker processes at once.
        watcher: is told how the sweep goes on.
        claims: which runs this launcher and which ones others train; without, nobody else is there.
        replan: what is to be done about runs that another launcher had claimed and no longer has.
        refuge: where records go if the store stays away.
        crew: who trains; without, `workers` processes of this machine on `device`.
        machine: its sensors, whose readings go to the runs that are being trained.
    """

    def __init__(
        self,
        supply: WorkQueue,
        tracker: Tracker,
        project: Project,
        *,
        experiment: Path | None,
        device: str,
        engine: Wanted = "auto",
        workers: int,
        watcher: ProgressListener,
        claims: Claims | None = None,
        replan: Callable[[Sequence[Run]], Plan] | None = None,
        refuge: FallbackTracker | None = None,
        crew: WorkerPool | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._supply, self._tracker, self._project, self._watcher = supply, tracker, project, watcher
        self._crew = crew or ProcessPool(workers, devices(device), experiment, engine, project.logs)
        self._claims, self._replan, self._machine = claims, replan, machine
        self._writer = Writer(tracker, refuge)
        self._deaths: dict[str, CrashCount] = {}
        self._steps: dict[str, int] = {}
        self._elsewhere: dict[str, Run] = {}
        self._ended_elsewhere: set[str] = set()
        self._kept: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._looked = 0.0
        self._fault: SpecError | None = None
        self.summary = SweepSummary()

    def run(self) -> SweepSummary:
        """Train everything, or stop cleanly at one of the signals `STOPPING`: the same command then goes on.

        Raises `SpecError` when nothing can be written any more: what was saved is kept, and the same command goes on.
        """
        self.summary.served = set(self._supply.served)
        with self._signals() as ended_at_once:
            try:
                self._loop()
            finally:
                self._crew.end()
                self._writer.close(lambda: self._tell() or ended_at_once())
                if self._claims is not None:
                    self._claims.close()
        self._tell_supply()
        if fault := self._fault or self._writer.fault:
            raise fault
        self._tidy()
        self.summary.served |= set(self._supply.served)
        self.summary.writing_seconds, self.summary.in_files = self._writer.busy, self._writer.in_files
        return self.summary

    def _loop(self) -> None:
        deadline = None
        self._hand_out()
        while self._crew.busy or not (self._done or self._crew.told_to_stop):
            if self._writer.fault is not None:
                self._crew.stop()
            if self._crew.told_to_stop and deadline is None:
                self.summary.interrupted = True
                self._watcher.said("stopping: saving checkpoints; the same command goes on from here")
                deadline = time.monotonic() + SECONDS_TO_STOP
            if deadline is not None and time.monotonic() > deadline:
                break
            by_connection = {one.connection: one for one in self._crew.busy}
            if not by_connection:
                # Nobody trains, and there is nothing to hand out at this moment.
                time.sleep(SECONDS_BETWEEN_TURNS)
            for ready in wait(list(by_connection), timeout=SECONDS_BETWEEN_TURNS):
                assert isinstance(ready, Connection)
                self._receive(by_connection[ready])
            self._tell_supply()
            self._look_elsewhere()
            self._hand_out()
            self._tell()
        if not self._done:
            self.summary.interrupted = True
        for one in self._crew.busy:
            assert one.task is not None
            self._interrupt(one.task)

    @property
    def _done(self) -> bool:
        """Whether nothing is left to train, and nothing to wait for that others train."""
        return self._supply.done and not (self._elsewhere and self._replan is not None)

    def _tell(self) -> None:
        """Now and then: say what the writer has to say, read the sensors, show other launchers that this one lives."""
        for line in self._writer.news():
            self._watcher.said(line)
        if self._claims is not None:
            self._claims.beat()
        if self._machine is not None and (sample := self._machine.sample()):
            self._writer.sampled(sample)

    # What workers say

    def _receive(self, one: Worker) -> None:
        task = one.task
        assert task is not None
        try:
            message: Message = one.connection.recv()
        except (EOFError, ConnectionResetError):
            self._died(one, task, one.how_it_ended())
            return
        match message:
            case Record():
                self._writer.write(message)
                if message.outcome is not None:
                    self._ended(message.key, message.outcome)
            case TrainingProgress():
                self._steps[Population(task.runs).key] = message.step
                self._watcher.progressed(task, message)
            case Check():
                if keys := frozenset(self._supply.checked(message)):
                    one.prune(keys)
            case Notice():
                self._watcher.said(message.line)
            case Finished():
                self._writer.then(lambda: self._remove_checkpoints(task))
                self._watcher.ended(task, "")
                one.task = None
            case Stopped() if self._crew.told_to_stop:
                self._interrupt(task)
                one.task = None
            case Stopped():
                self._again(one, task, "worker was terminated")
            case OutOfMemory():
                self._out_of_memory(one, task, message.reason)
            case OutOfDisk():
                self._fault = SpecError(message.reason)
                self._crew.stop()
                self._interrupt(task)
                one.task = None
            case Failed():
                self._fail(task, message.reason)
                self._watcher.said(f"failed: {self._described(task)}: {message.reason}; details in {one.log}")
                one.task = None

    def _died(self, one: Worker, task: Assignment, how: str) -> None:
        """A worker ended without a word: it was killed, perhaps because the machine had no memory left.

        Its population goes on in another. One that dies again where it died before is halved, since the larger one may
        not fit; a single run that dies there too often has failed.
        """
        key = Population(task.runs).key
        deaths = self._deaths.setdefault(key, CrashCount())
        deaths.count(self._steps.get(key, 0))
        if deaths.times >= ATTEMPTS and len(task.runs) == 1:
            self._crew.dismiss(one)
            self._fail(task, f"{how}, {ATTEMPTS} times", ATTEMPTS)
            self._watcher.said(f"given up after {ATTEMPTS} attempts: {self._described(task)}: {how}; see {one.log}")
        elif deaths.times >= ATTEMPTS - 1 and len(task.runs) > 1:
            self._again(one, task, f"{how}, {deaths.times} times at the same place (out of memory?)", halves(task))
        else:
            self._again(one, task, how)

    def _out_of_memory(self, one: Worker, task: Assignment, reason: str) -> None:
        """Halve a population that does not fit. The worker goes too: only a new process has all its memory again."""
        if len(task.runs) > 1:
            self._again(one, task, f"out of memory ({reason})", halves(task))
            return
        self._crew.dismiss(one)
        self._fail(task, f"out of memory, even alone: {reason}", ATTEMPTS)
        self._watcher.said(
            f"failed: {self._described(task)} does not fit into memory, even alone ({reason}); "
            "a smaller training.batch, width or length would"
        )

    def _again(self, one: Worker, task: Assignment, how: str, parts: Sequence[Assignment] = ()) -> None:
        """A population goes on in another worker, or its parts do."""
        self._crew.dismiss(one)
        if self._crew.told_to_stop:
            self._interrupt(task)
            return
        parts = parts or [Assignment(task.runs, task.checkpoint, resume_of(task))]
        for run in task.runs:
            self._writer.interrupt(run.key)
        for part in reversed(parts):
            self._supply.give_back(part)
        self._watcher.ended(task, "halved" if len(parts) > 1 else "interrupted")
        goes_on = "goes on in a new one" if len(parts) == 1 else "goes on in two halves"
        self._watcher.said(f"{how}; {self._described(task)} {goes_on}")

    # What is to be done

    def _hand_out(self) -> None:
        """Give every idle worker something to do; a new worker is started where there is work for it."""
        while not self._crew.told_to_stop and self._crew.has_room:
            task = self._supply.take()
            if task is None:
                return
            task = self._claimed(task)
            if task is None:
                continue
            self._crew.idle().give(task)
            self._watcher.started(task)
            for run in task.runs:
                self._writer.begin(run, self._supply.name(run), self._supply.tags(run))

    def _claimed(self, task: Assignment) -> Assignment | None:
        """What of a population is this launcher's to train: not what another trains, nor what one has just ended."""
        if self._claims is None:
            return task
        own = self._claims.take(run.key for run in task.runs)
        # Looked at after the claim was made: whoever ended a run before has told it by now.
        self._ended_elsewhere |= self._claims.news() - self.summary.ended.keys()
        self._claims.release(own & self._ended_elsewhere)
        own -= self._ended_elsewhere
        for run in task.runs:
            if run.key not in own:
                self._elsewhere[run.key] = run
        if len(own) == len(task.runs):
            return task
        runs = tuple(run for run in task.runs if run.key in own)
        return part_of(task, runs) if runs else None

    def _look_elsewhere(self) -> None:
        """See what has become of runs that others had claimed: those that are free again are this launcher's."""
        if not self._elsewhere or self._claims is None or self._replan is None or self._crew.told_to_stop:
            return
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        first, self._looked = self._looked == 0.0, time.monotonic()
        others = self._claims.others(self._elsewhere)
        if first and others:
            who = ", ".join(sorted({str(owner) for owner in others.values()}))
            self._watcher.said(f"{len(others)} runs are being trained by {who}; this sweep ends when they have ended")
        free = [run for key, run in self._elsewhere.items() if key not in others]
        if not free:
            return
        try:
            self._tracker.mend()
            planned = self._replan(free)
        except StoreUnavailable:
            return
        for run in free:
            del self._elsewhere[run.key]
        self._ended_elsewhere -= {run.key for run in free}
        self.summary.served |= planned.served
        for key, failures in planned.set_aside.items():
            self.summary.ended[key] = Outcome("failed", 0, reason=failures.reason)
        for task in reversed(planned.tasks):
            self._supply.give_back(task)
        self._supply.ended_elsewhere(planned.served, planned.set_aside.keys())

    # How runs end

    def _interrupt(self, task: Assignment) -> None:
        self.summary.interrupted = True
        left = [run.key for run in task.runs if run.key not in self.summary.ended]
        for key in left:
            self._writer.interrupt(key)
        self._writer.then(lambda: self._release(left))
        self._watcher.ended(task, "interrupted")

    def _fail(self, task: Assignment, reason: str, attempts: int = 1) -> None:
        for run in task.runs:
            if run.key not in self.summary.ended:
                outcome = Outcome("failed", 0, reason=reason, attempts=attempts)
                self._writer.write(Record(run.key, 0, time.time(), {}, outcome))
                self._ended(run.key, outcome)
        self._watcher.ended(task, "failed")

    def _ended(self, key: str, outcome: Outcome) -> None:
        self.summary.ended[key] = outcome
        # A search that heard of a run before the store has it would not ask for it again, should this process die now.
        self._writer.then(lambda: self._kept.put((key, outcome)))
        if self._claims is not None:
            self._writer.then(lambda: self._told_others([key]))

    def _tell_supply(self) -> None:
        """Tell the supply, in its own thread, of the ends that have been written."""
        while not self._kept.empty():
            self._supply.ended(*self._kept.get())

    def _told_others(self, keys: Iterable[str]) -> None:
        if self._claims is not None:
            self._claims.ended(keys)

    def _release(self, keys: Iterable[str]) -> None:
        if self._claims is not None:
            self._claims.release(keys)

    def _remove_checkpoints(self, task: Assignment) -> None:
        """A population is in the store: its checkpoint, and an older one it went on from, are no longer needed."""
        for path in {task.checkpoint, task.resume or task.checkpoint}:
            self._remove_if_ended(path)

    def _tidy(self) -> None:
        """Remove what is left of populations that were halved, or that several launchers trained in parts."""
        for path in self._project.checkpoints.glob("*.pt"):
            self._remove_if_ended(path)

    def _remove_if_ended(self, path: Path) -> None:
        keys = set(keys_in(path))
        well = {key for key, outcome in self.summary.ended.items() if outcome.status != "failed"}
        if keys and keys <= well | self.summary.served | set(self._supply.served):
            path.unlink(missing_ok=True)

    def _described(self, task: Assignment) -> str:
        return ", ".join(self._supply.name(run) for run in task.runs)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[Callable[[], bool]]:
        """The signals `STOPPING` ask the workers to stop; a second Ctrl-C or kill ends at once. Gives whether one came.

        A closed terminal may be told twice, by the system and by the shell: that is no second wish. A signal that this
        process was started to ignore, as by nohup, stays ignored.
        """
        asked: list[int] = []

        def ask(signum: int, frame: object) -> None:
            if asked and signum not in (signal.SIGINT, signal.SIGTERM):
                return
            asked.append(signum)
            if self._crew.told_to_stop and len(asked) == 2:
                raise KeyboardInterrupt
            self._crew.stop()

        if threading.current_thread() is not threading.main_thread():
            yield lambda: False
            return
        heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, ask) for number in heard}
        try:
            yield lambda: len(asked) > 1
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
