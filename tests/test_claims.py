"""Claims: of several launchers exactly one trains a run, and none waits for a dead one."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rnnstudy.spec import RequestError
from rnnstudy.store.errors import StoreError
from rnnstudy.store.owner import Owner
from rnnstudy.sweep.claims import SECONDS_OF_LEASE, Claims

KEYS = [f"{number:012x}" for number in range(6)]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def watch(self, claims: Claims, seconds: float) -> None:
        """Let time pass while `claims` looks at all others every five seconds."""
        end = self.now + seconds
        while self.now < end:
            claims.others(KEYS)
            self.now = min(end, self.now + 5)
        claims.others(KEYS)


def elsewhere(number: int = 4711) -> Owner:
    return Owner("another.host", number, 1.0, "another-boot pid:[1] -")


def dead() -> Owner:
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as process:
        process.wait()
    return dataclasses.replace(Owner.this(), pid=process.pid)


def claim_of(folder: Path, number: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{KEYS[number]}.json").read_text())


def test_a_run_is_claimed_once(tmp_path: Path):
    first, second = Claims(tmp_path), Claims(tmp_path, elsewhere())
    assert first.take(KEYS[:3]) == set(KEYS[:3])
    assert first.take(KEYS[:3]) == set(KEYS[:3])
    assert second.take(KEYS) == set(KEYS[3:])
    assert first.others(KEYS) == dict.fromkeys(KEYS[3:], elsewhere())
    assert second.others(KEYS) == dict.fromkeys(KEYS[:3], Owner.this())
    advice = rf"wait for it, or end it first; if that machine is gone, delete {tmp_path}"
    with pytest.raises(RequestError, match=rf"is being trained by process 4711 on another\.host; {advice}"):
        first.require_free(KEYS)
    first.require_free(KEYS[:3])
    first.release([KEYS[0]])
    assert second.take(KEYS) == {KEYS[0], *KEYS[3:]}
    first.close()
    second.close()
    assert not list(tmp_path.glob("*.json"))


def test_a_claim_says_whose_it_is(tmp_path: Path):
    Claims(tmp_path).take(KEYS[:1])
    told, owner = claim_of(tmp_path), Owner.this()
    assert re.fullmatch("[0-9a-f]{16}", told.pop("launcher"))
    assert told == {
        **{"token": 1, "host": owner.host, "pid": os.getpid()},
        **{"started": owner.started, "space": owner.space},
    }


def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path):
    gone, reused = dead(), dataclasses.replace(Owner.this(), started=12.5)
    older = Owner(Owner.this().host, os.getpid(), 12.5)
    for number, owner in enumerate((gone, reused, older)):
        Claims(tmp_path, owner).take([KEYS[number]])
    fresh = Claims(tmp_path)
    assert fresh.others(KEYS) == {}
    assert fresh.take(KEYS[:3]) == set(KEYS[:3])
    assert Claims(tmp_path, elsewhere()).take(KEYS[:3]) == set()
    assert [claim_of(tmp_path, number)["token"] for number in range(3)] == [4, 5, 6]
    fresh.close()
    assert not list(tmp_path.glob("*.lease")), "those of the dead are removed with the last claim"


def test_a_launcher_elsewhere_holds_its_claims_as_long_as_it_renews_its_lease(tmp_path: Path):
    clock = Clock()
    other, here = (Claims(tmp_path, owner, clock, clock) for owner in (elsewhere(), elsewhere(1)))
    other.take(KEYS[:1])
    for _ in range(20):
        clock.watch(here, 60)
        other.heartbeat()
    assert here.take(KEYS[:1]) == set()
    clock.watch(here, SECONDS_OF_LEASE - 10)
    assert here.take(KEYS[:1]) == set()
    clock.watch(here, 11)
    assert here.take(KEYS[:1]) == set(KEYS[:1])


def test_a_clock_that_is_set_and_a_touched_file_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A living launcher of another container was taken for dead when the clock went five minutes forward."""
    clock = Clock()
    other, here = (Claims(tmp_path, owner, clock, clock) for owner in (elsewhere(), elsewhere(1)))
    other.take(KEYS[:1])
    clock.watch(here, 10)
    for path in tmp_path.glob("*.*"):
        os.utime(path, (1.0, 1.0))
    monkeypatch.setattr(time, "time", lambda: 2e9)
    clock.watch(here, SECONDS_OF_LEASE - 10)
    assert here.take(KEYS) == set(KEYS[1:])


def test_a_launcher_that_was_paused_does_not_count_the_pause(tmp_path: Path):
    """Both may have been paused together, in one virtual machine; the other one has had no time to renew its lease."""
    clock = Clock()
    other, here = (Claims(tmp_path, owner, clock, clock) for owner in (elsewhere(), elsewhere(1)))
    other.take(KEYS[:1])
    clock.watch(here, 10)
    clock.now += 10 * SECONDS_OF_LEASE
    assert here.take(KEYS[:1]) == set()


def test_containers_with_one_host_name_and_the_same_process_numbers_are_told_apart(tmp_path: Path):
    this = Owner.this()
    boot, _, machine = this.space.split()
    container = dataclasses.replace(this, pid=1, started=3.0, space=f"{boot} pid:[77] -")
    far_container = dataclasses.replace(container, space="another-boot pid:[77] -")
    for number, owner in enumerate((container, far_container)):
        Claims(tmp_path, owner).take([KEYS[number]])
    assert set(Claims(tmp_path).others(KEYS)) == set(KEYS[:2])
    assert (container.alive, far_container.alive) == (None, None)
    restarted = dataclasses.replace(this, space=this.space.replace(boot, "boot-before"))
    assert restarted.alive is (None if machine == "-" else False)


def test_the_owner_of_a_claim_survives_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch):
    """psutil's start time follows the clock; a launcher was taken for dead when the clock went two seconds back."""
    this = Owner.this()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() - 1e6)
    assert this.alive is True
    assert Owner.this() == this == Owner.tagged(this.tags())


def test_who_lost_a_claim_finds_out_and_leaves_it_alone(tmp_path: Path):
    clock = Clock()
    first, second = (Claims(tmp_path, owner, clock, clock) for owner in (elsewhere(), elsewhere(1)))
    first.take(KEYS[:4])
    assert first.confirm(KEYS[0])
    clock.watch(second, SECONDS_OF_LEASE)
    assert second.take(KEYS[:3]) == set(KEYS[:3])
    assert not first.confirm(KEYS[0])
    assert first.newly_lost() == {KEYS[0]}
    assert first.newly_lost() == set()
    first.ended([KEYS[1]])
    clock.now += 10
    first.heartbeat()
    assert first.newly_lost() == {KEYS[1], KEYS[2]}
    assert first.confirm(KEYS[3])
    first.close()
    assert [path.stem for path in sorted(tmp_path.glob("*.json"))] == KEYS[:3]
    assert all(second.confirm(key) for key in KEYS[:3])


def test_a_claim_that_somebody_deleted_is_lost(tmp_path: Path):
    claims = Claims(tmp_path)
    claims.take(KEYS[:1])
    (tmp_path / f"{KEYS[0]}.json").unlink()
    assert not claims.confirm(KEYS[0])
    assert claims.newly_lost() == {KEYS[0]}


def test_a_folder_that_cannot_be_reached_confirms_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    claims = Claims(tmp_path, elsewhere(), clock, clock)
    claims.take(KEYS[:1])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
        with pytest.raises(OSError, match="Stale"):
            claims.confirm(KEYS[0])
        clock.now += 20
        claims.heartbeat()
    assert claims.confirm(KEYS[0])
    assert claims.newly_lost() == set()


@pytest.mark.parametrize(
    "text",
    ["", '{"host": ', "[]", "3", '{"host": "a", "pid": "x", "started": 1}', '{"launcher": "../../x"}', "\x00" * 9],
)
def test_a_claim_that_cannot_be_read_counts_until_it_was_watched(text: str, tmp_path: Path):
    clock = Clock()
    (tmp_path / f"{KEYS[0]}.json").write_text(text)
    claims = Claims(tmp_path, elsewhere(), clock, clock)
    assert claims.take(KEYS[:1]) == set()
    clock.watch(claims, SECONDS_OF_LEASE)
    assert claims.take(KEYS[:1]) == set(KEYS[:1])


def test_a_claim_of_an_older_version_counts_as_long_as_it_is_touched(tmp_path: Path):
    clock, path = Clock(), tmp_path / f"{KEYS[0]}.json"
    path.write_text('{"host": "another.host", "pid": 4711, "started": 1.0}')
    claims = Claims(tmp_path, elsewhere(), clock, clock)
    for moment in range(10):
        os.utime(path, (moment, moment))
        clock.watch(claims, 60)
    assert claims.take(KEYS[:1]) == set()
    clock.watch(claims, SECONDS_OF_LEASE)
    assert claims.take(KEYS[:1]) == set(KEYS[:1])


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path: Path):
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(StoreError, match="claims cannot be written"):
        Claims(tmp_path / "claims").take(KEYS[:1])


def test_of_many_that_take_over_at_once_one_gets_each_run(tmp_path: Path):
    Claims(tmp_path, dead()).take(KEYS)
    claims = [Claims(tmp_path, elsewhere(number)) for number in range(8)]
    start, got = threading.Barrier(len(claims)), []

    def take(one: Claims) -> None:
        start.wait()
        got.extend(one.take(KEYS))

    threads = [threading.Thread(target=take, args=(one,)) for one in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == KEYS


def test_what_has_ended_is_told_once_to_those_who_planned_before(tmp_path: Path):
    first, second = Claims(tmp_path), Claims(tmp_path, elsewhere())
    first.take(KEYS)
    assert second.newly_ended() == set()
    first.ended(KEYS[:2])
    assert first.held == set(KEYS[2:])
    assert second.newly_ended() == set(KEYS[:2])
    assert second.newly_ended() == set()
    first.ended(KEYS[2:3])
    assert second.newly_ended() == set(KEYS[2:3])
    assert Claims(tmp_path).newly_ended() == set()
