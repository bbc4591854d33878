"""Which source is checked out."""

import subprocess
from pathlib import Path

CHANGED = "+changes"
"""What is said after a commit when the source is not the one committed."""

_WRITTEN = ("mlruns", "reports/data", "reports/figures", "reports/*.html", "reports/*.ipynb")
"""What the project's own commands write: building a report does not change what it was built with."""


def checked_out_commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, or None outside a repository.

    `CHANGED` follows it where files below `folder` differ from the commit: tracked ones, or Python files that are not
    in it. What this package writes itself (stores, figures, pages) does not count.
    """
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    others = [f":(exclude,glob){path}" for written in _WRITTEN for path in (written, f"{written}/**")]
    states = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".", *others)
    # A state that cannot be told is not vouched for.
    changed = states is None or any(_counts(line) for line in states.splitlines())
    return head.strip() + (CHANGED if changed else "")


def repository(folder: Path) -> Path | None:
    """The root of the repository that `folder` lies in, if there is one."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return None if top is None else Path(top.strip())


def _counts(line: str) -> bool:
    """Whether a line of `git status --porcelain` tells of a change to the source."""
    return not line.startswith("??") or line.rstrip('"').endswith(".py")


def _git(folder: Path, *command: str) -> str | None:
    """What git says, or None where it fails or there is none."""
    # Asked for a state, git would refresh its index, and stand in the way of a commit that goes on beside it.
    asking = ["git", "--no-optional-locks", "-C", str(folder), *command]
    try:
        asked = subprocess.run(asking, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout if asked.returncode == 0 else None
