"""Building reports: each notebook is run by this Python, and written with its outputs, as a web page, with its figures.

The source of a report is `reports/<name>.py`, a notebook in jupytext's percent format that begins with
`rnnstudy.report.Notebook(name)`. Its YAML header is described by `Header`.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from rnnstudy.report.notebook import ARCHIVE, FIGURES, REQUESTS
from rnnstudy.report.pages import index_page, notebook_page
from rnnstudy.report.study import ReportError, load_study, open_source
from rnnstudy.results.archive import MANIFEST, ExportedExperiment, ReadingRequest, require_own_files, write_archive
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.spec import RequestError, nearest
from rnnstudy.store.project import Project
from rnnstudy.training.atomic import write_all

CELL_SECONDS = 900
"""The longest time that one cell may take."""

PARALLEL = 2
"""How many notebooks run at the same time."""

LAST = 1000
"""The order of a report that states none."""


@dataclass(frozen=True)
class Header:
    """The YAML header of a report's source:

        # ---
        # jupyter:
        #   rnnstudy:
        #     order: 20
        #     experiments: [sequence_length]
        # ---

    Attributes:
        order: its position on the index page, lowest first; reports of equal order are sorted by name.
        experiments: the experiments whose runs it needs; by default the one with the report's own name, if it exists.
    """

    order: float
    experiments: tuple[str, ...]


def build_reports(names: Iterable[str], project: Project, archive: Path | None = None) -> list[Path]:
    """Build the named reports and the index page in the project's folder `build/reports`.

    Each report is an .ipynb with outputs, an .html and its figures. With `archive`, a folder of committed results, the
    runs are read from there and not from the store. The same runs give the same bytes. Returns the files written.

    Raises `RequestError` for an unknown report or a folder without results, `MissingRuns` for an experiment without
    runs, and `ReportError` when a notebook stops; the files of the report are unchanged then.
    """
    return _build(list(names), project, archive, project.built_reports)


def export(names: Iterable[str], project: Project, folder: Path, archive: Path | None = None) -> list[Path]:
    """Build the named reports in the project's folder `reports`, and write the results they use into `folder`.

    If these are all reports, `folder` then holds exactly what they use; if only some, what it holds for the others
    stays. With `archive`, the runs are read from that folder of committed results; if it is `folder` itself, its files
    are not changed, and only the reports are built. Returns the files written. Raises what `build_reports` raises.
    """
    names = list(names)
    if archive is not None and archive.resolve() == folder.resolve():
        return _build(names, project, archive, project.reports)
    require_own_files(folder, {experiment for name in names for experiment in header(name, project).experiments})
    with tempfile.TemporaryDirectory(prefix="rnnstudy-export-") as temporary:
        file = Path(temporary) / "requests"
        file.touch()
        built = _build(names, project, archive, project.reports, file)
        requests = [ReadingRequest(*json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    experiments = {request.experiment for request in requests}.union(
        *(header(name, project).experiments for name in names)
    )
    source = open_source(project, archive)
    studies = {experiment: load_study(experiment, project, source) for experiment in sorted(experiments)}
    exported = {
        name: ExportedExperiment(study.command, study.results, study.searches) for name, study in studies.items()
    }
    return [*built, *write_archive(folder, exported, requests, add=set(names) != set(known_reports(project)))]


def _build(
    names: Sequence[str], project: Project, archive: Path | None, output: Path, requests: Path | None = None
) -> list[Path]:
    if archive is not None and not archive.is_dir():
        raise RequestError(f"--from: {archive} is no folder; `rnnstudy report --export DIR` writes one")
    source = open_source(project, archive)
    headers = {name: header(name, project) for name in names}
    experiments = dict.fromkeys(experiment for known in headers.values() for experiment in known.experiments)
    incomplete = _require_runs(experiments, project, source, offer_committed=archive is None)
    environment = _environment(project, archive, requests)

    def build_one(name: str) -> list[Path]:
        messages = [incomplete[experiment] for experiment in headers[name].experiments if incomplete[experiment]]
        return _build_one(name, project, output, environment, messages)

    # The notebook libraries cause deprecation warnings among themselves.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(PARALLEL) as pool:
        written = list(pool.map(build_one, names))
    in_order = sorted(known_reports(project), key=lambda name: (header(name, project).order, name))
    index = output / "index.html"
    write_all({index: index_page(project, output, in_order)})
    return [*(path for files in written for path in files), index]


def known_reports(project: Project) -> list[str]:
    """The reports of a project, in alphabetical order."""
    return sorted(path.stem for path in project.reports.glob("*.py"))


def _require_runs(
    experiments: Iterable[str], project: Project, source: ResultsSource, *, offer_committed: bool
) -> dict[str, str]:
    """The `Study.missing_message` of each experiment.

    Raises `MissingRuns`, which names all the sweeps to launch, when some of the experiments have no runs.
    """
    incomplete: dict[str, str] = {}
    errors: dict[str, MissingRuns] = {}
    for experiment in experiments:
        try:
            incomplete[experiment] = load_study(experiment, project, source).missing_message
        except MissingRuns as error:
            errors[experiment] = error
    if not errors:
        return incomplete
    committed = offer_committed and (project.reports / "data" / MANIFEST).is_file()
    hint = "; or redraw from the committed results with `rnnstudy report --from reports/data`" if committed else ""
    if len(errors) == 1:
        raise MissingRuns(f"{next(iter(errors.values()))}{hint}")
    sweeps = ", ".join(f"`rnnstudy sweep experiments/{experiment}.py`" for experiment in errors)
    raise MissingRuns(f"there are no runs of {', '.join(errors)}; run {sweeps} first{hint}")


def _require_source(name: str, project: Project) -> Path:
    source = project.reports / f"{name}.py"
    if not source.is_file():
        names = known_reports(project)
        known = f"Reports here: {', '.join(names)}" if names else f"There are no reports in {project.reports}"
        raise RequestError(f"there is no report '{name}'{nearest(name, names) or ';'} {known}")
    return source


def header(name: str, project: Project) -> Header:
    """The header of the report `name`. Raises `ReportError` for fields or values that it may not have."""
    with warnings.catch_warnings(action="ignore"):
        fields = _read(_require_source(name, project)).metadata.get("rnnstudy", {})
    own = [name] if (project.root / "experiments" / f"{name}.py").is_file() else []
    order, experiments = fields.get("order", LAST), fields.get("experiments", own)
    valid = isinstance(order, int | float) and isinstance(experiments, list) and set(fields) <= {"order", "experiments"}
    if not valid or not all(isinstance(experiment, str) for experiment in experiments):
        raise ReportError(
            f"{project.reports / name}.py: its header may hold `order`, a number, and `experiments`, a list of names; "
            f"not {dict(fields)}"
        )
    return Header(float(order), tuple(experiments))


def _build_one(
    name: str, project: Project, output: Path, environment: Mapping[str, str], incomplete: Sequence[str]
) -> list[Path]:
    figure_files = output / "figures" / name
    with tempfile.TemporaryDirectory(prefix="rnnstudy-report-") as folder:
        temporary = Path(folder) / "figures"
        temporary.mkdir()
        source = _require_source(name, project)
        notebook = _read(source)
        _execute(notebook, source, Path(folder), environment, incomplete)
        _tidy(notebook, project)
        contents = {
            output / f"{name}.ipynb": (nbformat.writes(notebook).rstrip("\n") + "\n").encode(),
            output / f"{name}.html": notebook_page(notebook, name),
        }
        drawn = sorted(path for path in temporary.rglob("*") if path.is_file())
        contents |= {figure_files / path.relative_to(temporary): path.read_bytes() for path in drawn}
    written = write_all(contents)
    # A figure that the notebook no longer draws must not be taken for one of this build.
    for path in figure_files.glob("*"):
        if path.is_file() and path not in contents:
            path.unlink()
    return written


def _read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a percent script, with stable cell identifiers."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number:02d}"
    return notebook


def _execute(
    notebook: nbformat.NotebookNode, source: Path, folder: Path, environment: Mapping[str, str], missing: Sequence[str]
) -> None:
    """Run all cells in place. Raises `ReportError` for the first cell that fails.

    Its message includes `missing`, which names the missing runs: they are the most likely cause.
    """
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=_ThisPython(), connection_file=str(folder / "kernel.json")
        ),
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(source.parent)}},
    )
    name, unchanged = source.stem, "the files built before are unchanged"
    try:
        # Not client.execute(): it makes an event loop for its thread and never closes it.
        own = {FIGURES: str(folder / "figures"), "IPYTHONDIR": str(folder / "ipython")}
        asyncio.run(client.async_execute(env={**environment, **own}, cleanup_kc=True))
    except CellExecutionError as error:
        # Without the escape codes for terminal colours.
        message = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}").split())
        reasons = "; ".join([message, *missing, unchanged])
        raise ReportError(f"report '{name}' stopped in {_stopped_in(notebook)}: {reasons}") from None
    except CellTimeoutError:
        stopped = f"report '{name}' was stopped after {CELL_SECONDS} s in one cell"
        raise ReportError(f"{stopped}; compute less in the notebook; {unchanged}") from None
    except DeadKernelError:
        raise ReportError(
            f"the Python process that ran report '{name}' died, perhaps because memory ran out; {unchanged}"
        ) from None


class _ThisPython(KernelSpecManager):
    """Names this Python as the kernel, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def _environment(project: Project, archive: Path | None, requests: Path | None) -> dict[str, str]:
    """The environment of notebooks: this project and its results, no telemetry, no display, no personal settings."""
    return {
        **os.environ,
        "RNNSTUDY_HOME": str(project.root),
        ARCHIVE: str(archive.resolve()) if archive else "",
        REQUESTS: str(requests) if requests else "",
        "JUPYTER_PLATFORM_DIRS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Progress bars warn about a missing widget library; the notebook draws none.
        "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"])),
    }


def _stopped_in(notebook: nbformat.NotebookNode) -> str:
    """Number and first line of the cell with the error."""
    for number, cell in enumerate(notebook.cells, start=1):
        if any(output.output_type == "error" for output in cell.get("outputs", ())):
            first = next((line for line in cell.source.splitlines() if line.strip()), "")
            return f"cell {number} ({first.strip()})"
    return "a cell"


def _tidy(notebook: nbformat.NotebookNode, project: Project) -> None:
    """Remove from metadata and texts what depends on the machine, the folder and the time."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(str(project.root), ".").replace(sys.prefix, "…")
