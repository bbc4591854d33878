"""Run a sweep: hand populations to workers, have their records written, recover from failures."""

import queue
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnstudy.run import Run
from rnnstudy.spec import RequestError, RnnstudyError
from rnnstudy.store.errors import DiskFull, StoreError, write_error
from rnnstudy.store.project import Project
from rnnstudy.store.system_metrics import Machine
from rnnstudy.store.writer import Writer
from rnnstudy.sweep.messages import (
    Assignment,
    Began,
    Failed,
    Finished,
    Message,
    Notice,
    Ready,
    Stopped,
    halves,
    part_of,
)
from rnnstudy.sweep.plan import ATTEMPTS
from rnnstudy.sweep.queue import WorkQueue
from rnnstudy.sweep.sharing import Sharing
from rnnstudy.sweep.signals import stop_twice
from rnnstudy.sweep.summary import ProgressListener, SweepSummary
from rnnstudy.sweep.workers import Worker, WorkerPool
from rnnstudy.training.checkpoint import checkpoint_keys
from rnnstudy.training.population import Population
from rnnstudy.training.records import Outcome, Record, TrainingProgress, ValidationCheck

SECONDS_TO_STOP = 60.0
"""How long workers may take to save their checkpoints before they are killed."""

STARTS = 5
"""How often in a row a worker may end before it has started, while no other worker is heard of."""

SECONDS_PER_TURN = 0.1
"""How long the launcher waits for messages before it attends to everything else."""


@dataclass
class CrashCount:
    """How often in a row a population's worker crashed without the population getting further."""

    times: int = 0
    furthest: int = -1

    def count(self, step: int) -> None:
        """Count another crash, after this many updates."""
        self.times = 1 if step > self.furthest >= 0 else self.times + 1
        self.furthest = max(self.furthest, step)


class Launcher:
    """Trains what a work queue hands out, with the workers of a pool. Only this process writes to the store.

    Args:
        work: the queue of populations.
        pool: the workers.
        writer: takes every record, in a thread of its own.
        sharing: which runs this launcher trains, where several launchers share the sweep.
        project: whose checkpoints are kept and removed.
        listener: is told how the sweep goes on.
        machine: its sensors, whose readings are logged to the runs in training; None for no system metrics.
    """

    def __init__(
        self,
        work: WorkQueue,
        pool: WorkerPool,
        writer: Writer,
        sharing: Sharing,
        project: Project,
        listener: ProgressListener,
        machine: Machine | None = None,
    ) -> None:
        self._queue, self._pool, self._writer, self._sharing = work, pool, writer, sharing
        self._project, self._listener, self._machine = project, listener, machine
        self._crashes: dict[str, CrashCount] = {}
        self._steps: dict[str, int] = {}
        self._failed_starts = 0
        self._assigned: dict[str, Run] = {}
        self._open: set[str] = set()
        self._written_ends: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._error: Exception | None = None
        self.summary = SweepSummary()

    def run(self) -> SweepSummary:
        """Train everything, or stop cleanly at a stop signal; the same command then continues.

        Raises `DiskFull` or `StoreError` when nothing can be written any more, `RequestError` when no worker starts.
        What was saved is kept.
        """
        with stop_twice(self._pool.stop, lambda: self._pool.stopping) as stopped_twice:
            try:
                self._loop()
            except RnnstudyError as error:
                self._error = error
            except OSError as error:
                self._error = write_error(error, self._project.mlruns)
            finally:
                for worker in self._pool.busy:
                    self._interrupt(worker.busy_with)
                self._pool.close()
                self._writer.close(lambda: self._between_turns() or stopped_twice())
                self._sharing.claims.close()
        self._report_written_ends()
        if error := self._error or self._writer.fault:
            raise error
        self._remove_checkpoints(*self._project.checkpoints.glob("*.pt"))
        self.summary.complete |= self._queue.complete_keys
        self.summary.writing_seconds = self._writer.busy
        self.summary.fell_back_to_files = self._writer.fell_back_to_files
        return self.summary

    def _loop(self) -> None:
        deadline = None
        self._assign_work()
        while self._pool.busy or not (self._done or self._pool.stopping):
            if self._writer.fault is not None:
                self._pool.stop()
            if self._pool.stopping and deadline is None:
                self.summary.interrupted = True
                self._listener.message("stopping: saving checkpoints; the same command continues from here")
                deadline = time.monotonic() + SECONDS_TO_STOP
            if deadline is not None and time.monotonic() > deadline:
                break
            for worker, message in self._pool.received(SECONDS_PER_TURN):
                # Not what one sent that has been dismissed since.
                if worker in self._pool.workers:
                    self._receive(worker, message)
            self._report_written_ends()
            self._leave_lost_runs()
            self._take_over_released_runs()
            self._assign_work()
            self._between_turns()
        if not self._done:
            self.summary.interrupted = True

    @property
    def _done(self) -> bool:
        """True when nothing is left to train, here or by another launcher of this sweep."""
        return self._queue.done and not self._sharing.waiting

    def _between_turns(self) -> None:
        """Pass on the writer's messages, refresh this launcher's claims, read the machine's sensors."""
        for line in self._writer.messages():
            self._listener.message(line)
        self._sharing.claims.heartbeat()
        if self._machine is not None and (sample := self._machine.sample()):
            self._writer.sampled(sample)

    # Messages of workers

    def _receive(self, worker: Worker, message: Message | None) -> None:
        if message is not None:
            worker.ready, self._failed_starts = True, 0
        if isinstance(message, Ready):
            return
        if worker.assignment is None:
            if message is None:
                # It ended while it was idle. Another one is started when there is work for it.
                self._pool.dismiss(worker)
            return
        assignment = worker.assignment
        match message:
            case None if worker.ready:
                self._on_crash(worker, assignment, worker.exit_reason())
            case None:
                self._on_failed_start(worker, assignment, worker.exit_reason())
            case Began():
                self._begin(assignment.runs, message.time)
            case Record():
                self._writer.write(message)
                if message.outcome is not None:
                    self._on_ended(message.key, message.outcome)
            case TrainingProgress():
                self._steps[Population(assignment.runs).key] = message.step
                self._listener.progressed(assignment, message)
            case ValidationCheck():
                if keys := frozenset(self._queue.on_validation(message)):
                    worker.prune(keys)
            case Notice():
                self._listener.message(message.line)
            case Finished():
                # An older checkpoint that the population continued from is no longer needed either.
                paths = {assignment.checkpoint, assignment.resume or assignment.checkpoint}
                self._writer.then(lambda: self._remove_checkpoints(*paths))
                self._listener.ended(assignment, "")
            case Stopped() if self._pool.stopping:
                self._interrupt(assignment)
            case Stopped():
                self._continue_elsewhere(worker, assignment, "worker was terminated")
            case Failed(lack="memory"):
                self._on_out_of_memory(worker, assignment, message.reason)
            case Failed(lack="disk"):
                self._error = DiskFull(message.reason)
                self._pool.stop()
                self._interrupt(assignment)
            case Failed():
                line = f"failed: {self._names(assignment)}: {message.reason}; details in {worker.log}"
                self._fail(assignment, message.reason, line)
        if isinstance(message, Finished | Stopped | Failed):
            worker.assignment = None

    def _on_failed_start(self, worker: Worker, assignment: Assignment, reason: str) -> None:
        """Try again with a new worker. That none starts is no failure of the runs, and nothing will be trained."""
        self._failed_starts += 1
        self._continue_elsewhere(worker, assignment, reason)
        if self._failed_starts >= STARTS:
            log = f"; see {worker.log}" if worker.log.exists() else ""
            raise RequestError(f"no worker starts ({reason}, {self._failed_starts} times in a row{log})")

    def _on_crash(self, worker: Worker, assignment: Assignment, reason: str) -> None:
        """Recover from a worker that ended without a message: it was killed, perhaps for lack of memory.

        Its population continues in a new worker. One that crashes again at the same step is halved, since the whole may
        not fit into memory; a single run that crashes there too often has failed.
        """
        key = Population(assignment.runs).key
        crashes = self._crashes.setdefault(key, CrashCount())
        crashes.count(self._steps.get(key, 0))
        if crashes.times >= ATTEMPTS and len(assignment.runs) == 1:
            self._pool.dismiss(worker)
            line = f"given up after {ATTEMPTS} attempts: {self._names(assignment)}: {reason}; see {worker.log}"
            self._fail(assignment, f"{reason}, {ATTEMPTS} times", line, ATTEMPTS)
        elif crashes.times >= ATTEMPTS - 1 and len(assignment.runs) > 1:
            reason = f"{reason}, {crashes.times} times at the same step (out of memory?)"
            self._continue_elsewhere(worker, assignment, reason, halves(assignment))
        else:
            self._continue_elsewhere(worker, assignment, reason)

    def _on_out_of_memory(self, worker: Worker, assignment: Assignment, reason: str) -> None:
        """Halve a population that does not fit. The worker is replaced: only a new process has all its memory again."""
        if len(assignment.runs) > 1:
            self._continue_elsewhere(worker, assignment, f"out of memory ({reason})", halves(assignment))
            return
        self._pool.dismiss(worker)
        line = f"failed: {self._names(assignment)} does not fit into memory, even alone ({reason}); "
        line += "a smaller training.batch, width or length would"
        self._fail(assignment, f"out of memory, even alone: {reason}", line, ATTEMPTS)

    def _continue_elsewhere(
        self, worker: Worker, assignment: Assignment, reason: str, parts: Sequence[Assignment] = ()
    ) -> None:
        """Requeue a population, or its parts, for a new worker."""
        self._pool.dismiss(worker)
        if self._pool.stopping:
            self._interrupt(assignment)
            return
        parts = parts or [part_of(assignment, assignment.runs)]
        for run in assignment.runs:
            self._leave(run.key)
        for part in reversed(parts):
            self._queue.requeue(part)
        self._listener.ended(assignment, "halved" if len(parts) > 1 else "interrupted")
        continues = "continues in a new worker" if len(parts) == 1 else "continues as two halves"
        self._listener.message(f"{reason}; {self._names(assignment)} {continues}")

    # Work

    def _assign_work(self) -> None:
        """Give every idle worker a population; start a new worker where there is work for it."""
        while not self._pool.stopping and self._pool.has_room:
            queued = self._queue.next()
            if queued is None:
                return
            assignment = self._sharing.claim(queued, self.summary.ended.keys())
            if assignment is None:
                continue
            self._assigned |= {run.key: run for run in assignment.runs}
            worker = self._pool.idle_worker()
            try:
                worker.assign(assignment)
            except OSError:
                # It ended while it was idle.
                self._pool.dismiss(worker)
                self._queue.requeue(assignment)
                continue
            self._listener.started(assignment)

    def _begin(self, runs: Iterable[Run], began: float) -> None:
        """Have those runs opened in the store that are not open yet: their time of training starts here."""
        for run in runs:
            if run.key not in self._open:
                self._open.add(run.key)
                self._writer.begin(run, self._queue.run_name(run), self._queue.run_tags(run), began)

    def _leave(self, key: str) -> None:
        """Have a run marked as interrupted."""
        self._open.discard(key)
        self._writer.interrupt(key)

    def _take_over_released_runs(self) -> None:
        """Find out what became of runs that other launchers had claimed; train those that are free again."""
        plan = None if self._pool.stopping else self._sharing.released(self._listener.message)
        if plan is None:
            return
        self.summary.complete |= plan.complete
        for key, failures in plan.given_up.items():
            self.summary.ended[key] = Outcome("failed", 0, reason=failures.reason)
        for assignment in reversed(plan.assignments):
            self._queue.requeue(assignment)
        self._queue.on_ended_elsewhere(plan.complete, plan.given_up.keys())

    def _leave_lost_runs(self) -> None:
        """Stop training the runs whose claims another launcher has taken over, and wait for what becomes of them."""
        lost = self._sharing.newly_lost()
        if not lost:
            return
        if other := sorted(lost - self._assigned.keys()):
            raise StoreError(f"another launcher has taken over {', '.join(other)}; nothing more is written here")
        self._sharing.lost(self._assigned[key] for key in lost)
        for key in lost:
            self.summary.ended.pop(key, None)
            self._open.discard(key)
        for worker in self._pool.busy:
            assignment = worker.busy_with
            if lost.isdisjoint(run.key for run in assignment.runs):
                continue
            rest = [run for run in assignment.runs if run.key not in lost | self.summary.ended.keys()]
            for run in rest:
                self._leave(run.key)
            self._pool.dismiss(worker)
            self._listener.ended(assignment, "interrupted")
            if rest:
                self._queue.requeue(part_of(assignment, tuple(rest)))
        names = ", ".join(sorted(self._queue.run_name(self._assigned[key]) for key in lost))
        self._listener.message(
            f"{names}: the claims are gone, because another launcher has taken over or somebody removed them; what was "
            "being trained here is not written"
        )

    # How runs end

    def _interrupt(self, assignment: Assignment) -> None:
        self.summary.interrupted = True
        left = [run.key for run in assignment.runs if run.key not in self.summary.ended]
        for key in left:
            self._leave(key)
        self._writer.then(lambda: self._sharing.claims.release(left))
        self._listener.ended(assignment, "interrupted")

    def _fail(self, assignment: Assignment, reason: str, line: str, attempts: int = 1) -> None:
        """Record the failure of all runs that have not ended; the user is told in one line."""
        for run in assignment.runs:
            if run.key not in self.summary.ended:
                self._begin([run], time.time())
                outcome = Outcome("failed", 0, reason=reason, attempts=attempts)
                self._writer.write(Record(run.key, 0, time.time(), {}, outcome))
                self._on_ended(run.key, outcome)
        self._listener.ended(assignment, "failed")
        self._listener.message(line)

    def _on_ended(self, key: str, outcome: Outcome) -> None:
        self.summary.ended[key] = outcome
        # A search that heard of a run before the store has it would not ask for it again, should this process die now.
        self._writer.then(lambda: self._after_writing(key, outcome))

    def _after_writing(self, key: str, outcome: Outcome) -> None:
        if key in self._sharing.claims.held:
            self._written_ends.put((key, outcome))
            self._sharing.claims.ended([key])

    def _report_written_ends(self) -> None:
        """Tell the work queue which runs have ended and been written."""
        while not self._written_ends.empty():
            self._queue.on_ended(*self._written_ends.get())

    def _remove_checkpoints(self, *paths: Path) -> None:
        """Remove the checkpoints whose runs have all ended well, here or before."""
        ended_well = {key for key, outcome in self.summary.ended.items() if outcome.status != "failed"}
        for path in paths:
            keys = set(checkpoint_keys(path))
            if keys and keys <= ended_well | self.summary.complete | self._queue.complete_keys:
                path.unlink(missing_ok=True)

    def _names(self, assignment: Assignment) -> str:
        return ", ".join(self._queue.run_name(run) for run in assignment.runs)
