"""An interrupted run ends as an uninterrupted one; and no record comes before the checkpoint that holds it."""

import dataclasses
import functools
import io
import itertools
import os
import pickle
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.initialisation import Gaussian, Orthogonal
from rnnstudy.optimisers import SGD, Adam, ClipNorm, RMSprop
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.checkpoint import (
    FORMAT,
    CheckpointError,
    can_resume,
    checkpoint_keys,
    load_checkpoint,
    save_checkpoint,
)
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

CPU = torch.device("cpu")
PROBES = (ParameterGradients(), GradientThroughTime(every=4, sequences=5))


def population(cell, optimiser, steps=72, rates=(1e-3, 1e-2, 0.05)):
    """Runs that cross the boundary of a block of data (64 steps), with checks every ten steps."""
    training = Training(
        steps=steps, batch=2, check_every=10, optimiser=optimiser, validation_sequences=10, test_sequences=10,
        other_lengths=(11,),
    )  # fmt: skip
    return Population(
        tuple(
            Run(
                task=TemporalOrder(length=10), cell=cell, seed=seed, data_seed=seed // 2, probes=PROBES,
                training=training.replace(learning_rate=rate, clip=ClipNorm(threshold=1 + seed)),
            )
            for seed, rate in enumerate(rates)
        )
    )  # fmt: skip


@functools.cache
def with_other_fates():
    """One run trains on, one guesses its single validation sequence twice and stops, one explodes."""
    training = Training(
        steps=40, batch=3, check_every=5, optimiser=SGD(), clip=None, validation_sequences=1, test_sequences=10
    )
    base = Run(task=TemporalOrder(length=12), cell=Elman(width=4, activation="relu"), training=training, probes=PROBES)
    calm = Population(tuple(base.replace(seed=s, training=training.replace(learning_rate=1e-9)) for s in range(8)))
    ended = last_of(train(calm, device="cpu"))
    solved = [run for run in calm.runs if ended[run.key].outcome.steps_to_solve == 5]
    trains_on = [run for run in calm.runs if run not in solved]
    explodes = base.replace(initialisation=Orthogonal(), seed=1, training=training.replace(learning_rate=1e9))
    return Population((trains_on[0], solved[0], explodes))


def last_of(records):
    return {record.key: record for record in records if record.outcome is not None}


@functools.cache
def uninterrupted(runs):
    return last_of(train(runs, device="cpu"))


def stop_after(updates):
    """A stop function that allows this many updates."""
    calls = itertools.count()
    return lambda: next(calls) >= updates


def interrupted(runs, path, pieces):
    """Train in pieces of these numbers of updates, as if each were a new process; all records in order."""
    records = []
    for updates in [*pieces, 10**9]:
        records += train(runs, device="cpu", checkpoint=path, checkpoint_seconds=0.0, stop=stop_after(updates))
    return records


def assert_same(one, other):
    """Equal in everything but wall time."""
    assert one.keys() == other.keys()
    for key, record in one.items():
        twin = other[key]
        assert dataclasses.replace(record.outcome, seconds=0) == dataclasses.replace(twin.outcome, seconds=0)
        assert record.weights.keys() == twin.weights.keys()
        for name, value in record.weights.items():
            assert np.array_equal(value, twin.weights[name], equal_nan=True), name
        assert_same_series(record.series, twin.series)


def assert_same_series(one, other):
    assert one.keys() == other.keys()
    for name, series in one.items():
        twin = other[name]
        assert np.array_equal(series.steps, twin.steps), name
        assert np.array_equal(series.values, twin.values, equal_nan=True), name
        assert (series.axes, series.unit, series.spacing) == (twin.axes, twin.unit, twin.spacing)
        assert series.coordinates == twin.coordinates


@pytest.mark.parametrize("pieces", [[0, 10, 57], [13, 13, 13, 30]], ids=str)
@pytest.mark.parametrize(
    ("cell", "optimiser"),
    [(Elman(width=4), Adam()), (LSTM(width=4), RMSprop()), (Elman(width=4, activation="relu"), SGD(momentum=0.9))],
    ids=repr,
)
def test_an_interrupted_run_equals_one_never_interrupted(cell, optimiser, pieces, tmp_path):
    runs = population(cell, optimiser)
    assert_same(last_of(interrupted(runs, tmp_path / "checkpoint", pieces)), uninterrupted(runs))


@pytest.mark.parametrize("pieces", [[3], [12], [4, 4, 4, 4, 4]], ids=str)
def test_whatever_has_become_of_each_run(pieces, tmp_path):
    runs = with_other_fates()
    whole = uninterrupted(runs)
    outcomes = [whole[key].outcome for key in runs.keys]
    assert [outcome.status for outcome in outcomes] == ["finished", "finished", "diverged"]
    assert [outcome.step for outcome in outcomes[:2]] == [40, 10]
    assert 1 <= outcomes[2].step < 40
    assert_same(last_of(interrupted(runs, tmp_path / "checkpoint", pieces)), whole)


def test_the_records_of_an_interrupted_run_add_up_without_gap(tmp_path):
    """Records are identified by key, step and time: those of the last checkpoint may come a second time."""
    runs = population(Elman(width=4), Adam())
    records = interrupted(runs, tmp_path / "checkpoint", [25, 30])
    once = {(record.key, record.step, record.time): record for record in records if record.outcome is None}
    for key, last in last_of(records).items():
        between = [record for record in once.values() if record.key == key]
        for name, series in last.series.items():
            parts = [record.series[name] for record in between if name in record.series]
            assert np.array_equal(np.concatenate([part.steps for part in parts]), series.steps), name
            assert np.array_equal(np.concatenate([part.values for part in parts]), series.values, equal_nan=True), name


def test_a_finished_checkpoint_gives_the_last_records_again(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=20), tmp_path / "checkpoint"
    first = list(train(runs, device="cpu", checkpoint=path))
    again = list(train(runs, device="cpu", checkpoint=path))
    assert_same(last_of(first), last_of(again))
    assert {r.key: r.outcome.seconds for r in first if r.outcome} == {
        r.key: r.outcome.seconds for r in again if r.outcome
    }
    assert {r.key: r.time for r in first if r.outcome} == {r.key: r.time for r in again if r.outcome}


@pytest.mark.parametrize("handled", [0, 1, 2, 4])
def test_lost_records_are_sent_again_unchanged(handled, tmp_path):
    """The process dies after a checkpoint and before all of its records were handled: key, step, time, values equal."""
    runs, path = population(LSTM(width=4), Adam(), steps=30), tmp_path / "checkpoint"
    sending = train(runs, device="cpu", checkpoint=path, checkpoint_seconds=0.0)
    for _ in range(handled):
        next(sending)
    lost = next(sending)  # its checkpoint is on disk, but nobody handled it
    sending.close()
    time.sleep(0.01)
    again = [
        record
        for record in train(runs, device="cpu", checkpoint=path, checkpoint_seconds=0.0)
        if (record.key, record.step) == (lost.key, lost.step) and record.outcome is None
    ]
    [twin] = again if lost.step < 30 else again[:1]
    assert twin.time == lost.time
    assert_same_series(twin.series, lost.series)


def test_a_record_comes_only_after_the_checkpoint_that_contains_it(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=30), tmp_path / "checkpoint"
    count = 0
    for record in train(runs, device="cpu", checkpoint=path, checkpoint_seconds=0.0):
        held = Learner.resume(runs, CPU, path)
        stored = held.history.series(runs.keys.index(record.key), None)
        for name, series in record.series.items():
            assert set(series.steps.tolist()) <= set(stored[name].steps.tolist())
        assert held.step >= record.step
        assert record.time in held.history.times
        count += 1
    assert count == 3 * 3 + 3 + 3, "three checks, the final readings, and the last records, for each of three runs"


def test_the_names_in_a_checkpoint_and_those_that_older_versions_did_not_write(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=10), tmp_path / "checkpoint"
    list(train(runs, device="cpu", engine="reference", checkpoint=path))
    state = torch.load(path, weights_only=True)
    assert state.keys() == {
        "format", "keys", "structure", "step", "engine", "complete", "handed_on", "seconds", "seconds_each", "began",
        "replicas", "optimiser", "history",
    }  # fmt: skip
    assert state["replicas"].keys() == {
        "parameters", "active", "diverged_at", "ended_at", "passes", "solved_at", "pruned_at", "error", "summary",
    }  # fmt: skip
    del state["replicas"]["pruned_at"], state["replicas"]["error"], state["engine"], state["began"]
    torch.save(state, path)
    assert_same(
        last_of(train(runs, device="cpu", checkpoint=path)), last_of(train(runs, device="cpu", engine="reference"))
    )


def test_checkpoints_are_written_no_more_often_than_asked(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=30), tmp_path / "checkpoint"
    records = list(train(runs, device="cpu", checkpoint=path, checkpoint_seconds=3600))
    assert [record.outcome is None for record in records] == [True] * 12 + [False] * 3
    first = next(train(population(Elman(width=4), Adam(), steps=31), device="cpu", checkpoint=tmp_path / "b"))
    assert Learner.resume(population(Elman(width=4), Adam(), steps=31), CPU, tmp_path / "b").complete, first


@pytest.mark.parametrize("optimiser", [Adam(), SGD(momentum=0.9)], ids=repr)
def test_a_checkpoint_can_be_cut_to_some_of_its_runs(optimiser, tmp_path):
    """The cut holds exactly the part of these runs, in the requested order, and trains on as they do in the whole."""
    runs, path = population(LSTM(width=4), optimiser, steps=40), tmp_path / "checkpoint"
    list(train(runs, device="cpu", checkpoint=path, stop=stop_after(33)))
    part = Population((runs.runs[2], runs.runs[0]))
    whole, cut = Learner.resume(runs, CPU, path), Learner.resume(part, CPU, path)
    assert cut.step == 33
    for replica, source in enumerate((2, 0)):
        for name, value in whole.parameters.items():
            assert torch.equal(cut.parameters[name][replica], value[source])
        assert_same_series(cut.history.series(replica, None), whole.history.series(source, None))
        for name, values in whole.summary.items():
            assert torch.equal(cut.summary[name][replica : replica + 1], values[source : source + 1])
    before = path.read_bytes()
    ended = last_of(train(part, device="cpu", resume=path))
    assert path.read_bytes() == before, "what is resumed from elsewhere is left as it is"
    uncut = last_of(train(runs, device="cpu"))
    assert set(ended) == set(part.keys)
    for key, record in ended.items():
        assert record.outcome.step == 40
        for name, value in record.weights.items():
            np.testing.assert_allclose(value, uncut[key].weights[name], rtol=1e-4, atol=1e-5)


def test_the_same_runs_in_another_order_are_cut_rightly(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=30), tmp_path / "checkpoint"
    list(train(runs, device="cpu", checkpoint=path, stop=stop_after(12)))
    turned = Population(runs.runs[::-1])
    ended, whole = last_of(train(turned, device="cpu", checkpoint=path)), last_of(train(runs, device="cpu"))
    for key, record in ended.items():
        for name, value in record.weights.items():
            np.testing.assert_allclose(value, whole[key].weights[name], rtol=1e-4, atol=1e-5)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_a_file_is_read_without_running_code_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "checkpoint"
    torch.save({"format": FORMAT, "keys": Trap()}, path)
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        load_checkpoint(path, ["a"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a readable checkpoint"),
        (b"not a checkpoint", "is not a readable checkpoint"),
        (pickle.dumps({"keys": ["a"]}), "is not a readable checkpoint"),
        ({"keys": ["a"]}, "is not a readable checkpoint"),
        ({"format": 99, "keys": ["a"]}, "has checkpoint format 99, this version reads 2"),
        ({"format": 2, "keys": ["b"], "replicas": {}, "optimiser": {}}, "holds no run a"),
    ],
    ids=["empty", "text", "pickle", "no format", "another format", "other runs"],
)
def test_a_damaged_or_foreign_file_is_reported_in_one_line(content, words, tmp_path):
    path = tmp_path / "checkpoint"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path, ["a"])
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_reported(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=10), tmp_path / "checkpoint"
    list(train(runs, device="cpu", checkpoint=path))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        next(train(runs, device="cpu", checkpoint=path))
    assert checkpoint_keys(path) == ()


def test_a_checkpoint_of_other_runs_is_refused(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=10), tmp_path / "checkpoint"
    list(train(runs, device="cpu", checkpoint=path))
    stranger = runs.runs[0].replace(seed=99, initialisation=Gaussian(std=1))
    with pytest.raises(CheckpointError, match=f"holds no run {stranger.key}"):
        next(train(stranger, device="cpu", checkpoint=path))
    assert checkpoint_keys(path) == runs.keys


def test_a_checkpoint_continues_only_the_same_readings(tmp_path):
    runs, path = population(Elman(width=4), Adam(), steps=10), tmp_path / "checkpoint"
    list(train(runs, device="cpu", checkpoint=path))
    assert can_resume(path, runs.runs[1])
    assert not can_resume(path, runs.runs[1].replace(probes=()))
    assert not can_resume(tmp_path / "nothing", runs.runs[1])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "checkpoint"
    save_checkpoint(path, {"keys": ["a"], "replicas": {}, "optimiser": {}})
    old = path.read_bytes()

    def half_written(_, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"keys": ["b"]})
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["checkpoint"]


@functools.cache
def saved():
    """The bytes of a checkpoint, and of what it holds."""
    runs = population(Elman(width=3), Adam(), steps=10, rates=(1e-3, 1e-2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        list(train(runs, device="cpu", engine="reference", checkpoint=path))
        return runs, path.read_bytes(), content_of(path, runs)


def content_of(path, runs):
    """Everything that a checkpoint says, comparable: tensors as their bytes."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return value.dtype, tuple(value.shape), value.numpy().tobytes()
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else repr(value)

    return plain(load_checkpoint(path, runs.keys))


@contextmanager
def suppress_refusals(path):
    """Nothing is raised in the block but a `CheckpointError` of one line."""
    refusal = CheckpointError("")
    try:
        yield
    except CheckpointError as error:
        refusal = error
    assert "\n" not in str(refusal)
    assert refusal.unusable in (path, None)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=3))
def test_a_checkpoint_with_flipped_bits_is_refused_or_reads_the_same(flips, tmp_path):
    """torch itself reads most of them, with other numbers. Some bits, such as padding, mean nothing."""
    runs, content, good = saved()
    damaged, path = bytearray(content), tmp_path / "checkpoint"
    for where, bit in flips:
        damaged[int(where * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    checkpoint_keys(path)
    with suppress_refusals(path):
        assert content_of(path, runs) == good


def test_a_flipped_bit_in_a_weight_is_named(tmp_path):
    runs, content, _ = saved()
    path = tmp_path / "checkpoint"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        numbers = [part for part in archive.infolist() if "/data/" in part.filename]
    longest = max(numbers, key=lambda part: part.file_size)
    damaged = bytearray(content)
    # Beyond the part's own header and padding, which fill less than 192 bytes.
    assert longest.file_size > 192
    damaged[longest.header_offset + 192] ^= 1
    path.write_bytes(damaged)
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=r"is not a readable checkpoint \(Bad CRC-32 for file '.*'\)"):
        next(train(runs, device="cpu", checkpoint=path))
    # What is planned needs no numbers.
    assert checkpoint_keys(path) == runs.keys


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def refused_or_resumed(choice, other, removed, path):
    """Resume from a sound file that something else wrote: one entry, at any depth, is missing or is `other`."""
    runs, content, _ = saved()
    state = torch.load(io.BytesIO(content), weights_only=True)
    place, names = state, []
    while isinstance(place, dict) and place and not (names and choice.random() < 0.3):
        names.append(choice.choice(list(place)))
        outer, place = place, place[names[-1]]
    if removed:
        del outer[names[-1]]
    else:
        outer[names[-1]] = other
    torch.save(state, path)
    checkpoint_keys(path)
    can_resume(path, runs.runs[0])
    with suppress_refusals(path):
        Learner.resume(runs, CPU, path)


def other_content(examples):
    """A test of so many files with other content."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(choice=st.randoms(use_true_random=False), other=PLAIN, removed=st.booleans())
    def check(choice, other, removed, tmp_path):
        refused_or_resumed(choice, other, removed, tmp_path / "checkpoint")

    return check


test_a_checkpoint_with_other_content_is_refused_in_one_line = other_content(12)
test_many_checkpoints_with_other_content = pytest.mark.slow(other_content(300))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    runs, content, _ = saved()
    state, path = torch.load(io.BytesIO(content), weights_only=True), tmp_path / "checkpoint"
    state["replicas"]["parameters"]["W_hh"] = torch.zeros(2, 4, 4)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"is not a complete checkpoint .*its weights have other shapes"):
        next(train(runs, device="cpu", checkpoint=path))
