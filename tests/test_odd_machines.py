"""Machines as batch systems and containers have them: an ASCII locale, nowhere to cache kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
from numba import float64
from numba.core import caching
for one in vars(caching).values():
    if isinstance(one, type) and issubclass(one, caching.CacheImpl):
        one._locator_classes = [caching.UserProvidedCacheLocator]
from rnnstudy.engines.numba_kernels.compiling import kernel
@kernel(float64(float64))
def twice(x):
    return 2 * x
print(twice(2.0))
"""


def compiled(tmp_path: Path, temporary: str) -> "subprocess.CompletedProcess[str]":
    program = tmp_path / "program.py"
    program.write_text(KERNEL)
    # A folder that not even root can make.
    nowhere = {"NUMBA_CACHE_DIR": "/proc/nowhere", "TMPDIR": temporary}
    return subprocess.run([sys.executable, str(program)], env=os.environ | nowhere, capture_output=True, text=True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no folder that nobody can write")
def test_kernels_are_cached_in_a_private_temporary_folder_where_nothing_else_can_be_written(tmp_path: Path) -> None:
    done = compiled(tmp_path, str(tmp_path))
    assert (done.stdout, done.returncode, done.stderr) == ("4.0\n", 0, "")
    (folder,) = tmp_path.glob("rnnstudy-kernels-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("*.nbi"))
    # A folder that others can write is not trusted: what lies in it would be executed.
    folder.chmod(0o777)
    done = compiled(tmp_path, str(tmp_path))
    assert (done.stdout, done.returncode) == ("4.0\n", 0)
    assert done.stderr.count("kernels are compiled anew in each process") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_ascii_locale_ends_no_command(project: Path, encoding: str) -> None:
    program = (
        "import sys\nfrom rnnstudy.cli import commands\nfrom rnnstudy.cli.common import say\n"
        "commands.app = lambda **_: say('10⁻³ – ≥')\ncommands.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"10")
