"""Several launchers, one sweep: each trains what the others have not claimed."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence

from rnnstudy.run import Run
from rnnstudy.store.errors import StoreUnavailable
from rnnstudy.store.stored_run import RunIndex
from rnnstudy.sweep.claims import Claims
from rnnstudy.sweep.messages import Assignment, part_of
from rnnstudy.sweep.plan import Plan

SECONDS_BETWEEN_CHECKS = 1.0
"""How often a launcher checks the runs that others have claimed."""


class Sharing:
    """Which runs of a sweep this launcher trains, and what has become of those that others train.

    Args:
        claims: of this launcher, in a folder that all launchers see.
        index: of the store; what a dead launcher left running is marked as interrupted there.
        replan: plans the training of runs that another launcher had claimed and has released.
    """

    def __init__(self, claims: Claims, index: RunIndex, replan: Callable[[Sequence[Run]], Plan]) -> None:
        self.claims, self._index, self._replan = claims, index, replan
        self._elsewhere: dict[str, Run] = {}
        self._ended_elsewhere: set[str] = set()
        self._last_check = 0.0

    @property
    def waiting(self) -> bool:
        """True while another launcher has runs of this sweep."""
        return bool(self._elsewhere)

    def claim(self, assignment: Assignment, ended: Collection[str]) -> Assignment | None:
        """The part of a population that this launcher may train: not what another launcher trains or has just ended.

        `ended`: keys of the runs that this launcher itself has brought to an end. None when nothing is left.
        """
        own = self.claims.take(run.key for run in assignment.runs)
        # Read after the claim: a launcher that ended a run before has logged it by now.
        self._ended_elsewhere |= self.claims.newly_ended() - set(ended)
        self.claims.release(own & self._ended_elsewhere)
        own -= self._ended_elsewhere
        self._elsewhere |= {run.key: run for run in assignment.runs if run.key not in own}
        if len(own) == len(assignment.runs):
            return assignment
        runs = tuple(run for run in assignment.runs if run.key in own)
        return part_of(assignment, runs) if runs else None

    def newly_lost(self) -> set[str]:
        """The keys of the claims that this launcher has lost since the last call: it no longer writes those runs."""
        return self.claims.newly_lost()

    def lost(self, runs: Iterable[Run]) -> None:
        """Another launcher has taken these runs over: wait for what becomes of them."""
        self._elsewhere |= {run.key: run for run in runs}

    def released(self, message: Callable[[str], None]) -> Plan | None:
        """A plan for the runs that other launchers had claimed and have released or ended; None when there are none.

        Checked once a second. `message` is told, once, who else trains runs of this sweep.
        """
        if not self._elsewhere or time.monotonic() - self._last_check < SECONDS_BETWEEN_CHECKS:
            return None
        first, self._last_check = self._last_check == 0.0, time.monotonic()
        others = self.claims.others(self._elsewhere)
        if first and others:
            owners = ", ".join(sorted({str(owner) for owner in others.values()}))
            message(f"{len(others)} runs are being trained by {owners}; this sweep ends when they have ended")
        free = [run for key, run in self._elsewhere.items() if key not in others]
        if not free:
            return None
        try:
            self._index.mark_interrupted()
            plan = self._replan(free)
        except StoreUnavailable:
            return None
        for run in free:
            del self._elsewhere[run.key]
        self._ended_elsewhere -= {run.key for run in free}
        return plan
