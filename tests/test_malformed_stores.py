"""Damaged and foreign stores and checkpoints by the hundred: each is read, mended or refused in one line.

A few of each kind in the fast tests, 250 of each in the slow ones.
"""

import contextlib
import io
import pickle
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from rnnstudy import results
from rnnstudy.cells import Elman
from rnnstudy.cli.commands import main
from rnnstudy.probes import GradientThroughTime
from rnnstudy.run import Run, Training
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_store import Store, open_store
from rnnstudy.store.mlflow_tracker import MlflowTracker
from rnnstudy.store.offline import OfflineFolder
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.sweep.messages import Finished, Message, Notice
from rnnstudy.sweep.plan import make_plan
from rnnstudy.sweep.worker_process import train_messages
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population
from rnnstudy.training.records import Record
from tests.conftest import EXPERIMENT
from tests.test_malformed_inputs import MANY, changes_of_bytes, copied, many

SMALL = "experiments/small.py"
Spoil = Callable[[Path], None]
COUNTS = [5, pytest.param(MANY, marks=pytest.mark.slow)]


class Filled:
    """A project whose store holds two of its four runs, and the records of a third."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "experiments").mkdir(parents=True)
        (root / SMALL).write_text(EXPERIMENT)
        self.runs = load_experiment(root / SMALL).runs(Scale.SMOKE)
        self.records: list[Record] = []

    def fill(self, empty_database: Path) -> None:
        project = Project(self.root)
        project.mlruns.mkdir()
        shutil.copy(empty_database, project.database)
        for run in self.runs[:2]:
            write(project, run, list(train(run, device="cpu", engine="reference")))
        self.records = list(train(self.runs[2], device="cpu", engine="reference"))


def write(project: Project, run: Run, records: list[Record]) -> None:
    tracker = MlflowTracker(open_store(project), SweepInfo("small", SMALL, f"rnnstudy sweep {SMALL}"))
    tracker.begin(run, run.name)
    for record in records:
        tracker.write(record)
    tracker.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Filled:
    made = Filled(tmp_path_factory.mktemp("filled") / "project")
    made.fill(empty_database)
    return made


@pytest.fixture(autouse=True)
def no_store_is_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RNNSTUDY_HOME", "MLFLOW_TRACKING_URI", "RNNSTUDY_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    before = list(sys.path)
    yield
    sys.path[:] = before


# What is wrong

TABLES = ("alembic_version", "experiments", "experiment_tags", "runs", "tags", "params", "metrics", "latest_metrics",
          "inputs", "datasets")  # fmt: skip
PLAIN = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=5)
    | st.sampled_from(["", "\0", "\x1b[2J", "../x", "{", "[]", "3", "é" * 5000, "file:///etc", "RUNNING", "x\ny"])
    | st.text(max_size=5)
)


def changed(database: Path, statement: str, values: tuple[Any, ...] = ()) -> None:
    """Run a statement; one that sqlite refuses changes nothing."""
    with contextlib.closing(sqlite3.connect(database)) as connection, contextlib.suppress(sqlite3.DatabaseError):
        connection.execute("PRAGMA ignore_check_constraints = ON")
        with connection:
            connection.execute(statement, values)


@st.composite
def spoilt_bytes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A function that flips a few bits, or cuts, overwrites, repeats or replaces a part."""
    flips = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=200))
    change = draw(changes_of_bytes())
    if draw(st.booleans()):
        return change

    def flip(content: bytes) -> bytes:
        damaged = bytearray(content)
        for where, bit in flips:
            damaged[int(where * len(damaged))] ^= 1 << bit
        return bytes(damaged)

    return flip


@st.composite
def spoilt_databases(draw: st.DrawFn, tables: tuple[str, ...] = TABLES) -> Spoil:
    """A function that spoils a database: its bytes, its schema, or a value in one of its rows."""
    how, in_bytes = draw(st.sampled_from(("bytes", "schema", "value", "value"))), draw(spoilt_bytes())
    table, column, row = draw(st.sampled_from(tables)), draw(st.integers(0, 20)), draw(st.integers(0, 30))
    value, statement = (
        draw(PLAIN),
        draw(st.sampled_from(("DROP TABLE {0}", "DELETE FROM {0}", "ALTER TABLE {0} RENAME TO another",
                              "ALTER TABLE {0} RENAME COLUMN {1} TO another", "CREATE TABLE notes (text)",
                              "UPDATE alembic_version SET version_num = 'x'"))),
    )  # fmt: skip

    def spoil(database: Path) -> None:
        if how == "bytes":
            database.write_bytes(in_bytes(database.read_bytes()))
            return
        with contextlib.closing(sqlite3.connect(database)) as connection:
            columns = [name for (_, name, *_) in connection.execute(f"PRAGMA table_info({table})")]
        named = columns[column % len(columns)]
        if how == "schema":
            changed(database, statement.format(table, named))
        else:
            which = f"(SELECT rowid FROM {table} LIMIT 1 OFFSET ? % max(1, (SELECT count(*) FROM {table})))"
            changed(database, f"UPDATE {table} SET {named} = ? WHERE rowid = {which}", (value, row))

    return spoil


# What is done

COMMANDS = (
    ("list", SMALL, "--scale", "smoke"),
    ("list", SMALL, "--scale", "smoke", "--json"),
    ("sweep", SMALL, "--scale", "smoke", "--dry-run"),
    ("show", "KEY"),
    ("show", "KEY", "--json"),
    ("probe", "KEY", "ParameterGradients"),
    ("forget", "KEY"),
)


def answered(words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and what is on standard error; a traceback would be raised here."""
    errors, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rnnstudy", *words])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
    return code, errors.getvalue()


def one_line_each(lines: list[str]) -> None:
    for line in lines:
        assert line.startswith("rnnstudy: "), line
        assert line.isprintable(), line
        assert len(line) < 3000, line


def finished(project: Project) -> set[str]:
    """The complete runs whose readings can be read."""
    found = set()
    with contextlib.suppress(RnnstudyError):
        for key in Store(project).finished():
            with contextlib.suppress(RnnstudyError):
                found |= set(results.load([key], project=project).runs.index)
    return found


@pytest.mark.parametrize("count", COUNTS)
def test_commands_on_stores(filled: Filled, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    def check(example: tuple[Spoil, tuple[str, ...]]) -> None:
        spoil, words = example
        with copied(filled.root) as copy, monkeypatch.context() as patch:
            patch.chdir(copy)
            database = Project(copy).database
            spoil(database)
            before = database.read_bytes()
            code, told = answered(tuple(filled.runs[0].key if word == "KEY" else word for word in words))
            assert code in (0, 1, 2), words
            one_line_each(told.splitlines())
            if code == 2:
                assert told
            if code == 2 or words[0] != "forget":
                assert database.read_bytes() == before, words

    many(count, st.tuples(spoilt_databases(), st.sampled_from(COMMANDS)), check)


@pytest.mark.parametrize("count", COUNTS)
def test_writing_into_stores(filled: Filled, count: int) -> None:
    """A run comes whole into the store or counts as not complete; the others stay as they were."""
    new = filled.runs[2]

    def check(spoil: Spoil) -> None:
        with copied(filled.root) as copy:
            project = Project(copy)
            spoil(project.database)
            before, told = finished(project), ""
            try:
                write(project, new, filled.records)
            except RnnstudyError as error:
                told = str(error)
            one_line_each([f"rnnstudy: {told}"])
            after = finished(project)
            assert after - {new.key} == before
            if not told:
                assert new.key in after

    many(count, spoilt_databases(), check)


# Checkpoints


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


TENSORS = st.builds(
    lambda shape, kind: torch.zeros(shape, dtype=kind),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64]),
)
CONTENTS = st.recursive(
    PLAIN | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def spoilt_checkpoints(draw: st.DrawFn) -> tuple[str, Callable[[bytes], bytes]]:
    """How a checkpoint is spoilt, and the function that does it: its bytes, its format, or what a sound file holds."""
    how = draw(st.sampled_from(("bytes", "foreign", "content", "content")))
    if how == "bytes":
        return how, draw(spoilt_bytes())
    value, turns, removed = (
        draw(CONTENTS),
        draw(st.lists(st.integers(0, 30), min_size=5, max_size=5)),
        draw(st.booleans()),
    )
    depth = draw(st.integers(1, 5))
    if how == "foreign":
        others = [_saved(value), pickle.dumps(value), pickle.dumps(Trap()), _saved(Trap()), b""]
        other = draw(st.sampled_from(others))
        return how, lambda _: other

    def change(content: bytes) -> bytes:
        state = torch.load(io.BytesIO(content), weights_only=True)
        inside = state
        for number, turn in enumerate(turns):
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            key = keys[turn % len(keys)]
            deeper = isinstance(inside[key], dict | list) and len(inside[key])
            if number + 1 < depth and deeper:
                inside = inside[key]
                continue
            if removed:
                del inside[key]
            else:
                inside[key] = value
            break
        return _saved(state)

    return how, change


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Population, bytes]:
    """Two runs that were stopped after four of six updates, and their checkpoint."""
    training = Training(steps=6, batch=2, check_every=3, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=3, sequences=2),)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=probes)
    runs = Population((base, base.replace(seed=1)))
    calls, path = iter(range(100)), tmp_path_factory.mktemp("interrupted") / "checkpoint.pt"
    list(train(runs, device="cpu", engine="reference", checkpoint=path, stop=lambda: next(calls) >= 4))
    return runs, path.read_bytes()


def weights(messages: list[Message]) -> dict[str, dict[str, bytes]]:
    """Of each run that ended, the bits of its weights."""
    ended = [one for one in messages if isinstance(one, Record) and one.weights is not None]
    return {one.key: {name: value.tobytes() for name, value in one.weights.items()} for one in ended}


@pytest.mark.parametrize("count", COUNTS)
def test_checkpoints(
    interrupted: tuple[Population, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Runs go on from a checkpoint, or begin anew without it, with the bits that they have without interruption."""
    runs, content = interrupted
    monkeypatch.chdir(tmp_path)
    expected = weights(list(train(runs, device="cpu", engine="reference")))

    def check(example: tuple[str, Callable[[bytes], bytes]]) -> None:
        how, spoil = example
        folder = tmp_path / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / f"{runs.key}.pt"
        path.write_bytes(spoil(content))
        messages = []
        for assignment in make_plan(runs.runs, OfflineFolder(tmp_path / "empty"), folder, 1).assignments:
            files = (assignment.checkpoint, assignment.resume)
            unheard = (lambda: False, lambda _: None, lambda _: ())
            messages += train_messages(assignment.runs, "cpu", "reference", *unheard, *files)
            assert isinstance(messages[-1], Finished), messages[-1]
        notices = [one.line for one in messages if isinstance(one, Notice)]
        one_line_each([f"rnnstudy: {line}" for line in notices])
        if notices or how != "content":
            assert weights(messages) == expected
        assert not Path("trapped").exists()

    many(count, spoilt_checkpoints(), check)
