"""Malformed inputs by the hundred: each is read or refused in one line, without a traceback.

A few of each kind in the fast tests, 250 of each in the slow ones.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnnstudy.cells import Elman
from rnnstudy.cli.commands import main
from rnnstudy.probes import GradientThroughTime
from rnnstudy.results import from_records, load
from rnnstudy.results.archive import ExportedExperiment, ReadingRequest, write_archive
from rnnstudy.run import Run, Training
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.offline import OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.sync import OfflineRun, sync
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train

FEW, MANY = 12, 250


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`offline/<key>`, `archive`, and a project in `project`."""
    folder = tmp_path_factory.mktemp("samples")
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=2, sequences=3),)
    run = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=probes)
    tracker = OfflineTracker(OfflineFolder(folder / "offline"), SweepInfo("toy"))
    tracker.begin(run, "toy")
    records = list(train(run, device="cpu", engine="reference"))
    for record in records:
        tracker.write(record)
    results = from_records(records, [run])
    asked = [ReadingRequest("toy", name, None, (run.key,)) for name in results.names]
    write_archive(folder / "archive", {"toy": ExportedExperiment("rnnstudy sweep", results)}, asked)
    (folder / "project" / "mlruns").mkdir(parents=True)
    (folder / "project" / "experiments").mkdir()
    (folder / "project" / "experiments" / "toy.py").write_text(EXPERIMENT.format(fields=""))
    return folder


# What is wrong

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 2**63, 0.5, 1e308, "", "\0", "\x1b[2J", "../x", "<script>", "é" * 300, "NaN"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def changes_of_json(draw: st.DrawFn) -> Callable[[Any], Any]:
    """A function that replaces, removes or adds one value somewhere in a JSON document."""
    turns, how, value = (
        draw(st.lists(st.integers(0, 30), min_size=0, max_size=4)),
        draw(st.integers(0, 2)),
        draw(VALUES),
    )

    def change(document: Any) -> Any:
        if not turns:
            return value
        inside = document
        for number, turn in enumerate(turns):
            if not isinstance(inside, dict | list) or not inside:
                break
            keys: Any = list(inside) if isinstance(inside, dict) else range(len(inside))
            key = keys[turn % len(keys)]
            if number + 1 == len(turns) or not isinstance(inside[key], dict | list):
                if how == 0:
                    inside[key] = value
                elif how == 1:
                    del inside[key]
                elif isinstance(inside, dict):
                    inside[str(value)[:9]] = value
                break
            inside = inside[key]
        return document

    return change


@st.composite
def changes_of_bytes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A function that cuts, overwrites, repeats or replaces a part of a file."""
    where, length = draw(st.floats(0, 1)), draw(st.integers(0, 40))
    how, other = draw(st.integers(0, 3)), draw(st.binary(max_size=20))

    def change(content: bytes) -> bytes:
        begin = int(where * len(content))
        end = begin + length
        return (content[:begin], content[:begin] + other + content[end:], content[:end] + content[begin:], other)[how]

    return change


Spoil = Callable[[Path], None]


@st.composite
def spoilers(draw: st.DrawFn, names: tuple[str, ...]) -> Spoil:
    """A function that spoils one file of a folder."""
    name, in_bytes, in_json = draw(st.sampled_from(names)), draw(changes_of_bytes()), draw(changes_of_json())
    how = draw(st.integers(0, 4))

    def spoil(folder: Path) -> None:
        path = folder / name
        if how == 0:
            path.write_bytes(in_bytes(path.read_bytes()))
        elif how == 1:
            shutil.move(path, folder.parent / "elsewhere")
            path.symlink_to(folder.parent / "elsewhere")
        elif name.endswith(".npz"):
            with zipfile.ZipFile(path) as archive:
                members = {member: archive.read(member) for member in archive.namelist()}
            chosen = next(iter(members)) if how < 4 else list(members)[-1]
            as_json = chosen.endswith(".json") and how == 2
            content = members[chosen]
            members[chosen] = json.dumps(in_json(json.loads(content))).encode() if as_json else in_bytes(content)
            with zipfile.ZipFile(path, "w") as archive:
                for member, content in members.items():
                    archive.writestr(member, content)
        elif name.endswith(".parquet"):
            _spoil_table(path, in_json, header=how == 2)
        elif name.endswith(".jsonl"):
            lines = path.read_text().splitlines()
            path.write_text("".join(f"{json.dumps(in_json(json.loads(line)))}\n" for line in lines))
        else:
            path.write_text(json.dumps(in_json(json.loads(path.read_text()))))

    return spoil


def _spoil_table(path: Path, change: Callable[[Any], Any], *, header: bool) -> None:
    """Change a row, or the JSON text in it; a value that its column cannot hold leaves the table as it is."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    text = "header" if "header" in rows[0] else "coordinates"
    if header:
        rows[0][text] = json.dumps(change(json.loads(rows[0][text])))
    else:
        rows[0] = change(rows[0])
    with contextlib.suppress(pa.ArrowException, TypeError, AttributeError, ValueError, OverflowError):
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@contextlib.contextmanager
def copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(shutil.copytree(folder, Path(temporary) / "copy" / folder.name))


def refused_or_read(read: Callable[[], Any]) -> None:
    """Anything but a one-line error or a result is a traceback for the user."""
    message = ""
    try:
        read()
    except RnnstudyError as error:
        message = str(error)
    assert len(message.splitlines()) < 2
    assert len(message) < 3000


OFFLINE = ("run.json", "points.jsonl", "ending.json", "readings.npz", "weights.npz")
ARCHIVE = ("manifest.json", "runs.parquet", "toy.parquet")
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]


def many(count: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call `check` with `count` examples."""

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def run(example: Any) -> None:
        check(example)

    run()


@pytest.mark.parametrize("count", COUNTS)
def test_offline_folders(samples: Path, count: int) -> None:
    (folder,) = (samples / "offline").iterdir()

    def check(spoil: Spoil) -> None:
        with copied(folder) as copy:
            spoil(copy)
            refused_or_read(lambda: OfflineRun.read(copy))

    many(count, spoilers(OFFLINE), check)


@pytest.mark.parametrize("count", [5, COUNTS[1]])
def test_syncing_offline_folders(samples: Path, empty_database: Path, count: int) -> None:
    """A run comes whole into the store, or is refused in one line and leaves nothing there."""

    def check(spoil: Spoil) -> None:
        with copied(samples / "offline") as offline:
            project = Project(offline.parent / "project")
            project.mlruns.mkdir(parents=True)
            shutil.copy(empty_database, project.database)
            (folder,) = offline.iterdir()
            spoil(folder)
            store = Store(project)
            report = sync([offline], store)
            assert all(len(reason.splitlines()) == 1 for reason in report.refused.values())
            assert len(store.runs()) == len(report.added) == 1 - len(report.refused)
            assert all(run.state != "running" for run in store.runs())

    many(count, spoilers(OFFLINE), check)


@pytest.mark.parametrize("count", COUNTS)
def test_archives(samples: Path, count: int) -> None:
    def check(spoil: Spoil) -> None:
        with copied(samples / "archive") as copy:
            spoil(copy)
            refused_or_read(lambda: load(experiment="toy", archive=copy).runs)

    many(count, spoilers(ARCHIVE), check)


EXPERIMENT = """
import itertools, math, sys
from rnnstudy.cells import *
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import *
class Broken:
    def __repr__(self): raise RuntimeError("no text")
    __str__ = __eq__ = __hash__ = __repr__
def runs(scale):
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=Training(steps=4, batch=2))
    return grid(base, {{{fields}}}, seeds=range(2))
"""

FIELDS = (
    "task", "task.length", "cell", "cell.width", "cell.x", "layers", "seed", "data_seed", "probes", "training",
    "training.steps", "training.batch", "training.learning_rate", "training.clip", "training.other_lengths",
    "training.schedule", "", ".", "a b", "training.",
)  # fmt: skip
EXPRESSIONS = (
    "1", "0", "-1", "10**9", "10**400", "1e400", "math.nan", "None", "True", "'x'", "()", "[]", "{}", "Broken()",
    "Broken", "Elman()", "LSTM(width=2)", "TemporalOrder(length=12)", "(10,)", "(Broken(),)", "itertools.count()",
    "sys.exit(0)", "1/0", "undefined", "lambda: 1", "print", "[[]]", "'é' * 10**4", "object()", "Training()",
    "float('inf')", "b'x'", "1j", "range(3)", "...", "type", "(", "\\0",
)  # fmt: skip


@pytest.mark.parametrize("count", COUNTS)
def test_experiment_files(tmp_path: Path, count: int) -> None:
    pairs = st.tuples(st.sampled_from(FIELDS), st.lists(st.sampled_from(EXPRESSIONS), max_size=2))
    texts = st.lists(pairs, max_size=3).map(
        lambda fields: EXPERIMENT.format(fields=", ".join(f"{name!r}: [{', '.join(of)}]" for name, of in fields))
    ) | st.text(st.sampled_from("runs=def():\n \t[]{}0é\0\\'\"#@"), max_size=40)
    path = tmp_path / "malformed.py"
    before = list(sys.path)

    def check(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        refused_or_read(lambda: load_experiment(path).runs(Scale.SMOKE))

    try:
        many(count, texts, check)
    finally:
        sys.path[:] = before


WORDS = (
    "list", "show", "forget", "studies", "probe", "sync", "report", "sweep", "--dry-run", "--scale", "smoke", "paper",
    "--set", "--only", "--tasks", "--cells", "--probes", "--workers", "--shard", "1/2", "0/0", "9/1", "x/y", "-1",
    "0", "experiments/toy.py", "experiments", "nowhere.py", "seed=3", "seed=", "=", "layers=10**9", "layers=1e9",
    "x.y=3", "training.steps=0", "training.learning_rate=1e400", "cell.width='a'", "[" * 400, "{[]: 1}",
    "seed=" + "9" * 5000, "--from", "--export", "--offline", "--storage", "sqlite:///x", "http://me:secret@host", "",
    "é", "\x1b[2J", "abc", "%", "'", "--device", "cuda:99", "--engine", "--ray", "--gpus-per-worker", "nan", "--port",
    "-h", "--", "~",
)  # fmt: skip


@pytest.mark.parametrize("count", COUNTS)
def test_command_lines(samples: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.chdir(samples / "project")
    for name in ("RNNSTUDY_HOME", "MLFLOW_TRACKING_URI", "RNNSTUDY_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    before, path = sorted(samples.rglob("*")), list(sys.path)

    def check(words: list[str]) -> None:
        command, *rest = words
        # Nothing trains, and no server starts.
        arguments = [command, "--dry-run", *rest] if command == "sweep" else [command, *rest]
        monkeypatch.setattr(sys, "argv", ["rnnstudy", *arguments])
        errors, code = io.StringIO(), 0
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        assert code in (0, 1, 2), arguments
        assert len(errors.getvalue().splitlines()) == (code == 2), (arguments, errors.getvalue())
        assert "secret@" not in errors.getvalue()

    commands = st.sampled_from(WORDS[:8])
    try:
        many(
            count,
            st.builds(lambda one, rest: [one, *rest], commands, st.lists(st.sampled_from(WORDS[8:]), max_size=5)),
            check,
        )
    finally:
        sys.path[:] = path
    left = [one for one in sorted(samples.rglob("*")) if one not in before and "__pycache__" not in one.parts]
    assert [one for one in left if os.path.basename(one) not in ("optuna.db", "x")] == []
