"""Run the benchmarks and write benchmarks/results/training_step.json: `make bench`."""

import json
import platform
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.training_step import compare
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM

RESULTS = Path(__file__).parent / "results" / "training_step.json"


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = [
        compare(cell, length, 20, replicas)
        for cell in (Elman(width=50), LSTM(width=50))
        for length in (50, 200)
        for replicas in (1, 8)
    ]
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    machine |= {"torch": torch.__version__, "threads": "1"}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "results": found}, indent=1) + "\n")
    table = Table(
        *("cell", "T", "replicas", "ms"),
        *("against the reference engine", "against torch.nn, nothing recorded", "against a loop with retain_grad"),
        box=None,
    )
    for one in found:
        ratios = [
            f"{r['median']:.1f} times faster ({r['lowest']:.1f} to {r['highest']:.1f})"
            for r in one["times_faster"].values()
        ]
        own = f"{one['milliseconds']['compiled']:.2f}"
        table.add_row(one["cell"], str(one["length"]), str(one["replicas"]), own, *ratios)
    console = Console(width=160)
    console.print(
        "A training step for each replica, batch 20, width 50, one CPU thread; the compiled engine records dL/ds_t"
    )
    console.print(table)


if __name__ == "__main__":
    main()
