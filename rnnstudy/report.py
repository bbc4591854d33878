"""Reports: notebooks run by this very Python, written with their outputs, as a web page, and beside their figures.

The source of a report is `reports/<name>.py`, a notebook in jupytext's percent format, which begins with
`rnnstudy.notebook.Notebook(name)`. What it says about itself is its `Header`.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnstudy import figures
from rnnstudy.home import Home
from rnnstudy.notebook import FIGURES, stored_keys
from rnnstudy.spec import SpecError, nearest

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_SECONDS = 900

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


def build(names: Iterable[str], home: Home) -> list[Path]:
    """Run the notebook of each named report; write its .ipynb with outputs, its .html and its figures.

    Returns the files written. Building one twice from the same store gives the same bytes. Raises `SpecError` for an
    unknown report, an experiment without runs in the store, and an error within a notebook; the outputs of the report
    stay as they were then.
    """
    names = list(names)
    for name in names:
        _require_source(name, home)
        _require_runs(name, home)
    return [path for name in names for path in _build_one(name, home)]


def _require_source(name: str, place: Home) -> Path:
    source = place.reports / f"{name}.py"
    if not source.is_file():
        known = sorted(path.stem for path in place.reports.glob("*.py"))
        there = f"Reports here: {', '.join(known)}" if known else f"There are no reports in {place.reports}"
        raise SpecError(f"there is no report '{name}'{nearest(name, known) or ';'} {there}")
    return source


def header(name: str, place: Home) -> Header:
    """What the report `name` says about itself. Raises `SpecError` for something else than an order and names."""
    with _quiet():
        told = _read(_require_source(name, place)).metadata.get("rnnstudy", {})
    own = [name] if (place.root / "experiments" / f"{name}.py").is_file() else []
    order, experiments = told.get("order", LAST), told.get("experiments", own)
    sound = isinstance(order, int | float) and isinstance(experiments, list) and set(told) <= {"order", "experiments"}
    if not sound or not all(isinstance(one, str) for one in experiments):
        raise SpecError(
            f"{place.reports / name}.py: its header may hold `order`, a number, and `experiments`, a list of names; "
            f"not {dict(told)}"
        )
    return Header(float(order), tuple(experiments))


def _require_runs(name: str, place: Home) -> None:
    """Every experiment that a report is about must have runs."""
    for experiment in header(name, place).experiments:
        stored_keys(experiment, place)


def _build_one(name: str, place: Home) -> list[Path]:
    source = _require_source(name, place)
    figure_files = place.reports / "figures" / name
    with tempfile.TemporaryDirectory(prefix="rnnstudy-report-") as folder, _quiet():
        aside = Path(folder) / "figures"
        aside.mkdir()
        notebook = _read(source)
        _execute(notebook, name, place, Path(folder))
        _tidy(notebook, place)
        contents = {
            place.reports / f"{name}.ipynb": _as_notebook(notebook),
            place.reports / f"{name}.html": _as_page(notebook, name),
        }
        drawn = sorted(path for path in aside.rglob("*") if path.is_file())
        contents |= {figure_files / path.relative_to(aside): path.read_bytes() for path in drawn}
    written = figures.write_all(contents)
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


def _execute(notebook: "NotebookNode", name: str, place: Home, folder: Path) -> None:
    """Run all cells in place; raises `SpecError` in one line for the first that fails."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        km=_kernel_manager(folder),
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(place.reports)}},
    )
    unchanged = "what was built before is unchanged"
    try:
        client.execute(env=_environment(place, folder), cleanup_kc=True)
    except CellExecutionError as error:
        message = " ".join(_plain(f"{error.ename}: {error.evalue}").split())
        raise SpecError(f"report '{name}' stopped in {_stopped_in(notebook)}: {message}; {unchanged}") from None
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


def _environment(place: Home, folder: Path) -> dict[str, str]:
    """The environment of the notebook: this project, no telemetry, no display, no personal settings."""
    return {
        **os.environ,
        "RNNSTUDY_HOME": str(place.root),
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


def _tidy(notebook: "NotebookNode", place: Home) -> None:
    """Keep of the metadata and the texts what does not depend on machine, folder and time."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(str(place.root), ".").replace(sys.prefix, "…")


def _as_notebook(notebook: "NotebookNode") -> bytes:
    import nbformat

    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def _as_page(notebook: "NotebookNode", name: str) -> bytes:
    """One file that needs nothing else: pictures inside, code folded away."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(
        template_name="basic",
        template_file="report.html.j2",
        extra_loaders=[DictLoader({"report.html.j2": _TEMPLATE})],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    parts: Mapping[str, str] = {
        "title": _title(notebook) or name,
        "style": _STYLE + HtmlFormatter(style="default").get_style_defs(".highlight"),
        "body": body,
    }
    return _PAGE.format(**parts).encode()


def _title(notebook: "NotebookNode") -> str:
    """The first heading."""
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", texts, re.MULTILINE)
    return heading[1] if heading else ""


_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{%- block input -%}
<details class="code"><summary>code</summary>{{ cell.source | highlight_code(metadata=cell.metadata) }}</details>
{%- endblock input -%}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
body { margin: 0; background: #fff; color: #1a1a1a; font: 17px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.4rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.7rem; text-align: right; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
.output_area, .output_html { overflow-x: auto; }
details.code { color: #666; font-size: 0.8rem; margin: 0.4rem 0; }
details.code pre { overflow-x: auto; background: #f6f6f6; padding: 0.7rem; border-radius: 4px; }
code { background: #f3f3f3; padding: 0.1em 0.25em; border-radius: 3px; }
blockquote { border-left: 4px solid #ccc; margin-left: 0; padding-left: 1rem; color: #444; }
"""
