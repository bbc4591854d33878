"""Hashes of the code of tasks, cells and probes, by which a reuse of results across changed code is noticed."""

import ast
import functools
import hashlib
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

from rnnstudy.run import Run
from rnnstudy.spec import Spec, qualified_name


def code_hashes(run: Run) -> dict[str, str]:
    """Qualified class name to code hash, for the classes of `run`'s task, cell, block and probes with a source file."""
    return {qualified_name(cls): code_hash(cls) for cls in _classes(run)}


def changed_classes(run: Run, stored: Mapping[str, str]) -> list[str]:
    """The classes of `run` whose code has changed since their hashes were `stored`, by qualified name."""
    named = {qualified_name(cls): cls for cls in _classes(run)}
    return [name for name, cls in named.items() if name in stored and changed_since(cls, stored[name])]


def _classes(run: Run) -> Iterator[type]:
    around = () if run.block is None else (run.block,)
    for cls in map(type, (run.task, run.cell, *around, *run.probes)):
        try:
            code_hash(cls)
        except (OSError, TypeError):
            # Typed at a prompt: such a class has no source file.
            continue
        yield cls


@functools.cache
def code_hash(*classes: type) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the code of `classes` and of the bases that they share
    code with, without docstrings and comments.

    A corrected sentence therefore changes no hash. The source is read once: the code that was loaded is the code that
    runs, even if the file changes later. Raises `OSError` or `TypeError` for a class without a source file.
    """
    return _digest([_code(inspect.getsource(part)) for cls in classes for part in _with_bases(cls)])


def _with_bases(cls: type) -> list[type]:
    """A class and the bases that share its code, but not the contract (`Task`, `Cell`, `Probe`): extending a contract
    changes no result."""
    return [cls, *(base for base in cls.__mro__[1:] if issubclass(base, Spec) and Spec not in (base, *base.__bases__))]


def _code(source: str) -> str:
    """Source text without texts that stand alone (docstrings of classes, functions and fields), comments and blank
    lines. It is cut and not printed anew from its syntax tree, since Python's versions print some trees differently."""
    source = textwrap.dedent(source)
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def text_hash(*classes: type) -> str:
    """The hash that runs were stored with before 2026-12: of the whole source text, with docstrings and comments."""
    return _digest([inspect.getsource(cls) for cls in classes])


def changed_since(cls: type, stored: str) -> bool:
    """Whether the code of `cls` differs from the code that the hash `stored` was made of, by either way of hashing."""
    return code_hash(cls) not in (stored, EQUIVALENT.get(stored)) and text_hash(cls) != stored


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


EQUIVALENT: Mapping[str, str] = json.loads(Path(__file__).with_name("equivalent_sources.json").read_text())
"""Hash as stored, to the code hash of the same class now, where what the class computes stayed as it was: text hashes
of before 2026-12, when docstrings were rewritten and helpers renamed, and code hashes of classes that were extended."""
