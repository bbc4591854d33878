"""Damaged and foreign storages of searches: each is read, mended or refused in one line, and then left as it was.

Some by hand, a few of what is generated in the fast tests, 250 in the slow ones.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler

from rnnstudy.search.studies import connect_storage, study_statuses
from rnnstudy.spec import RnnstudyError
from rnnstudy.store.project import Project
from tests.test_malformed_inputs import copied, many
from tests.test_malformed_stores import COUNTS, Spoil, one_line_each, spoilt_databases
from tests.test_search import SEARCH, Stage, staged

TABLES = ("alembic_version", "version_info", "studies", "study_directions", "study_user_attributes", "trials",
          "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")  # fmt: skip

SMALL = SEARCH.replace(trials=4, together=2, fresh_seeds=(7,), sampler=lambda seed: RandomSampler(seed=seed))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_storage: Path) -> Path:
    """A project with one study that is complete and one in whose middle the process died."""
    stage = staged(tmp_path_factory.mktemp("searched") / "project", empty_storage)
    stage.train(stage.queue(SMALL))
    stage.train(stage.queue(SMALL, name="another"), most=1)
    return stage.project.root


def used(project: Project) -> None:
    """What `studies` and the beginning of a search do."""
    study_statuses(project)
    for name in ("mine", "another"):
        Stage(project.root).queue(SMALL.replace(trials=6), name=name).next()


@pytest.mark.parametrize("count", COUNTS)
def test_storages(searched: Path, count: int) -> None:
    def check(spoil: Spoil) -> None:
        with copied(searched) as copy:
            project = Project(copy)
            path = project.mlruns / "optuna.db"
            spoil(path)
            before, told = path.read_bytes(), ""
            try:
                study_statuses(project)
            except RnnstudyError as error:
                told = str(error)
                assert path.read_bytes() == before
            try:
                used(project)
            except RnnstudyError as error:
                told = told or str(error)
            one_line_each([f"rnnstudy: {told}"])

    many(count, spoilt_databases(TABLES), check)


def sql(statements: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(statements)

    return spoil


def in_its_place(content: bytes | None) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        path.mkdir() if content is None else path.write_bytes(content)

    return spoil


def of_another_program(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE notes (text)")(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (in_its_place(b"hello " * 100), "is not a sound sqlite database (file is not a database); move it aside"),
        (in_its_place(None), "is a folder, not a database; move it aside"),
        (of_another_program, "is an sqlite database, but not one of Optuna's searches; move it aside"),
        (
            sql("UPDATE alembic_version SET version_num = 'v2.6.0.a'"),
            "is of an older Optuna; copy it, then run: optuna",
        ),
        (sql("UPDATE alembic_version SET version_num = 'v9.9.9.a'"), "is of a newer Optuna (schema v9.9.9.a); install"),
        (sql("DELETE FROM alembic_version"), "is damaged: its table alembic_version is empty"),
        (sql("DROP TABLE trial_params"), "is damaged: its table trial_params is gone"),
        (sql("UPDATE study_user_attributes SET value_json = '{'"), "optuna.db is damaged (Expecting property name"),
        (sql("UPDATE study_user_attributes SET value_json = '3' WHERE key = 'fresh'"), "its attribute 'fresh' is 3"),
        (sql("UPDATE trial_user_attributes SET value_json = '3' WHERE key = 'keys'"), "its attribute 'keys' is 3"),
        (sql("UPDATE trials SET state = 'DONE'"), "'DONE' is not among the defined enum values"),
        (sql("DELETE FROM trial_values"), "is complete and has no value"),
        (sql("UPDATE study_directions SET direction = 'MAXIMIZE'"), "its objective is not minimised"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_in_one_line_and_left_alone(
    searched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rnnstudy: Callable[..., Any],
    spoil: Callable[[Path], None],
    words: str,
) -> None:
    """Optuna added its tables to the database of another program, and ended other commands with a traceback."""
    monkeypatch.delenv("RNNSTUDY_STORAGE", raising=False)
    root = Path(shutil.copytree(searched, tmp_path / "project"))
    monkeypatch.setenv("RNNSTUDY_HOME", str(root))
    path = root / "mlruns" / "optuna.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    refused = rnnstudy("studies")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert words in refused.stderr
    assert (path.read_bytes() if path.is_file() else b"") == before
    with pytest.raises(RnnstudyError):
        used(Project(root))


def test_a_storage_that_cannot_be_written_is_refused_before_anything_is_trained(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnstudy.search.storage_file import require_writable_file
    from rnnstudy.store import mlflow_database

    root = Path(shutil.copytree(searched, tmp_path / "project"))
    path = root / "mlruns" / "optuna.db"
    require_writable_file(path)
    monkeypatch.setattr(mlflow_database, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RnnstudyError, match=r"optuna.db has been locked by another process for"):
            require_writable_file(path)
        other.execute("ROLLBACK")
    # What a read-only mount answers; root may write any file whatever its mode.
    monkeypatch.setattr(mlflow_database.os, "access", lambda *_: False)
    with pytest.raises(RnnstudyError, match=r"optuna.db cannot be written; make it writable"):
        require_writable_file(path)


def test_studies_of_other_programs_are_not_shown_and_not_continued(tmp_path: Path, empty_storage: Path) -> None:
    """A storage may be shared. Their studies may have several objectives, or another direction."""
    stage = staged(tmp_path / "project", empty_storage)
    storage = connect_storage(stage.project, None)
    theirs = optuna.create_study(storage=storage, study_name="theirs", directions=["maximize", "minimize"])
    theirs.tell(theirs.ask(), [1.0, 2.0])
    assert study_statuses(stage.project) == []
    with pytest.raises(RnnstudyError, match="study 'theirs' was made by another program; give the search another name"):
        stage.queue(SEARCH, name="theirs")
    storage.engine.dispose()


def test_looking_for_studies_makes_no_storage(project: Path, rnnstudy: Callable[..., Any]) -> None:
    for words in (("studies",), ("studies", "--storage", "sqlite:///mine.db")):
        looked = rnnstudy(*words)
        assert (looked.returncode, looked.stderr) == (0, "")
        assert looked.stdout.startswith("no studies in sqlite:///")
    assert list(project.rglob("*.db")) == []


def test_examples_are_of_all_tables(empty_storage: Path) -> None:
    with closing(sqlite3.connect(empty_storage)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert set(TABLES) <= tables
