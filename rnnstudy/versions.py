"""Which source is checked out."""

import subprocess
from pathlib import Path


def commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, or None outside a repository."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
