"""Experiment files: imported by path, checked, and asked for their runs."""

import difflib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rnnstudy.errors import RequestError, RnnstudyError, SpecError, message_of, shown
from rnnstudy.run import Run, unique_names
from rnnstudy.spec import nearest
from rnnstudy.store.project import find_project
from rnnstudy.sweep.grids import MOST_RUNS, Scale, override
from rnnstudy.sweep.shards import Shard
from rnnstudy.tasks import locations


class ExperimentError(RnnstudyError):
    """An experiment file that is missing, fails, or defines something that is not expected of it."""


@dataclass(frozen=True)
class Experiment:
    """An experiment file: its docstring is the hypothesis, `runs(scale)` returns what to train.

    Attributes:
        file: its path as the caller named it.
        module: what the file defines.
    """

    file: Path
    module: ModuleType

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self.file.resolve()

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def hypothesis(self) -> str:
        return inspect.getdoc(self.module) or ""

    @property
    def searches_here(self) -> bool:
        """Whether the file defines searches instead of a list of runs."""
        return not callable(vars(self.module).get("runs"))

    def runs(self, scale: Scale) -> list[Run]:
        """The runs at this scale. Raises `ExperimentError` when the file returns something else, or a run twice."""
        if self.searches_here:
            raise ExperimentError(
                f"{self.path} defines a search, whose runs are chosen as it goes on; `rnnstudy sweep {self.path.name}` "
                "runs it, `rnnstudy studies` shows its progress"
            )
        by_key: dict[str, Run] = {}
        with errors_of(self.path):
            for run in self.module.runs(scale):
                if not isinstance(run, Run):
                    raise SpecError(f"runs(scale) must return Run objects, not {type(run).__name__}")
                if run.key in by_key:
                    raise SpecError(f"two runs mean the same: {shown(run)}")
                if len(by_key) == MOST_RUNS:
                    raise SpecError(f"runs({scale.value}) returns more than {MOST_RUNS} runs; does it end?")
                by_key[run.key] = run
        if not by_key:
            raise ExperimentError(f"{self.path}: runs({scale.value}) returns no runs")
        return list(by_key.values())


def load_experiment(path: Path) -> Experiment:
    """Import an experiment file. What it defines lives in the module `experiments.<name>`, wherever the file lies.

    The file can import the files beside it. Raises `ExperimentError`, with the line, if it is missing or fails.
    """
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean '{path.parent / close[0]}'?" if close else ""
        raise ExperimentError(f"there is no experiment file '{path}'{hint}")
    name, folder = f"{PACKAGE}.{path.stem}", str(path.resolve().parent)
    _make_package(folder)
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ExperimentError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if folder not in sys.path:
        # Last: a file such as random.py beside the experiment must not take the place of Python's own module.
        sys.path.append(folder)
    try:
        with errors_of(path):
            spec.loader.exec_module(module)
    except ExperimentError:
        del sys.modules[name]
        raise
    defined = vars(module)
    if not callable(defined.get("runs")) and not callable(defined.get("searches")) and "SEARCH" not in defined:
        del sys.modules[name]
        raise ExperimentError(
            f"{path} defines no runs(scale), and no SEARCH with sample(trial, scale); see experiments/quickstart.py "
            "and experiments/tuned_comparison.py for the forms"
        )
    return Experiment(path, module)


def select_runs(
    experiment: Experiment,
    scale: Scale,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    shard: str | None = None,
) -> list[Run]:
    """The runs of an experiment, with fields set by `settings`, whose keys begin with one of `only`, of one shard.

    A shard has no runs where the sweep has fewer populations than shards. Raises `RequestError` for a beginning that no
    key has.
    """
    part = Shard.parse(shard) if shard else None
    runs = override(experiment.runs(scale), settings)
    keys = {run.key for run in runs}
    for beginning in only:
        if beginning not in keys and not any(run.key.startswith(beginning) for run in runs):
            hint = nearest(beginning, [run.key for run in runs]) or f"; rnnstudy list {experiment.file} shows them"
            raise RequestError(
                f"no run of {experiment.file} at scale {scale.value} has a key that begins with '{beginning}'{hint}"
            )
    whole, parts = keys & set(only), tuple(set(only) - keys)
    runs = [run for run in runs if not only or run.key in whole or run.key.startswith(parts)]
    return part.of(runs) if part else runs


def run_names(experiment: Experiment, scale: Scale, settings: Sequence[str] = ()) -> dict[str, str]:
    """Key to name of all runs of an experiment: a run has one name, whichever part of the experiment is asked for."""
    return unique_names(override(experiment.runs(scale), settings))


def _make_package(folder: str) -> None:
    """Make the package `experiments`, which finds modules in `folder` too: unpickling a class imports it by name."""
    package = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    folders = vars(package).setdefault("__path__", [])
    if folder not in folders:
        folders.append(folder)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Raises what the code of an experiment file raises in this block as an `ExperimentError` of one line.

    That it ends the program is an error, too: otherwise a command would end with exit code 0 and without a word. Paths
    of data begin at the file's folder.
    """
    locations.look_in(path.resolve().parent, find_project(path).root)
    try:
        yield
    except (KeyboardInterrupt, ExperimentError):
        raise
    except BaseException as error:
        raise ExperimentError(one_line(path, error)) from None


def one_line(path: Path, error: BaseException) -> str:
    """File, line and message of an error raised by an experiment file; the nearest name for a failed import."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    if isinstance(error, RnnstudyError):
        return f"{where}: {error}"
    if isinstance(error, SystemExit):
        return f"{where}: it ends the program (exit code {shown(error.code)}); an experiment file only defines"
    without_location = re.sub(r" \((unknown location|/[^)]*)\)$", "", message_of(error))
    return f"{where}: {type(error).__name__}: {without_location}{_import_hint(error, path)}"


def _import_hint(error: BaseException, path: Path) -> str:
    """For a failed import, the file beside the experiment that another module hides, or the nearest name there is."""
    if not isinstance(error, ImportError):
        return ""
    package = (error.name or "").partition(".")[0]
    beside, module = path.resolve().with_name(f"{package}.py"), sys.modules.get(error.name or "")
    if package and beside.is_file() and getattr(module, "__file__", "") != str(beside):
        return f"; {beside.name} beside it has the name of another module, which comes first: rename the file"
    wanted = re.match(r"cannot import name '(\w+)'", message_of(error))
    return nearest(wanted[1], vars(module)) if wanted and module else ""


PACKAGE = "experiments"
"""What an experiment file defines lives in a module of this package, wherever the file lies."""
