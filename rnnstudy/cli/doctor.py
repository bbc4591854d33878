"""`rnnstudy doctor`: what this machine has, and what is wrong with it or with the store, each with its remedy."""

import importlib.util
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from rnnstudy.spec import RnnstudyError
from rnnstudy.store.project import Project

Verdict = Literal["ok", "note", "wrong"]

REQUIRED = ("rnnstudy", "torch", "numpy", "numba", "mlflow", "optuna", "pandas", "seaborn", "click", "rich")
OPTIONAL = {"ray": "pip install 'rnnstudy[ray]'", "triton": "comes with torch for CUDA"}

PYTHON = ((3, 11), (3, 14))
"""The first version that serves, and the first that is untested."""

BYTES_FREE = 1e9
"""With less room on the store's disk a sweep may end early."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `found` says what is there, `remedy` what to do about it, if anything."""

    about: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(project: Project) -> Iterator[Finding]:
    """Look at Python, packages, processors, GPU, kernels, store, and what earlier sweeps left. Changes nothing."""
    parts: list[Callable[[Project], Iterator[Finding]]] = [
        _python, _packages, _processors, _gpu, _kernels, _disk, _store, _left_behind,
    ]  # fmt: skip
    for part in parts:
        yield from part(project)


def findings_table(findings: list[Finding]) -> Table:
    """A row for each finding: a cross where something is wrong, a dot where there is something to know."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for whole in (True, True, False):
        table.add_column(no_wrap=whole, overflow="fold")
    for finding in findings:
        sign = {"ok": "", "note": "·", "wrong": "✗"}[finding.verdict]
        found = Text(finding.found)
        table.add_row(sign, finding.about, found + Text(f"\n→ {finding.remedy}") if finding.remedy else found)
    return table


def documents(findings: list[Finding]) -> list[dict[str, Any]]:
    """The findings as plain values."""
    return [asdict(finding) for finding in findings]


def _python(_: Project) -> Iterator[Finding]:
    first, untested = PYTHON
    found = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < first:
        yield Finding("Python", "wrong", found, f"install Python {first[0]}.{first[1]} or later")
    elif sys.version_info >= untested:
        yield Finding("Python", "note", found, f"untested; {first[0]}.{first[1]} to 3.{untested[1] - 1} are tested")
    else:
        yield Finding("Python", "ok", found)


def _packages(_: Project) -> Iterator[Finding]:
    missing = [name for name in REQUIRED if not _version(name)]
    there = ", ".join(f"{name} {_version(name)}" for name in REQUIRED if name not in missing)
    if missing:
        remedy = f"pip install {' '.join(missing)}, with the versions in constraints.txt"
        yield Finding("packages", "wrong", f"{there}; not installed: {', '.join(missing)}", remedy)
    else:
        yield Finding("packages", "ok", there)
    for name, remedy in OPTIONAL.items():
        yield Finding(name, "ok", _version(name) or f"not installed; optional ({remedy})")


def _version(package: str) -> str:
    try:
        return metadata.version(package) if importlib.util.find_spec(package) else ""
    except metadata.PackageNotFoundError:
        return "from source"


def _processors(_: Project) -> Iterator[Finding]:
    import psutil

    from rnnstudy.cli.tables import size
    from rnnstudy.training.devices import default_workers

    memory = psutil.virtual_memory()
    workers = default_workers("cpu")
    found = f"{workers} cores to use, {size(memory.available)} of {size(memory.total)} memory free"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = "other programs are using the cores; --workers takes fewer" if load > 1.5 * workers else ""
    yield Finding("processors", "note" if busy else "ok", f"{found}, load {load:.1f}", busy)


def _gpu(_: Project) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        yield Finding("GPU", "ok", ", ".join(f"{count} × {name}" for name, count in names.items()))
    elif torch.version.cuda:
        remedy = "look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", "note", "torch can use CUDA, but finds no GPU; runs train on the CPU", remedy)
    else:
        yield Finding("GPU", "ok", "none that this torch can use; runs train on the CPU")


def _kernels(_: Project) -> Iterator[Finding]:
    from rnnstudy.engines.compiled import BLOCKS, CompiledEngine

    if not _version("numba"):
        yield Finding("kernels", "note", "without numba the reference engine trains, several times slower")
        return
    missing = [cell.__name__ for cell in BLOCKS if CompiledEngine().compiles(cell())]
    if missing:
        yield Finding("kernels", "note", f"not compiled yet: {', '.join(missing)}", "the first sweep compiles them")
    else:
        yield Finding("kernels", "ok", "compiled")


def _disk(project: Project) -> Iterator[Finding]:
    from rnnstudy.cli.tables import size

    folder = next(path for path in (project.mlruns, *project.mlruns.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    little = free < BYTES_FREE
    yield Finding("disk", "wrong" if little else "ok", f"{size(free)} free at {folder}", "make room" if little else "")


def _store(project: Project) -> Iterator[Finding]:
    from rnnstudy.store.mlflow_store import Store

    try:
        store = Store(project)
        where = str(store.database or store.uri)
        if not store.exists:
            remedy = "rnnstudy sweep experiments/quickstart.py makes it"
            yield Finding("store", "note", f"none yet at {where}", remedy)
            return
        store.require_writable()
        states = Counter(run.state for run in store.runs())
        if store.database is None:
            assert store.client is not None
    except RnnstudyError as error:
        yield Finding("store", "wrong", str(error))
        return
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no runs"
    yield Finding("store", "ok", f"{where}: {counted}")
    if failed := states["failed"]:
        yield Finding("failed runs", "note", str(failed), "rnnstudy list FILE names them; the same sweep tries again")


def _left_behind(project: Project) -> Iterator[Finding]:
    waiting = sorted(path for path in project.offline.glob("*") if path.is_dir() and any(path.iterdir()))
    if waiting:
        remedy = f"rnnstudy sync {' '.join(map(str, waiting))}"
        yield Finding("offline runs", "note", f"{len(waiting)} folders that may not be in the store", remedy)
    if checkpoints := list(project.checkpoints.glob("*.pt")):
        remedy = "the same rnnstudy sweep continues them"
        yield Finding("checkpoints", "note", f"{len(checkpoints)} interrupted populations", remedy)
