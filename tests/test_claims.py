"""Claims: of several launchers exactly one trains a run, and none waits for a dead one."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rnnstudy.spec import RequestError
from rnnstudy.store.owner import Owner
from rnnstudy.sweep.claims import SECONDS_TO_WRITE, SECONDS_WITHOUT_HEARTBEAT, Claims

KEYS = [f"{number:012x}" for number in range(6)]


def elsewhere() -> Owner:
    return Owner("another.host", 4711, 1.0)


def dead() -> Owner:
    with subprocess.Popen([sys.executable, "-S", "-c", "pass"]) as process:
        process.wait()
    return Owner(Owner.this().host, process.pid, time.time())


def test_a_run_is_claimed_once(tmp_path: Path):
    first, second = Claims(tmp_path), Claims(tmp_path, elsewhere())
    assert first.take(KEYS[:3]) == set(KEYS[:3])
    assert first.take(KEYS[:3]) == set(KEYS[:3])
    assert second.take(KEYS) == set(KEYS[3:])
    assert first.others(KEYS) == dict.fromkeys(KEYS[3:], elsewhere())
    assert second.others(KEYS) == dict.fromkeys(KEYS[:3], Owner.this())
    with pytest.raises(RequestError, match=r"is being trained by process 4711 on another\.host; wait for it"):
        first.require_free(KEYS)
    first.require_free(KEYS[:3])
    first.release([KEYS[0]])
    assert second.take(KEYS) == {KEYS[0], *KEYS[3:]}
    first.close()
    second.close()
    assert not list(tmp_path.glob("*.json"))


def test_a_claim_says_whose_it_is(tmp_path: Path):
    Claims(tmp_path).take(KEYS[:1])
    told = json.loads((tmp_path / f"{KEYS[0]}.json").read_text())
    assert told == {"host": Owner.this().host, "pid": os.getpid(), "started": Owner.this().started}


def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path):
    gone, reused = dead(), Owner(Owner.this().host, os.getpid(), 12.5)
    Claims(tmp_path, gone).take(KEYS[:1])
    Claims(tmp_path, reused).take(KEYS[1:2])
    fresh = Claims(tmp_path)
    assert fresh.others(KEYS) == {}
    assert fresh.take(KEYS[:2]) == set(KEYS[:2])
    assert Claims(tmp_path, elsewhere()).take(KEYS[:2]) == set()


def test_a_claim_of_another_host_counts_as_long_as_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other, here = Claims(tmp_path, elsewhere()), Claims(tmp_path)
    other.take(KEYS[:1])
    old = time.time() - SECONDS_WITHOUT_HEARTBEAT - 1
    assert here.take(KEYS[:1]) == set()
    os.utime(tmp_path / f"{KEYS[0]}.json", (old, old))
    monkeypatch.setattr("rnnstudy.sweep.claims.SECONDS_BETWEEN_HEARTBEATS", 0.0)
    other.heartbeat()
    assert here.take(KEYS[:1]) == set()
    os.utime(tmp_path / f"{KEYS[0]}.json", (old, old))
    assert here.take(KEYS[:1]) == set(KEYS[:1])


def test_a_claim_cut_in_half_counts_for_a_moment(tmp_path: Path):
    path = tmp_path / f"{KEYS[0]}.json"
    path.write_text('{"host": ')
    claims = Claims(tmp_path)
    assert claims.take(KEYS[:1]) == set()
    old = time.time() - SECONDS_TO_WRITE - 1
    os.utime(path, (old, old))
    assert claims.take(KEYS[:1]) == set(KEYS[:1])


def test_of_many_that_take_over_at_once_one_gets_each_run(tmp_path: Path):
    Claims(tmp_path, dead()).take(KEYS)
    claims = [Claims(tmp_path, Owner("another.host", number, 1.0)) for number in range(8)]
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
