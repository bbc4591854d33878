"""Building reports: each notebook is run by this Python, and written with its outputs, as a web page, with its figures.

The source of a report is `reports/<name>.py`, a notebook in jupytext's percent format that begins with
`rnnstudy.report.Notebook(name)`. Its YAML header is described by `outline.Header`.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from rnnstudy.engines.compiled import COMPILING
from rnnstudy.report.notebook import ARCHIVE, FIGURES, PUBLISHED, REQUESTS
from rnnstudy.report.outline import Outline, header, known_reports, read_notebook, read_outline, require_source
from rnnstudy.report.pages import index_page, notebook_page
from rnnstudy.report.study import ReportError, load_study, open_source
from rnnstudy.results.archive import MANIFEST, ExportedExperiment, ReadingRequest, require_own_files, write_archive
from rnnstudy.results.source import MissingRuns, ResultsSource
from rnnstudy.spec import RequestError
from rnnstudy.store.project import Project
from rnnstudy.training.atomic import write_all

CELL_SECONDS = 900
"""The longest time that one cell may take."""

PARALLEL = 2
"""How many notebooks run at the same time."""


def build_reports(
    names: Iterable[str], project: Project, archive: Path | None = None, published: Path | None = None
) -> list[Path]:
    """Build the named reports and the index page in the project's folder `build/reports`.

    Each report is an .ipynb with outputs, an .html and its figures. With `archive`, a folder of committed results, the
    runs are read from there and not from the store; with `published`, the runs of that folder are read beside those of
    the store. The same runs give the same bytes. Returns the files written.

    Raises `RequestError` for an unknown report or a folder without results, `MissingRuns` for an experiment without
    runs, and `ReportError` when a notebook stops; the files of the report are unchanged then.
    """
    return _build(list(names), project, archive, project.built_reports, published=published)


def export(
    names: Iterable[str],
    project: Project,
    folder: Path,
    archive: Path | None = None,
    *,
    replace: bool = False,
    published: Path | None = None,
) -> list[Path]:
    """Build the named reports in the project's folder `reports`, and write the results they use into `folder`.

    If these are all reports, `folder` then holds exactly what they use; if only some, what it holds for the others
    stays. With `archive`, the runs are read from that folder of committed results; if it is `folder` itself, its files
    are not changed, and only the reports are built. With `published`, which may be `folder` too, its runs are drawn and
    written beside those of the store: a study may be trained on several machines, a part on each. Returns the files
    written.

    Raises what `build_reports` raises, and `RequestError` where a published study is larger than the one that would
    replace it (a larger scale, or more runs), unless `replace` is given.
    """
    names = list(names)
    if archive is not None and archive.resolve() == folder.resolve():
        return _build(names, project, archive, project.reports)
    experiments = {experiment for name in names for experiment in header(name, project).experiments}
    require_own_files(folder, experiments)
    source = open_source(project, archive, published)
    if not replace:
        for before in {folder.resolve(), (project.reports / "data").resolve()}:
            if (before / MANIFEST).is_file():
                _require_no_smaller(experiments, project, source, open_source(project, before))
    with tempfile.TemporaryDirectory(prefix="rnnstudy-export-") as temporary:
        file = Path(temporary) / "requests"
        file.touch()
        built = _build(names, project, archive, project.reports, file, published)
        requests = [ReadingRequest(*json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    experiments |= {request.experiment for request in requests}
    studies = {experiment: load_study(experiment, project, source) for experiment in sorted(experiments)}
    exported = {
        name: ExportedExperiment(study.command, study.results, study.searches) for name, study in studies.items()
    }
    return [*built, *write_archive(folder, exported, requests, add=set(names) != set(known_reports(project)))]


def _require_no_smaller(
    experiments: AbstractSet[str], project: Project, source: ResultsSource, published: ResultsSource
) -> None:
    """Raises `RequestError` for the first experiment of which `published` holds a larger study than `source`."""
    for experiment in sorted(experiments & set(published.complete_keys().values())):
        try:
            old, new = (load_study(experiment, project, one) for one in (published, source))
        except MissingRuns:
            # Of an experiment without runs, the build says which sweep to launch.
            continue
        if new.size < old.size:
            raise RequestError(
                f"the published study of experiments/{experiment}.py has {old.words}, and this one only {new.words}; "
                f"nothing was changed; `{old.command}` trains the rest, --replace publishes the smaller study"
            )


def _build(
    names: Sequence[str],
    project: Project,
    archive: Path | None,
    output: Path,
    requests: Path | None = None,
    published: Path | None = None,
) -> list[Path]:
    for option, given in {"--from": archive, "--published": published}.items():
        if given is not None and not given.is_dir():
            raise RequestError(f"{option}: {given} is no folder; `rnnstudy report --export DIR` writes one")
    source = open_source(project, archive, published)
    for name in names:
        require_source(name, project)
    with warnings.catch_warnings(action="ignore"):
        outline = read_outline(project)
    experiments = dict.fromkeys(experiment for name in names for experiment in outline.headers[name].experiments)
    incomplete = _require_runs(experiments, project, source, offer_committed=archive is None)
    environment = _environment(project, archive, requests, published)

    def build_one(name: str) -> list[Path]:
        messages = [
            incomplete[experiment] for experiment in outline.headers[name].experiments if incomplete[experiment]
        ]
        return _build_one(name, project, output, environment, messages, outline, present)

    present = {*names, *(name for name in outline.names if (output / f"{name}.html").is_file())}
    # The notebook libraries cause deprecation warnings among themselves.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(PARALLEL) as pool:
        written = list(pool.map(build_one, names))
    index = output / "index.html"
    write_all({index: index_page(project, output, outline)})
    return [*(path for files in written for path in files), index]


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


def _build_one(
    name: str,
    project: Project,
    output: Path,
    environment: Mapping[str, str],
    incomplete: Sequence[str],
    outline: Outline,
    present: Collection[str],
) -> list[Path]:
    figure_files = output / "figures" / name
    with tempfile.TemporaryDirectory(prefix="rnnstudy-report-") as folder:
        temporary = Path(folder) / "figures"
        temporary.mkdir()
        source = require_source(name, project)
        notebook = read_notebook(source)
        _execute(notebook, source, Path(folder), environment, incomplete)
        _tidy(notebook, project)
        contents = {
            output / f"{name}.ipynb": (nbformat.writes(notebook).rstrip("\n") + "\n").encode(),
            output / f"{name}.html": notebook_page(notebook, name, outline, present),
        }
        drawn = sorted(path for path in temporary.rglob("*") if path.is_file())
        contents |= {figure_files / path.relative_to(temporary): path.read_bytes() for path in drawn}
    written = write_all(contents)
    # A figure that the notebook no longer draws must not be taken for one of this build.
    for path in figure_files.glob("*"):
        if path.is_file() and path not in contents:
            path.unlink()
    return written


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


def _environment(
    project: Project, archive: Path | None, requests: Path | None, published: Path | None
) -> dict[str, str]:
    """The environment of notebooks: this project and its results, no telemetry, no display, no personal settings."""
    return {
        **os.environ,
        "RNNSTUDY_HOME": str(project.root),
        ARCHIVE: str(archive.resolve()) if archive else "",
        PUBLISHED: str(published.resolve()) if published else "",
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


def _compile_notice(output: nbformat.NotebookNode) -> bool:
    """Whether an output says only that kernels were compiled, as the first notebook on a machine does."""
    lines = output.text.splitlines() if output.output_type == "stream" else []
    return bool(lines) and all(line.startswith(COMPILING) for line in lines)


def _tidy(notebook: nbformat.NotebookNode, project: Project) -> None:
    """Remove from metadata and texts what depends on the machine, the folder and the time."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _compile_notice(output)]
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(str(project.root), ".").replace(sys.prefix, "…")
