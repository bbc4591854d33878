"""Compiles generated C, once on a machine, and calls it.

The libraries lie beside this package or, where that cannot be written, in a private temporary folder; what lies there
is executed, so that a folder that others may write is not used. Their names tell source, compiler and processor.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnstudy.engines.compiled import COMPILING

logger = logging.getLogger("rnnstudy")

COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-shared", "-fPIC")
FOR_THIS_PROCESSOR = ("-march=native",)
"""Left out where the compiler does not know it."""

LIMIT = 120
"""Seconds that the compiler may take, and that another process waits for it."""


class CompilingError(Exception):
    """Why no library could be made, in words."""


def compiler() -> str | None:
    """The C compiler: the one that CC names, or the first of the usual ones that is installed; None without any."""
    asked = os.environ.get("CC", "")
    return next((found for one in (asked, *COMPILERS) if one and (found := shutil.which(one))), None)


def library_path(text: str) -> Path:
    """Where the library of this source is, or would be once it is compiled."""
    asked = "\n".join([text, str(compiler()), *OPTIONS, *FOR_THIS_PROCESSOR, _processor()])
    return _folder() / f"step-{hashlib.sha256(asked.encode()).hexdigest()[:24]}.so"


@functools.cache
def library(text: str, words: str) -> ctypes.CDLL:
    """The library of this source. When it is compiled first, that is logged: the kernels of `words`.

    Raises `CompilingError`.
    """
    path = library_path(text)
    if not path.exists():
        _compile(text, path, words)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompilingError(f"the compiled step cannot be loaded: {error}") from error


def _compile(text: str, path: Path, words: str) -> None:
    if (program := compiler()) is None:
        raise CompilingError("there is no C compiler (cc, gcc or clang)")
    lock = path.with_suffix(".lock")
    # Of several workers that begin together, one compiles and the others wait.
    if not _locked(lock):
        began = time.monotonic()
        while lock.exists() and time.monotonic() - began < LIMIT:
            time.sleep(0.05)
        if path.exists():
            return
    _announce(words)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            source, made = Path(folder, "step.c"), Path(folder, "step.so")
            source.write_text(text, encoding="utf-8")
            failed = ""
            for options in ((*OPTIONS, *FOR_THIS_PROCESSOR), OPTIONS):
                failed = _failure([program, *options, "-o", str(made), str(source), "-lm"])
                if not failed:
                    os.replace(made, path)
                    return
            raise CompilingError(f"the C compiler failed: {failed}")
    finally:
        lock.unlink(missing_ok=True)


@functools.cache
def _announce(words: str) -> None:
    """Log, once for each cell, that its kernels are compiled: for each of its sizes that takes a second or two."""
    logger.warning("%s%s, once on this machine: a few seconds", COMPILING, words)


def _locked(lock: Path) -> bool:
    """Whether this process may compile: no other is at it, or has been for too long."""
    try:
        if lock.exists() and time.time() - lock.stat().st_mtime > LIMIT:
            lock.unlink(missing_ok=True)
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    except OSError:
        return False


def _failure(command: Sequence[str]) -> str:
    """What the compiler complained of, in one line; empty when it worked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else next((line for line in lines if "error" in line), f"code {done.returncode}")


@functools.cache
def _folder() -> Path:
    """A folder for libraries that this user alone can write."""
    user = getattr(os, "getuid", lambda: 0)()
    beside = Path(__file__).parent / "__pycache__" / "steps"
    for folder in (beside, Path(tempfile.gettempdir()) / f"rnnstudy-steps-{user}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        own = stat.S_ISDIR(status.st_mode) and status.st_uid in (user, 0) and not status.st_mode & 0o022
        if own and os.access(folder, os.W_OK):
            return folder
    # Compiled again by each process.
    return Path(tempfile.mkdtemp(prefix="rnnstudy-steps-"))


@functools.cache
def _processor() -> str:
    """What tells processors apart for which code is compiled."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(("flags", "Features"))})])


def call(function: ctypes._CFuncPtr, *arguments: int | np.ndarray | ctypes.Array) -> None:
    """Call a kernel; arrays are passed by address. Raises `MemoryError` when it finds no memory."""
    passed = [
        one.ctypes.data_as(ctypes.c_void_p) if isinstance(one, np.ndarray) else
        one if isinstance(one, ctypes.Array) else ctypes.c_long(one)
        for one in arguments
    ]  # fmt: skip
    if function(*passed):
        raise MemoryError("no memory for a step's scratch numbers")


def addresses(arrays: Sequence[np.ndarray]) -> ctypes.Array:
    """The arrays as C takes them: an array of pointers. The arrays must outlive it."""
    return (ctypes.c_void_p * max(1, len(arrays)))(*(one.ctypes.data for one in arrays))
