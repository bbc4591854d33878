"""The wings and their order: who may import whom, and which wing owns which foreign library."""

import ast
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import rnnstudy

ROOT = Path(rnnstudy.__file__).parent

ORDER = [
    *("errors", "spec", "cells", "tasks", "optimisers", "engines", "figures", "probes", "run"),
    *("training", "store", "results", "sweep", "search", "report", "watching", "cli"),
]
"""A wing imports only what stands to its left."""

NARROWER = {"figures": {"errors", "spec", "tasks"}}
"""Wings that may import less than what stands to their left."""

OWNERS = {
    "numba": {"engines"},
    "triton": {"engines"},
    "matplotlib": {"figures", "report", "watching"},
    "seaborn": {"figures", "report", "watching"},
    "mlflow": {"store", "report", "watching"},
    "sqlalchemy": {"store", "report"},
    "pandas": {"results", "figures", "report", "watching"},
    "ray": {"sweep"},
    "optuna": {"search"},
    "lightning": {"watching"},
    "transformers": {"watching"},
    "click": {"cli"},
    "rich": {"cli"},
    "pydantic": {"store", "results"},
}
"""Which wings may import a foreign library; the libraries that are not named here are everybody's."""

TRAINING = ("errors", "spec", "cells", "tasks", "optimisers", "engines", "probes", "run", "training")
FOREIGN = ["mlflow", "optuna", "pandas", "click", "rich", "matplotlib", "seaborn", "sqlalchemy", "nbconvert"]


class Import(typing.NamedTuple):
    """One imported name: the wing and line that import it, and its dotted path."""

    wing: str
    where: str
    name: str


def imports_of(file: Path, root: Path = ROOT) -> list[Import]:
    """Every import statement of a file: at its top, inside functions, and for type checking alone."""
    parts = file.relative_to(root).parts
    wing = parts[0].removesuffix(".py")
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(wing, f"{'/'.join(parts)}:{node.lineno}", name) for name in names]
    return found


def upward(imports: list[Import]) -> list[str]:
    """The imports of a wing that does not stand to the left, in words."""
    wrong = []
    for one in imports:
        package, _, rest = one.name.partition(".")
        wing = rest.partition(".")[0]
        if package != "rnnstudy" or wing == one.wing or one.wing == "__init__":
            continue
        allowed = NARROWER.get(one.wing, set(ORDER[: ORDER.index(one.wing)]))
        if wing not in allowed:
            wrong.append(f"{one.where} imports {one.name}")
    return wrong


def borrowed(imports: list[Import]) -> list[str]:
    """The imports of a foreign library that another wing owns, in words."""
    return [
        f"{one.where} imports {one.name}"
        for one in imports
        if one.wing not in OWNERS.get(one.name.partition(".")[0], {one.wing})
    ]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [one for file in sorted(ROOT.rglob("*.py")) for one in imports_of(file)]


def test_a_wing_imports_only_what_stands_to_its_left(imports: list[Import]):
    assert upward(imports) == []


def test_a_foreign_library_is_imported_by_its_owners_alone(imports: list[Import]):
    assert borrowed(imports) == []


@pytest.mark.parametrize(
    ("wing", "statement", "check"),
    [
        ("cells", "from rnnstudy.tasks import TemporalOrder", upward),
        ("training", "def late():\n    from rnnstudy.store import tracker", upward),
        ("figures", "from rnnstudy.cells import LSTM", upward),
        ("sweep", "if TYPE_CHECKING:\n    from rnnstudy.search import Search", upward),
        ("sweep", "import rnnstudy.search.queue", upward),
        ("search", "def late():\n    import pandas as pd", borrowed),
        ("training", "from mlflow.tracking import MlflowClient", borrowed),
    ],
)
def test_a_forbidden_import_is_noticed_wherever_it_stands(wing: str, statement: str, check, tmp_path: Path):
    (tmp_path / wing).mkdir()
    file = tmp_path / wing / "new.py"
    file.write_text(statement)
    assert len(check(imports_of(file, tmp_path))) == 1


def test_the_house_has_the_wings_of_the_list_and_no_others():
    entries = {path.name.removesuffix(".py") for path in ROOT.iterdir()} - {"__init__", "__pycache__", "py.typed"}
    assert entries == set(ORDER)


@pytest.mark.parametrize("wing", [path.name for path in ROOT.iterdir() if path.is_dir() and path.name in ORDER])
def test_a_wing_says_what_comes_in_what_goes_out_and_where_to_begin(wing: str):
    text = ast.get_docstring(ast.parse((ROOT / wing / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert all(words in text for words in ("What comes in", "What goes out", "Begin with")), text


def test_no_file_is_longer_than_400_lines():
    long = {
        str(file.relative_to(ROOT)): lines
        for file in ROOT.rglob("*.py")
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def modules_of(wings: tuple[str, ...]) -> list[str]:
    """The modules of some wings, but for the kernels: those compile, or need Triton, when they are imported."""
    files = [file for wing in wings for file in (ROOT / wing).rglob("*.py")] + [
        ROOT / f"{wing}.py" for wing in wings if (ROOT / f"{wing}.py").is_file()
    ]
    names = [".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in files]
    return sorted(name.removesuffix(".__init__") for name in names if "_kernels." not in name)


BLOCK = """
import importlib, sys
for name in {foreign!r}:
    sys.modules[name] = None  # as if it were not installed
for module in {modules!r}:
    importlib.import_module(module)
"""


def test_what_trains_does_not_load_them_either():
    program = (
        f"import importlib, sys\nfor module in {modules_of(TRAINING)!r}: importlib.import_module(module)\n"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_trains_without_what_tracks_and_draws():
    program = BLOCK.format(foreign=FOREIGN, modules=modules_of(TRAINING)) + (
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
