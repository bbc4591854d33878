"""One torch thread; every shape that an annotation states is checked while the tests run; projects to sweep in."""

import importlib
import os
import shutil
import sys
import tarfile
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from rnnstudy.store.project import Project

PACKAGES = ["rnnstudy.tasks", "rnnstudy.cells", "rnnstudy.engines", "rnnstudy.probes", "rnnstudy.optimisers"]

# The engines but for their kernels: what Numba compiles cannot be wrapped.
ENGINES = sorted((Path(__file__).parents[1] / "rnnstudy" / "engines").glob("[a-z]*.py"))
CHECKED = [one for one in PACKAGES if one != "rnnstudy.engines"] + [f"rnnstudy.engines.{one.stem}" for one in ENGINES]

torch.set_num_threads(1)

# Set by some test runners: what is printed into a pipe would be as narrow.
os.environ.pop("COLUMNS", None)

# A whole number serves where a float is asked for, as everywhere in Python's type system.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(annotated: Callable[..., Any]) -> Callable[..., Any]:
    """`annotated` with its arguments and its result checked; beartype cannot check `Self` outside its class."""
    hints = getattr(annotated, "__annotations__", {}).values()
    return annotated if typing.Self in hints else check(annotated)


install_import_hook(CHECKED, f"{__name__}.checked")


def pytest_configure() -> None:
    """Specifications check their own fields, and tests look at what they say: their constructors stay as they are."""
    for package in PACKAGES:
        importlib.import_module(package)
    from rnnstudy.spec import Spec, concrete

    for specification in concrete(Spec):
        constructor = specification.__init__
        if constructor.__globals__["__name__"].startswith("jaxtyping"):
            specification.__init__ = constructor.__wrapped__


EXPERIMENT = '''
"""A small sweep."""
from rnnstudy.cells import LSTM, Elman
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid
from rnnstudy.tasks import TemporalOrder


def runs(scale):
    base = Run(
        task=TemporalOrder(length=10),
        cell=Elman(width=4),
        training=Training(steps=scale.pick(smoke=20, desk=2500, paper=10), batch=4, check_every=10,
                          validation_sequences=20, test_sequences=40),
        probes=(ParameterGradients(), GradientThroughTime(every=10, sequences=4)),
    )
    return grid(base, {"cell": [Elman(width=4), LSTM(width=4)]}, seeds=range(2))
'''


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, made once: making it takes seconds."""
    from rnnstudy.store.mlflow_store import Store
    from rnnstudy.store.project import Project

    store = Store(Project(tmp_path_factory.mktemp("template")))
    store.require_writable()
    assert store.client is not None
    assert store.database is not None
    return store.database


@pytest.fixture(scope="session")
def empty_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's database without a study, made once: making it takes seconds."""
    from rnnstudy.search.studies import connect_storage
    from rnnstudy.store.project import Project

    home = Project(tmp_path_factory.mktemp("template"))
    connect_storage(home, None).engine.dispose()
    return home.mlruns / "optuna.db"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, with one experiment and no store."""
    for name in ("RNNSTUDY_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "small.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project_with_store(project: Path, empty_database: Path) -> Path:
    """A project whose store has been made and is empty."""
    shutil.copy(empty_database, project / "mlruns" / "mlflow.db")
    return project


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Project":
    """A project that an older version wrote; see `test_older_versions`."""
    from rnnstudy.store.project import Project

    for name in ("RNNSTUDY_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with tarfile.open(Path(__file__).parent / "data" / "store_before_the_wings.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def rnnstudy(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command line in this process; workers are processes of their own."""

    from rnnstudy.cli.commands import main

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["rnnstudy", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed, told = capfd.readouterr()
        return Answer(code, printed, told)

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that Playwright moves; the test is skipped where one of the two is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()
