"""Hashes of the code of tasks, cells and probes, by which a reuse of results across changed code is noticed."""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Mapping


@functools.cache
def code_hash(*classes: type) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the code of `classes`, without docstrings and comments.

    A corrected sentence therefore changes no hash. The source is read once: what was loaded is what runs, even if the
    file changes later. Raises `OSError` or `TypeError` for a class without a source file.
    """
    texts = []
    for cls in classes:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        texts.append(ast.unparse(tree))
    return _digest(texts)


def text_hash(*classes: type) -> str:
    """The hash that runs were stored with before 2026-12: of the whole source text, with docstrings and comments."""
    return _digest([inspect.getsource(cls) for cls in classes])


def changed_since(cls: type, stored: str) -> bool:
    """Whether the code of `cls` differs from the code that the hash `stored` was made of, by either way of hashing."""
    return code_hash(cls) not in (stored, EQUIVALENT.get(stored)) and text_hash(cls) != stored


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


EQUIVALENT: Mapping[str, str] = {}
"""Text hash, as stored before 2026-12, to the code hash of the same class when hashing changed: docstrings were
rewritten and helpers renamed in that change, and what the classes compute stayed as it was."""
