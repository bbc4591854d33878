"""The commit that is checked out."""

import subprocess
from pathlib import Path

CHANGED = "+changes"
"""Follows the commit where the source differs from it."""

_WRITTEN = (
    *("mlruns", "reports/data"),
    *(f"{folder}/{part}" for folder in ("reports", "reports/course") for part in ("figures", "*.html", "*.ipynb")),
)
"""Files that the project's own commands write: building a report does not change the source it was built with."""


def checked_out_commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, or None outside a repository.

    `CHANGED` follows it where files below `folder` differ from the commit: tracked files, or Python files that are not
    tracked. Files that this package writes itself (stores, figures, pages) do not count.
    """
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    others = [f":(exclude,glob){path}" for written in _WRITTEN for path in (written, f"{written}/**")]
    states = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".", *others)
    # If git cannot say, the source counts as changed.
    changed = states is None or any(
        not line.startswith("??") or line.rstrip('"').endswith(".py") for line in states.splitlines()
    )
    return head.strip() + (CHANGED if changed else "")


def repository(folder: Path) -> Path | None:
    """The root of the repository that `folder` lies in, if there is one."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return None if top is None else Path(top.strip())


def _git(folder: Path, *command: str) -> str | None:
    """The output of git, or None where it fails or is not installed."""
    # With locks, `git status` would refresh its index, and block a commit that is made at the same time.
    arguments = ["git", "--no-optional-locks", "-C", str(folder), *command]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
