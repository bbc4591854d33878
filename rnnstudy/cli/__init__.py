"""The command line. Thin: each command imports what it needs and calls it, so that --help answers at once.

What comes in: words typed. What goes out: calls of the other wings, tables, one line and exit code 2 for bad input.
Begin with `commands.py`; `sweep.py` holds the command `sweep`, `tables.py` and `progress.py` what is printed.
"""

from rnnstudy.cli import sweep  # noqa: F401  (registers the command)
from rnnstudy.cli.commands import app, main

__all__ = ["app", "main"]
