"""What trains knows nothing of what tracks, and each room only of the rooms below it."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import rnnstudy

ROOT = Path(rnnstudy.__file__).parent
ROOMS = ["tasks", "cells", "probes", "unroll", "optimisers"]
TRAINING = [
    *(
        f"rnnstudy.{module}"
        for module in ("model", "memory", "population", "loop", "records", "run", "learner", "evaluation")
    ),
    *(f"rnnstudy.{module}" for module in ("history", "checkpoint", "spec", "discovery", "randomness")),
    *(f"rnnstudy.{room}.{one.name}" for room in ROOMS for one in pkgutil.iter_modules([str(ROOT / room)])),
]
FOREIGN = ["mlflow", "optuna", "pandas", "click", "rich", "matplotlib", "seaborn", "sqlalchemy", "nbconvert"]

BELOW = {
    "spec": set(),
    "randomness": set(),
    "discovery": {"spec"},
    "records": set(),
    "tasks": {"spec", "discovery"},
    "cells": {"spec", "discovery"},
    "optimisers": {"spec", "discovery", "cells"},
    "kernels": set(),
    "unroll": {"spec", "cells", "kernels"},
    "probes": {"spec", "discovery", "cells", "optimisers", "records", "unroll"},
    "run": {"spec", "tasks", "cells", "optimisers", "probes", "unroll"},
    "model": {"cells", "tasks", "unroll", "probes"},
    "history": {"records"},
    "checkpoint": {"spec", "run"},
    "memory": {"model", "records", "run"},
    "population": {"memory", "model", "randomness", "run", "spec", "tasks", "unroll"},
    "learner": {"checkpoint", "history", "optimisers", "population", "records", "run", "unroll"},
    "evaluation": {"cells", "learner", "memory", "population", "probes", "records", "tasks", "unroll"},
    "loop": {"evaluation", "learner", "population", "probes", "records", "run", "spec", "unroll"},
}
"""What each room of the training half may import at run time."""

BLOCK = """
import importlib, sys
for name in {foreign!r}:
    sys.modules[name] = None  # as if it were not installed
for module in {modules!r}:
    importlib.import_module(module)
"""


def test_what_trains_does_not_load_them_either():
    program = (
        f"import importlib, sys\nfor module in {TRAINING!r}: importlib.import_module(module)\n"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_trains_without_what_tracks_and_draws():
    program = BLOCK.format(foreign=FOREIGN, modules=TRAINING) + (
        "from rnnstudy.cells import LSTM\n"
        "from rnnstudy.tasks import TemporalOrder\n"
        "import rnnstudy\n"
        "training = rnnstudy.Training(steps=2, validation_sequences=2, test_sequences=2)\n"
        "run = rnnstudy.Run(task=TemporalOrder(length=10), cell=LSTM(width=3), training=training)\n"
        "print([record.outcome.status for record in rnnstudy.train(run) if record.outcome])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.stdout.strip() == "['finished']", done.stderr


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, rnnstudy; print([name for name in ('torch', 'mlflow', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imported_rooms(file: Path) -> set[str]:
    """Rooms of the package that a file imports when it runs; imports for type checking alone do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    ignored = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("rnnstudy.")}


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_what_lies_below_it(room):
    files = sorted((ROOT / room).glob("*.py")) if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
    assert files
    for file in files:
        assert imported_rooms(file) - {room} <= BELOW[room], file.name


def test_the_order_of_the_rooms_has_no_circle():
    done: set[str] = set()
    while len(done) < len(BELOW):
        free = {room for room, below in BELOW.items() if room not in done and below <= done}
        assert free, f"a circle among {sorted(set(BELOW) - done)}"
        done |= free
