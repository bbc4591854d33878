"""Where a benchmark's numbers are kept: a JSON file for each, with the machine they were measured on."""

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

FOLDER = Path(__file__).parent / "results"


def write_results(name: str, results: list[dict[str, Any]], **more: Any) -> None:
    """Write benchmarks/results/<name>.json."""
    FOLDER.mkdir(exist_ok=True)
    content = {"machine": machine(), "results": results, **more}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_results(name: str) -> dict[str, Any] | None:
    """What `write_results` wrote; None where it was not measured."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
