"""`make bench` and `make bench-full`: measure, write benchmarks/results/*.json, and bring the tables up to date."""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import tables
from benchmarks.machine import machine, only_one_core

SIZES = ((20, 50, 50), (20, 50, 200), (20, 50, 1000), (128, 128, 200))
REPLICAS = (1, 8, 32)
MOST = 8 * 1000 * 20 * 50
"""Replicas · steps · batch · width beyond which more replicas are left out: they take long and show nothing new."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cells", nargs="+", default=tables.CELLS, choices=tables.CELLS, help="these; others stay")
    parser.add_argument("--essential", action="store_true", help="only the rows that stand in README.md")
    parser.add_argument("--growth", action="store_true", help="time and memory against the length instead")
    parser.add_argument("--outcomes", action="store_true", help="outcomes by both engines over seeds instead")
    parser.add_argument("--readme", action="store_true", help="measure nothing, only make the tables again")
    asked = parser.parse_args()
    if asked.growth:
        measure_growth()
    elif asked.outcomes:
        measure_outcomes()
    elif not asked.readme:
        measure_steps(asked.cells, asked.essential)
    tables.write()


def measure_steps(names: Sequence[str], essential: bool) -> None:
    """Training steps against peers, on one core; then two threads against one."""
    cores = only_one_core()
    import torch

    from benchmarks import jax_scan
    from benchmarks.training_step import compare, with_two_threads
    from rnnstudy import cells

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if not jax_scan.there():
        print("jax is not installed: its column is left out; the extra `bench` brings it")
    before = tables.read("training_step")
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
        write("training_step", in_order(rows.values()), two_threads=before["two_threads"])
    os.sched_setaffinity(0, cores)
    threads = [row for row in before["two_threads"] if row["cell"] not in names]
    if len(cores) > 1:
        threads += [with_two_threads(getattr(cells, name)(width=50), 200, 20, 8) for name in names]
    write("training_step", in_order(rows.values()), two_threads=in_order(threads))


def planned(names: Sequence[str], essential: bool) -> list[tuple[str, int, int, int]]:
    """(cell, T, batch, replicas) of the comparisons, those of README.md first."""
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


def measure_growth() -> None:
    """Time and memory of a step against the length, on one core."""
    only_one_core()
    import torch

    from benchmarks.growth import grow
    from rnnstudy import cells

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    write("growth", [row for name in tables.CELLS for row in grow(getattr(cells, name)(width=50))])


def measure_outcomes() -> None:
    """Outcomes of the same runs by the reference and the compiled engine, on one core."""
    only_one_core()
    import torch

    from benchmarks.outcomes import all_cells

    torch.set_num_threads(1)
    write("outcomes", all_cells())


def write(name: str, results: list[dict[str, Any]], **more: Any) -> None:
    tables.RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine(), "results": results, **more}
    (tables.RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
