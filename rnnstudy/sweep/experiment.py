import difflib
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rnnstudy.run import Run
from rnnstudy.spec import RnnstudyError, SpecError, nearest
from rnnstudy.sweep.grids import Scale


class ExperimentError(RnnstudyError):
    """An experiment file that is missing, fails, or defines something that is not expected of it."""


@dataclass(frozen=True)
class Experiment:
    """An experiment file: its docstring is the hypothesis, `runs(scale)` says what to train."""

    path: Path
    module: ModuleType

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def hypothesis(self) -> str:
        return inspect.getdoc(self.module) or ""

    @property
    def searches_here(self) -> bool:
        """Whether the file defines searches in place of a list of runs."""
        return not callable(vars(self.module).get("runs"))

    def runs(self, scale: Scale) -> list[Run]:
        """The runs at this scale. Raises `SpecError` when the file gives something else, or a run twice."""
        if self.searches_here:
            raise SpecError(
                f"{self.path} defines a search, whose runs are not known before; `rnnstudy sweep {self.path.name}` "
                "runs it, `rnnstudy studies` shows how it stands"
            )
        try:
            runs = list(self.module.runs(scale))
        except Exception as error:
            raise SpecError(one_line(self.path, error)) from None
        if not runs:
            raise SpecError(f"{self.path}: runs({scale.value}) gives no runs")
        by_key: dict[str, Run] = {}
        for run in runs:
            if not isinstance(run, Run):
                raise SpecError(f"{self.path}: runs(scale) must give Run objects, not {type(run).__name__}")
            if run.key in by_key:
                raise SpecError(f"{self.path}: two runs mean the same: {run!r}")
            by_key[run.key] = run
        return runs


def load_experiment(path: Path) -> Experiment:
    """Import an experiment file. What it defines lives in the module `experiments.<name>`, wherever the file lies.

    Files beside it can be imported from it. Raises `SpecError`, with the line, for a file that is missing or fails.
    """
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean '{path.parent / close[0]}'?" if close else ""
        raise SpecError(f"there is no experiment file '{path}'{hint}")
    name = f"{PACKAGE}.{path.stem}"
    _stand_for_package(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise SpecError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SpecError(one_line(path, error)) from None
    defined = vars(module)
    if not callable(defined.get("runs")) and not callable(defined.get("searches")) and "SEARCH" not in defined:
        del sys.modules[name]
        raise SpecError(
            f"{path} defines no runs(scale), and no SEARCH with sample(trial, scale); see experiments/quickstart.py "
            "and experiments/tuned_comparison.py for the forms"
        )
    return Experiment(path.resolve(), module)


def _stand_for_package(folder: Path) -> None:
    """Let the package of experiments exist, wherever Python looks for packages: pickling a class imports it by name."""
    package = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    places = vars(package).setdefault("__path__", [])
    if str(folder) not in places:
        places.append(str(folder))


def one_line(path: Path, error: Exception) -> str:
    """File, line and message of an error raised by an experiment file; the nearest name for a failed import."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    if isinstance(error, RnnstudyError):
        return f"{where}: {error}"
    return f"{where}: {type(error).__name__}: {_without_location(error)}{_import_hint(error)}"


def _without_location(error: Exception) -> str:
    return re.sub(r" \((unknown location|/[^)]*)\)$", "", " ".join(str(error).split()))


def _import_hint(error: Exception) -> str:
    """For `cannot import name`, the nearest name that the module does have."""
    wanted = re.match(r"cannot import name '(\w+)'", str(error))
    module = sys.modules.get(error.name or "") if isinstance(error, ImportError) else None
    return nearest(wanted[1], vars(module)) if wanted and module else ""


PACKAGE = "experiments"
"""What an experiment file defines lives in a module of this package, wherever the file lies."""
