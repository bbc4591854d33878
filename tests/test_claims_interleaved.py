"""The invariant of claims, under any order of events: pauses, crashes, clocks that are set, and one launcher acting in
the middle of what another one does.

Launchers cannot see whether the others live: each is in a container of its own. Time is simulated; their clocks show
different times and run at the same rate.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rnnstudy.store.owner import Owner
from rnnstudy.sweep import claims as module
from rnnstudy.sweep.claims import SECONDS_OF_LEASE, SECONDS_TO_WRITE, Claims

KEY = "a"
LAUNCHERS = 2

launchers = st.integers(0, LAUNCHERS - 1)
seconds = st.sampled_from(
    [1.0, 9.0, 11.0, SECONDS_TO_WRITE - 1, SECONDS_OF_LEASE - SECONDS_TO_WRITE + 1, 130.0, 3000.0]
)
actions = st.sampled_from(["take", "write", "take", "write", "heartbeat", "release", "ended"])


class Sharing(RuleBasedStateMachine):
    """Launchers that share a folder, and what an observer of everything knows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "SECONDS_FOR_LOCK", 0.0)
        self.patch.setattr(module, "write_all", self.writing(module.write_all))
        self.now, self.made = 0.0, 0
        self.meanwhile: list[tuple[int, Callable[[], None]]] = []
        self.launchers = [self.launcher() for _ in range(LAUNCHERS)]
        # Launcher and token of the claim on each run; the highest token so far; when each lease changed.
        self.claimed: tuple[str, int] | None = None
        self.highest = 0
        self.renewed: dict[str, tuple[str, float]] = {}
        # Who may write the run, and until when.
        self.confirmed: tuple[Claims | None, float] = None, 0.0

    def teardown(self) -> None:
        """A launcher that comes when all others have crashed gets everything."""
        try:
            late = self.launcher()
            for _ in range(int(SECONDS_OF_LEASE / 5) + 1):
                late.others([KEY])
                self.now += 5.0
            assert late.take([KEY]) == {KEY}
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    def launcher(self) -> Claims:
        self.made += 1
        offset, number = 1e4 * self.made, self.made
        owner = Owner("the.host", 1, 3.0, f"boot-{number} pid:[{number}] -")
        return Claims(self.folder, owner, lambda: self.now + offset, lambda: self.now - offset)

    def writing(self, write_all: Callable[..., object]) -> Callable[..., object]:
        """Another launcher acts just before a file is written."""

        def write(*arguments: object, **options: object) -> object:
            if self.meanwhile:
                after, act = self.meanwhile.pop()
                if after:
                    self.meanwhile.append((after - 1, act))
                else:
                    # In a thread, as another process would: the lock knows the thread that has it.
                    thread = threading.Thread(target=act)
                    thread.start()
                    thread.join()
            return write_all(*arguments, **options)

        return write

    def act(self, number: int, action: str) -> None:
        claims = self.launchers[number]
        try:
            match action:
                case "take":
                    claims.take([KEY])
                case "write":
                    self.write(claims)
                case "heartbeat":
                    claims.heartbeat()
                case "release" | "ended":
                    if self.confirmed[0] is claims:
                        self.confirmed = None, 0.0
                    claims.release([KEY]) if action == "release" else claims.ended([KEY])
        except TimeoutError:
            """Another launcher has the lock."""
        except AssertionError as error:
            # Raised in a thread, perhaps.
            self.failure = error

    failure: AssertionError | None = None

    def write(self, claims: Claims) -> None:
        """Confirm a claim; from then on, nobody else may be confirmed for as long as a write may take."""
        if claims.confirm(KEY):
            who, until = self.confirmed
            assert who in (claims, None) or until <= self.now, "two launchers may write one run"
            self.confirmed = claims, self.now + SECONDS_TO_WRITE

    # What happens

    @initialize(number=launchers)
    def one_has_the_claim(self, number: int) -> None:
        self.act(number, "take")

    @rule(number=launchers, action=actions)
    def one_acts(self, number: int, action: str) -> None:
        self.act(number, action)

    @rule(number=launchers, action=actions, meanwhile=actions, after=st.integers(0, 2))
    def one_acts_in_the_middle_of_another(self, number: int, action: str, meanwhile: str, after: int) -> None:
        self.meanwhile = [(after, lambda: self.act(1 - number, meanwhile))]
        self.act(number, action)
        self.meanwhile = []

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        number=launchers,
        lives=st.sampled_from([False, False, False, True]),
        least=st.sampled_from([0.8, 0.9, 1.0, 1.0]),
        meanwhile=actions,
        after=st.integers(0, 3),
    )
    def one_watches_and_takes(self, number: int, lives: bool, least: float, meanwhile: str, after: int) -> None:
        """It watches about as long as a lease, while the other one renews it or is paused, which acts again in the
        middle of the taking over."""
        self.launchers[number].others([KEY])
        for _ in range(int(least * SECONDS_OF_LEASE / 8)):
            self.now += 8.0
            if lives:
                self.act(1 - number, "heartbeat")
            self.note()
            self.launchers[number].others([KEY])
        self.one_acts_in_the_middle_of_another(number, "take", meanwhile, after)
        self.note()
        self.act(number, "write")

    @rule(number=launchers)
    def one_crashes(self, number: int) -> None:
        self.launchers[number] = self.launcher()

    @rule(moment=st.sampled_from([0.0, 1e9, 4e9]))
    def the_clock_is_set(self, moment: float) -> None:
        for path in self.folder.iterdir():
            os.utime(path, (moment, moment))

    # What holds

    @invariant()
    def note(self) -> None:
        if self.failure is not None:
            raise self.failure
        before, claim = self.claimed, self.claim()
        if before is not None and (claim is None or claim[0] != before[0]):
            owner = next((one for one in self.launchers if one._launcher == before[0]), None)
            # Its owner may have given it up, which needs the lock; anybody else has to wait for its lease to run out.
            silent = self.now - self.renewed[before[0]][1] >= SECONDS_OF_LEASE
            given_up = owner is not None and not owner.held and self.confirmed[0] is not owner
            assert silent or given_up, "taken over too early"
            assert claim is not None or given_up, "nobody but its owner removes a claim"
        if claim is not None and claim != before:
            assert claim[1] > self.highest, "tokens increase"
            self.highest = claim[1]
        self.claimed = claim
        for path in self.folder.glob("*.lease"):
            text = path.read_text()
            if self.renewed.get(path.stem, ("", 0.0))[0] != text:
                self.renewed[path.stem] = text, self.now

    def claim(self) -> tuple[str, int] | None:
        path = self.folder / f"{KEY}.json"
        if not path.exists():
            return None
        fields = json.loads(path.read_text())
        return fields["launcher"], fields["token"]


def machine(examples: int, steps: int) -> type[RuleBasedStateMachine.TestCase]:
    case = Sharing.TestCase
    chosen = type("Case", (case,), {})
    chosen.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return chosen


TestSharing = machine(30, 25)
TestSharingForLong = pytest.mark.slow(machine(1500, 60))


@contextmanager
def lock_held(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(str(folder / "take-over.lock")):
        yield


def test_who_cannot_have_the_lock_takes_nothing_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_FOR_LOCK", 0.0)
    claims = Claims(tmp_path)
    claims.take(["a"])
    got: list[set[str]] = []
    with lock_held(tmp_path):
        thread = threading.Thread(target=lambda: got.append(claims.take(["a", "b"])))
        thread.start()
        thread.join()
    assert got == [{"a"}]
    assert claims.confirm("a")
    assert claims.take(["b"]) == {"b"}
