"""Reports: notebooks run by this very Python, written with their outputs, as a web page, and beside their figures.

The source of a report is `reports/<name>.py`, a notebook in jupytext's percent format, which begins with
`rnnstudy.report.Notebook(name)`. What it says about itself is its `Header`.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnstudy.report.notebook import ARCHIVE, ASKED, FIGURES, load_study
from rnnstudy.report.pages import index_page, notebook_page
from rnnstudy.results.archive import MANIFEST, Archive, ExportedExperiment, ReadingRequest, write_archive
from rnnstudy.spec import SpecError, nearest
from rnnstudy.store.atomic import write_all
from rnnstudy.store.project import Project

if TYPE_CHECKING:
    from nbformat import NotebookNode


CELL_SECONDS = 900

AT_ONCE = 2
"""Notebooks that run side by side."""

LAST = 1000
"""The place of a report that names none."""


@dataclass(frozen=True)
class Header:
    """What a report says about itself, in the YAML header of its source:

        # ---
        # jupyter:
        #   rnnstudy:
        #     order: 20
        #     experiments: [sequence_length]
        # ---

    Attributes:
        order: its place on the index page, lowest first; reports of equal place by name.
        experiments: whose runs it needs; the one of its own name, if there is one, when it does not say.
    """

    order: float
    experiments: tuple[str, ...]


def build(names: Iterable[str], project: Project, archive: Path | None = None) -> list[Path]:
    """Run the notebook of each named report; write its .ipynb with outputs, its .html, its figures, and the index page.

    With `archive`, a folder of committed results, the runs come from there and not from the store. Returns the files
    written. Building one twice from the same runs gives the same bytes. Raises `SpecError` for an unknown report, an
    experiment without runs, and an error within a notebook; the outputs of the report stay as they were then.
    """
    return _build(names, project, archive, None)


def export(names: Iterable[str], project: Project, folder: Path) -> list[Path]:
    """Build the named reports from the store, and write what they asked of it into `folder` (see `results.archive`).

    Where they are all reports, the folder then holds what they asked for and nothing else; where they are some, what
    the folder holds for the others stays.

    Returns the files written. Raises as `build` does.
    """
    names = list(names)
    with tempfile.TemporaryDirectory(prefix="rnnstudy-export-") as aside:
        file = Path(aside) / "asked"
        file.touch()
        built = _build(names, project, None, file)
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = [ReadingRequest(experiment, name, quantile, tuple(keys)) for experiment, name, quantile, keys in lines]
    experiments = {one.experiment for one in asked}.union(*(header(name, project).experiments for name in names))
    studies = {experiment: load_study(experiment, project) for experiment in sorted(experiments)}
    kept = {
        experiment: ExportedExperiment(one.command, one.results, one.searched) for experiment, one in studies.items()
    }
    return [*built, *write_archive(folder, kept, asked, add=set(names) != set(known_reports(project)))]


def _build(names: Iterable[str], project: Project, archive: Path | None, asked: Path | None) -> list[Path]:
    names = list(names)
    if archive is not None:
        if not archive.is_dir():
            raise SpecError(f"--from: {archive} is no folder; `rnnstudy report --export DIR` writes one")
        archive = archive.resolve()
        Archive.open(archive)
    headers = {name: header(name, project) for name in names}
    lacks = _require_runs((one for told in headers.values() for one in told.experiments), project, archive)
    lacking = {name: [lacks[one] for one in told.experiments if lacks[one]] for name, told in headers.items()}
    inputs = {ARCHIVE: str(archive) if archive else "", ASKED: str(asked) if asked else ""}
    with _quiet(), ThreadPoolExecutor(AT_ONCE) as pool:
        written = list(pool.map(lambda name: _build_one(name, project, inputs, lacking[name]), names))
    index = project.reports / "index.html"
    write_all({index: index_page(project, [(one, header(one, project)) for one in known_reports(project)])})
    return [*(path for files in written for path in files), index]


def known_reports(project: Project) -> list[str]:
    """The reports of a project, in alphabetical order."""
    return sorted(path.stem for path in project.reports.glob("*.py"))


def _require_runs(experiments: Iterable[str], project: Project, archive: Path | None) -> dict[str, str]:
    """What each of the experiments lacks, in words (`Study.lack`).

    Raises `SpecError` with all the sweeps to launch when some of the experiments have no runs.
    """
    lacks: dict[str, str] = {}
    missing, told = [], []
    for experiment in dict.fromkeys(experiments):
        try:
            lacks[experiment] = load_study(experiment, project, archive).lack
        except SpecError as error:
            missing.append(experiment)
            told.append(str(error))
    if not missing:
        return lacks
    committed = project.reports / "data" / MANIFEST
    other = "; or redraw from the committed results with `rnnstudy report --from reports/data`"
    hint = other if archive is None and committed.is_file() else ""
    if len(missing) == 1:
        raise SpecError(told[0] + hint)
    sweeps = ", ".join(f"`rnnstudy sweep experiments/{experiment}.py`" for experiment in missing)
    raise SpecError(f"there are no runs of {', '.join(missing)}; run {sweeps} first{hint}")


def _require_source(name: str, project: Project) -> Path:
    source = project.reports / f"{name}.py"
    if not source.is_file():
        names = known_reports(project)
        there = f"Reports here: {', '.join(names)}" if names else f"There are no reports in {project.reports}"
        raise SpecError(f"there is no report '{name}'{nearest(name, names) or ';'} {there}")
    return source


def header(name: str, project: Project) -> Header:
    """What the report `name` says about itself. Raises `SpecError` for something else than an order and names."""
    with _quiet():
        told = _read(_require_source(name, project)).metadata.get("rnnstudy", {})
    own = [name] if (project.root / "experiments" / f"{name}.py").is_file() else []
    order, experiments = told.get("order", LAST), told.get("experiments", own)
    sound = isinstance(order, int | float) and isinstance(experiments, list) and set(told) <= {"order", "experiments"}
    if not sound or not all(isinstance(one, str) for one in experiments):
        raise SpecError(
            f"{project.reports / name}.py: its header may hold `order`, a number, and `experiments`, a list of names; "
            f"not {dict(told)}"
        )
    return Header(float(order), tuple(experiments))


def _build_one(name: str, project: Project, inputs: Mapping[str, str], lacking: Sequence[str]) -> list[Path]:
    source = _require_source(name, project)
    figure_files = project.reports / "figures" / name
    with tempfile.TemporaryDirectory(prefix="rnnstudy-report-") as folder:
        aside = Path(folder) / "figures"
        aside.mkdir()
        notebook = _read(source)
        _execute(notebook, name, project, Path(folder), inputs, lacking)
        _tidy(notebook, project)
        contents = {
            project.reports / f"{name}.ipynb": _as_notebook(notebook),
            project.reports / f"{name}.html": notebook_page(notebook, name),
        }
        drawn = sorted(path for path in aside.rglob("*") if path.is_file())
        contents |= {figure_files / path.relative_to(aside): path.read_bytes() for path in drawn}
    written = write_all(contents)
    # A figure that the notebook no longer makes would be taken for one of this build.
    for path in figure_files.glob("*"):
        if path.is_file() and path not in contents:
            path.unlink()
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """The notebook libraries deprecate among themselves; that is no news for a user of this package."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(source: Path) -> "NotebookNode":
    """The notebook of a percent script, with identifiers that stay the same."""
    import jupytext

    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number:02d}"
    return notebook


def _execute(
    notebook: "NotebookNode",
    name: str,
    project: Project,
    folder: Path,
    inputs: Mapping[str, str],
    lacking: Sequence[str],
) -> None:
    """Run all cells in place; raises `SpecError` in one line for the first that fails.

    `lacking` says which runs were not there: the likeliest reason.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        km=_kernel_manager(folder),
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(project.reports)}},
    )
    unchanged = "what was built before is unchanged"
    try:
        # Not client.execute(): it makes an event loop for its thread and never closes it.
        asyncio.run(client.async_execute(env={**_environment(project, folder), **inputs}, cleanup_kc=True))
    except CellExecutionError as error:
        message = " ".join(_plain(f"{error.ename}: {error.evalue}").split())
        told = "; ".join([message, *lacking, unchanged])
        raise SpecError(f"report '{name}' stopped in {_stopped_in(notebook)}: {told}") from None
    except CellTimeoutError:
        where = f"report '{name}' was stopped after {CELL_SECONDS} s in one cell"
        raise SpecError(f"{where}; compute less in the notebook; {unchanged}") from None
    except DeadKernelError:
        raise SpecError(f"the Python that ran report '{name}' died, perhaps for want of memory; {unchanged}") from None


def _kernel_manager(folder: Path) -> Any:
    """A kernel of this Python, whatever kernels are installed under whatever names."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=ThisPython(), connection_file=str(folder / "kernel.json")
    )


def _environment(project: Project, folder: Path) -> dict[str, str]:
    """The environment of the notebook: this project, no telemetry, no display, no personal settings."""
    return {
        **os.environ,
        "RNNSTUDY_HOME": str(project.root),
        FIGURES: str(folder / "figures"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Progress bars that the notebook does not draw ask for a widget library.
        "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"])),
    }


def _stopped_in(notebook: "NotebookNode") -> str:
    """Number and first line of the cell that holds an error."""
    for number, cell in enumerate(notebook.cells, start=1):
        if any(output.output_type == "error" for output in cell.get("outputs", ())):
            first = next((line for line in cell.source.splitlines() if line.strip()), "")
            return f"cell {number} ({first.strip()})"
    return "a cell"


def _plain(text: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _tidy(notebook: "NotebookNode", project: Project) -> None:
    """Keep of the metadata and the texts what does not depend on machine, folder and time."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(str(project.root), ".").replace(sys.prefix, "…")


def _as_notebook(notebook: "NotebookNode") -> bytes:
    import nbformat

    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
