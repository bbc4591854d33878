"""`make bench` and `make bench-full`: measure, write benchmarks/results/*.json, and bring the tables up to date."""

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import tables
from benchmarks.machine import machine, only_one_core
from benchmarks.results_file import read_results, write_results

SIZES = ((20, 50, 50), (20, 50, 200), (20, 50, 1000), (128, 128, 200))
REPLICAS = (1, 8, 32)
MOST = 8 * 1000 * 20 * 50
"""Replicas · steps · batch · width beyond which more replicas are left out: they take long and show nothing new."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="steps", choices=["steps", *OTHERS, "tables"], help=WHAT)
    parser.add_argument("--cells", nargs="+", default=tables.CELLS, choices=tables.CELLS, help="these; others stay")
    parser.add_argument("--essential", action="store_true", help="only the rows that stand in docs/speed.md")
    asked = parser.parse_args()
    if asked.what == "steps":
        measure_steps(asked.cells, asked.essential)
    elif asked.what != "tables":
        results = OTHERS[asked.what]()
        print(json.dumps(results, indent=1))
        write_results(asked.what, results)
    tables.write()


def measure_steps(names: Sequence[str], essential: bool) -> None:
    """Training steps against peers, on one core; then two threads against one."""
    cores = only_one_core()
    import torch

    from benchmarks import jax_scan, limits
    from benchmarks.training_step import compare, with_two_threads
    from rnnstudy import cells

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if not jax_scan.there():
        print("jax is not installed: its column is left out; the extra `bench` brings it")
    before = read_results("training_step")
    # Figures from two machines do not stand in one table.
    if before is None or before["machine"] != machine():
        before = {"results": [], "two_threads": []}
    rows = {tables.place(row): row for row in before["results"]}
    for cell, length, batch, replicas in planned(names, essential):
        width = next(width for size, width, _ in SIZES if size == batch)
        row = compare(getattr(cells, cell)(width=width), length, batch, replicas)
        rows[cell, length, batch, replicas] = row
        print(json.dumps(row), flush=True)
        # What is measured stays, whatever happens to the next one.
        kept = {name: before.get(name, []) for name in ("two_threads", "two_threads_alone")}
        write_results("training_step", in_order(rows.values()), **kept)
    os.sched_setaffinity(0, cores)
    threads = [row for row in before["two_threads"] if row["cell"] not in names]
    if len(cores) > 1:
        threads += [with_two_threads(getattr(cells, name)(width=50), 200, 20, 8) for name in names]
    alone = limits.with_two_threads() if len(cores) > 1 else []
    write_results("training_step", in_order(rows.values()), two_threads=in_order(threads), two_threads_alone=alone)


def planned(names: Sequence[str], essential: bool) -> list[tuple[str, int, int, int]]:
    """(cell, T, batch, replicas) of the comparisons, those of docs/speed.md first."""
    first = [place for place in tables.ESSENTIAL if place[0] in names]
    if essential:
        return first
    others = [
        (name, t, b, k) for name in names for b, h, t in SIZES for k in REPLICAS if k == 1 or k * b * h * t <= MOST
    ]
    return [*first, *(place for place in others if place not in first)]


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """By cell, sizes, replicas."""
    order = {name: place for place, name in enumerate(tables.CELLS)}
    return sorted(rows, key=lambda row: (order[row["cell"]], row.get("batch", 0), row["length"], row["replicas"]))


def growth() -> list[dict[str, Any]]:
    only_one_core()
    import torch

    from benchmarks.growth import grow
    from rnnstudy import cells

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return [row for name in tables.CELLS for row in grow(getattr(cells, name)(width=50))]


def outcomes() -> list[dict[str, Any]]:
    only_one_core()
    import torch

    from benchmarks.outcomes import all_cells

    torch.set_num_threads(1)
    return all_cells()


def elsewhere(name: str) -> Callable[[], list[dict[str, Any]]]:
    """What the module of this name measures, which chooses its own cores."""
    return lambda: importlib.import_module(f"benchmarks.{name}").measure()


def on_one_core(name: str) -> Callable[[], list[dict[str, Any]]]:
    """What the module of this name measures, on one core, with denormals flushed."""

    def measure() -> list[dict[str, Any]]:
        only_one_core()
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        return importlib.import_module(f"benchmarks.{name}").measure()

    return measure


OTHERS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "growth": growth,
    "outcomes": outcomes,
    **{name: elsewhere(name) for name in ("end_to_end", "tracking", "loading", "store_size")},
    **{name: on_one_core(name) for name in ("watching", "scan", "scan_peers", "symbols", "any_cell", "limits")},
}
WHAT = (
    "steps: training steps against peers; growth: time and memory against the length; outcomes: of the same runs by "
    "both engines; end_to_end: a sweep against separate processes; tracking: what it costs; loading: of 200 runs; "
    "store_size: commands on a store of 10,000 runs; "
    "watching: what rnnstudy.watch adds to a step; scan: diagonal recurrences by the scan, "
    "the traced and the reference engine; "
    "scan_peers: them against the parallel scans of torch and JAX; "
    "symbols: reviews read as symbols and as one-hot vectors; "
    "any_cell: cells without kernels by the traced and the reference engine; "
    "limits: what the kernels need against what the processor gives; "
    "tables: measure nothing, make the tables again"
)


if __name__ == "__main__":
    main()
