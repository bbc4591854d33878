"""What a run is, for people: a paragraph in words, a drawing of its task, and the documents beside its arrays.

Plain texts and values: they are made where the run is trained, and can be stored in a file first.
"""

import doctest
import functools
import inspect
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from rnnstudy.run import Run
from rnnstudy.spec import Spec, canonical, digest, field_values, qualified_name
from rnnstudy.tasks.task import Task

NOTE = "mlflow.note.content"
"""MLflow's tag for the description of a run or an experiment, in Markdown."""

SPECIFICATION, ENVIRONMENT, DRAWING = "spec.json", "environment.json", "task.txt"

PACKAGES = ("rnnstudy", "torch", "numpy", "scipy", "numba", "triton", "mlflow", "optuna")
"""The packages that compute a run's numbers, or store them."""


def note(run: Run, command: str = "") -> str:
    """The description of a run's page, in Markdown: the paragraph, the task's drawing, the command that repeats it."""
    parts = [paragraph(run)]
    if drawn := drawing(run.task):
        parts.append(f"An example of the task (at a small length):\n\n```\n{drawn}\n```")
    if command:
        parts.append(f"To repeat it: `{command}`")
    return "\n\n".join(parts)


def paragraph(run: Run) -> str:
    """What the run is, in words. Fields that are not named have their default."""
    training, task = run.training, run.task
    kind = "bidirectional layer" if run.bidirectional else "layer"
    layers = f"{run.layers} {kind}s" if run.layers > 1 else f"One {kind}"
    embedded = "" if run.embedding is None else f" on an embedding of width {run.embedding}"
    clipped = f"clipped ({in_words(training.clip, whole=True)})" if training.clip is not None else "not clipped"
    all_methods = (training.weight_decay, training.omega, *training.cuts, training.constant_norm)
    methods = [in_words(method) for method in all_methods if method is not None]
    further = f", with {' and '.join(methods)}" if methods else ""
    data = "" if run.data_seed is None else f", sequences of seed {run.data_seed}"
    measured = "; ".join(in_words(probe) for probe in run.probes)
    cell, optimiser = in_words(run.cell, always="width"), in_words(training.optimiser)
    criterion, guess = task.criterion, task.chance.error
    around = "" if run.block is None else f", in a block ({in_words(run.block)})"
    sentences = [
        f"{layers} of {cell}{embedded}{around}, initialised by {in_words(run.initialisation)},",
        f"learns {in_words(task, without='length')} at T = {task.length}.",
        summary(type(task)),
        f"(Task: {type(task).source}.)",
        f"It makes at most {training.steps} updates of {training.batch} sequences by {optimiser} at learning rate",
        f"{training.learning_rate:g} ({in_words(training.schedule)}), gradient {clipped}{further}.",
        f"Solved means: {criterion.words}.",
        f"The best guess that ignores the input attains: {criterion.error} {guess:.3g}.",
        f"Measured: {measured or 'nothing'}.",
        f"Seed {run.seed}{data}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def summary(described: type) -> str:
    """The first paragraph of a class's docstring, in one line; empty where it has none of its own."""
    own = inspect.getdoc(described) if "__doc__" in vars(described) else None
    return (own or "").partition("\n\n")[0].replace("\n", " ")


def drawing(task: Task) -> str:
    """The example that the task's docstring draws: what its doctest prints. Empty where there is none."""
    text = inspect.getdoc(type(task)) or ""
    return "".join(example.want for example in doctest.DocTestParser().get_examples(text)).rstrip()


def in_words(spec: Spec, *, without: str = "", always: str = "", whole: bool = False) -> str:
    """`temporal order (length 50)`: a specification's name and its fields that are not the default.

    A name of one word keeps its capital. The field `always` is included, `without` is left out; `whole` includes all.
    """
    words = _split(type(spec).__name__, " ")
    described = canonical(spec, frozenset())
    stated = {**described["fields"], **described.get("located", {})}
    included = {always, *(field_values(spec) if whole else stated)}
    fields = {field: value for field, value in field_values(spec).items() if field in included and field != without}
    inside = ", ".join(f"{field.replace('_', ' ')} {_worded(value)}" for field, value in fields.items())
    return f"{words} ({inside})" if inside else words


def _split(name: str, between: str) -> str:
    """`TemporalOrder` → `temporal order`; `LSTM`, `Elman` and the name PyTorch stay as they are."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", between, name.replace("PyTorch", "Pytorch"))
    return (words.lower() if between in words else words).replace("pytorch", "PyTorch").replace("Pytorch", "PyTorch")


def _worded(value: Any) -> str:
    if isinstance(value, Spec):
        return in_words(value)
    if isinstance(value, tuple):
        return " ".join(map(_worded, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_documents(run: Run) -> dict[str, str]:
    """File name to text: the specification as JSON, where it was trained, and the task's docstring."""
    specification = {"key": run.key, "specification": run.described, "probes": canonical(run.probes)}
    task = f"{in_words(run.task)}\n\n{inspect.getdoc(type(run.task)) or 'This task has no docstring.'}\n"
    return {
        SPECIFICATION: json.dumps(specification, indent=2, ensure_ascii=False) + "\n",
        ENVIRONMENT: json.dumps(environment(), indent=2) + "\n",
        DRAWING: task,
    }


@functools.cache
def environment() -> Mapping[str, Any]:
    """Versions and machine of this process, and the environment variables that set devices and threads."""
    settings = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "PYTHONHASHSEED")
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "system": platform.platform(),
        "machine": platform.machine(),
        # Sums over vectors of other widths are rounded differently.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "variables": {name: os.environ[name] for name in settings if name in os.environ},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def data_set(run: Run) -> dict[str, Any]:
    """Which sequences a run sees: their generator and its seed determine them, so none is drawn.

    Runs that see the same sequences have equal `digest`s, whatever their cell.
    """
    task, seed = run.task, run.effective_data_seed
    described = canonical(task)
    return {
        "name": f"{_split(type(task).__name__, '-').lower()}-T{task.length:04d}",
        "digest": digest([described, seed]),
        "generator": qualified_name(type(task)),
        "task": described,
        "seed": seed,
        "steps": task.steps,
        "features": task.features,
        "symbols": task.inputs_are_symbols,
        "outputs": task.outputs,
    }
