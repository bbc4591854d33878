"""Where a benchmark's numbers go: a file for each, with the machine they were measured on."""

import json
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def write_results(name: str, found: Any) -> Path:
    """Write `found` to benchmarks/results/<name>.json."""
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "results": found}, indent=1) + "\n", encoding="utf-8")
    return path
