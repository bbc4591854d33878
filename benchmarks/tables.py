"""The tables in docs/speed.md and benchmarks/README.md, made from the JSON results and put between two markers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_file import read_results

BEGIN, END = "<!-- made by: python -m benchmarks tables -->", "<!-- end of what is made -->"
COLUMNS = {
    "torch_nn": "torch.nn, nothing recorded",
    "loop_with_retain_grad": "loop of cells with retain_grad",
    "jax_scan": "JAX scan with perturbations",
    "reference": "reference engine",
}
CELLS = ("Elman", "LSTM", "GRU")
ESSENTIAL = [("Elman", 200, 20, 1), *((cell, 200, batch, 8) for batch in (20, 128) for cell in CELLS)]
"""(cell, T, batch, replicas) of the rows in docs/speed.md."""


def write() -> None:
    """Bring both pages up to date with the results."""
    root = Path(__file__).parent.parent
    for page, text in ((root / "docs" / "speed.md", essential()), (root / "benchmarks" / "README.md", whole())):
        before, rest = page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def on_page(page: Path) -> str:
    """What stands between the markers."""
    return page.read_text().split(BEGIN)[1].split(END)[0].strip("\n") + "\n"


def essential() -> str:
    steps, sweeps = read_results("training_step"), read_results("end_to_end")
    assert steps is not None
    rows = [row for row in steps["results"] if place(row) in ESSENTIAL]
    of_sweeps = "\n" + _end_to_end(sweeps["results"]) if sweeps else ""
    table = _steps(rows, [name for name in COLUMNS if name != "reference"])
    return table + _threads(steps) + of_sweeps + _machine(steps)


def whole() -> str:
    steps = read_results("training_step")
    assert steps is not None
    parts = [_steps(steps["results"], list(COLUMNS)) + _threads(steps) + _machine(steps)]
    for name, section in SECTIONS.items():
        found = read_results(name)
        if found is not None:
            elsewhere = "" if found["machine"] == steps["machine"] else _machine(found)
            parts.append("\n" + section(found["results"]) + elsewhere)
    return "".join(parts) + _gpu()


def place(row: dict[str, Any]) -> tuple[str, int, int, int]:
    return row["cell"], row["length"], row["batch"], row["replicas"]


def _steps(rows: Sequence[dict[str, Any]], peers: Sequence[str]) -> str:
    lines = [
        [
            row["cell"],
            f"B={row['batch']} H={row['width']} T={row['length']}",
            str(row["replicas"]),
            f"{row['milliseconds']['compiled']:.2f}",
            *(_ratio(row["times_faster"].get(peer)) for peer in peers),
        ]
        for row in rows
    ]
    return _table(["cell", "sizes", "replicas", "ms", *(COLUMNS[peer] for peer in peers)], lines)


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['median']:.1f} ({found['lowest']:.1f}–{found['highest']:.1f})" if found else "left out"


def _threads(steps: dict[str, Any]) -> str:
    found = [f"{one['cell']} {_ratio(one['times_faster'])}" for one in steps.get("two_threads", [])]
    alone = [f"{one['what']} {_ratio(one['times_faster'])}" for one in steps.get("two_threads_alone", [])]
    of_machine = f" What this machine gives, each alone: {', '.join(alone)}." if alone else ""
    whole = f"\nTwo threads against one, 8 replicas, T=200: {', '.join(found)} times faster.{of_machine}\n"
    return whole if found else ""


def _growth(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [one["cell"], str(one["length"]), f"{one['microseconds_per_step']:.1f}", f"{one['bytes_per_unit']:.1f}"]
        for one in results
    ]
    return _table(["cell", "T", "µs for each time step", "bytes kept for each (t, b, h)"], lines)


def _outcomes(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            *(one["cell"], str(one["length"]), str(one["seeds"])),
            *(f"{share['share']:.2f} ({share['low']:.2f}–{share['high']:.2f})" for share in one["solved"].values()),
            f"{one['mcnemar_p']:.2f}",
        ]
        for one in results
    ]
    header = ["cell", "T", "seeds", "solved, reference engine", "solved, compiled engine", "McNemar's p"]
    return _table(header, lines)


def _end_to_end(results: Sequence[dict[str, Any]]) -> str:
    return "".join(
        f"A sweep of {one['runs']} quickstart runs, from the shell and back, ends {one['times_sooner']:.1f} times "
        f"sooner than {one['runs']} processes that use torch.nn and log metric by metric, on all cores "
        f"({one['seconds']['sweep']:.0f} s against {one['seconds']['processes']:.0f} s).\n"
        for one in results
    )


def _tracking(results: Sequence[dict[str, Any]]) -> str:
    lines = [[COSTS[one["cost"]], f"{one['measured']:.3g}", f"{one['limit']:g}"] for one in results]
    return _table(["what tracking costs", "measured", "limit"], lines)


def _loading(results: Sequence[dict[str, Any]]) -> str:
    return "".join(
        f"Loading {one['runs']} runs with all {one['readings']} readings ({one['rows']:,} rows, "
        f"{one['megabytes']:.0f} MB on disk) into data frames takes {one['seconds']['median']:.1f} s "
        f"({one['seconds']['lowest']:.1f}–{one['seconds']['highest']:.1f}; limit {one['limit']:g} s).\n"
        for one in results
    )


def _store_size(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            f"`rnnstudy {one['command']}`",
            *(f"{one['seconds'][store]:.1f}" for store in ("empty", "full")),
            f"{one['limit']:g}",
        ]
        for one in results
    ]
    first = results[0]
    kilobytes = (
        f"\nA run takes {first['kilobytes_per_run']:.0f} KB of MLflow's database with {first['points_per_run']:.0f} "
        "points of curves.\n"
    )
    header = ["command", "seconds, empty store", f"seconds, {first['runs']:,} runs", "limit of the difference"]
    return _table(header, lines) + kilobytes


def _watching(results: Sequence[dict[str, Any]]) -> str:
    steps = [one for one in results if one["module"] != "import"]
    lines = [
        [
            f"nn.{one['module']}", f"B={one['batch']}, H={one['width']}, T={one['length']}", _watched(one),
            f"{one['milliseconds']['without']:.1f}", f"{one['ratio']:.3f}", f"{one['limit']:g}",
        ]
        for one in steps
    ]  # fmt: skip
    imports = "".join(
        f"\n`import rnnstudy` takes {one['seconds']:.2f} s beyond importing torch (limit {one['limit']:g} s).\n"
        for one in results
        if one["module"] == "import"
    )
    return _table(["watched module", "sizes", "watched", "ms a step without", "ratio with", "limit"], lines) + imports


def _scan(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            one["cell"], f"B={one['batch']} T={one['length']}", str(one["replicas"]),
            *(f"{1000 * one[engine]:.0f}" for engine in ("reference", "scan", "traced")),
            *(f"{one['times_faster'][engine]:.1f}" for engine in ("scan", "traced")),
        ]
        for one in results
    ]  # fmt: skip
    header = [
        "cell", "sizes", "replicas", "ms, reference engine", "ms, scan engine", "ms, traced engine",
        "times faster, scan", "times faster, traced",
    ]  # fmt: skip
    return _table(header, lines)


def _scan_peers(results: Sequence[dict[str, Any]]) -> str:
    others = ("torch, by doubling", "torch, in logarithms", "JAX associative_scan")
    lines = [
        [
            one["cell"], f"B={one['batch']} T={one['length']}", str(one["replicas"]), one["engine"],
            f"{1000 * one['seconds']['ours']:.0f}",
            *(f"{one['times_faster'][other]:.1f}" if other in one["times_faster"] else "" for other in others),
        ]
        for one in results
    ]  # fmt: skip
    return _table(["cell", "sizes", "replicas", "engine", "ms, everything recorded", *others], lines)


def _symbols(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            one["cell"], *(f"{one['seconds'][kind]['median']:.1f}" for kind in ("symbols", "dense")),
            _ratio(one["times_faster"]), *(f"{one['batch_bytes'][kind]:,}" for kind in ("symbols", "dense")),
        ]
        for one in results
    ]  # fmt: skip
    first = results[0]
    header = [
        f"film reviews by word, {first['runs']} runs of {first['updates']} updates", "seconds, symbols",
        f"seconds, one-hot vectors of {first['features']:,}", "times faster", "bytes a batch, symbols", "one-hot",
    ]  # fmt: skip
    return _table(header, lines)


def _any_cell(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            one["cell"], f"B={one['batch']} H={one['width']} T={one['length']}", str(one["replicas"]),
            f"{1000 * one['traced']:.0f}", f"{1000 * one['reference']:.0f}", _ratio(one["times_faster"]),
            f"{one['ready']:.1f}",
        ]
        for one in results
    ]  # fmt: skip
    header = [
        "cell", "sizes", "replicas", "ms, traced engine", "ms, reference engine", "times faster",
        "seconds to trace and compile",
    ]  # fmt: skip
    return _table(header, lines)


def _limits(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            one["cell"], f"B={one['batch']} H={one['width']} T={one['length']}",
            *(f"{1000 * one['seconds_alone'][part]:.2f}" for part in ("products", "functions", "memory")),
            *(f"{1000 * one['seconds'][part]:.2f}" for part in ("forward", "backward")),
            f"{one['share']:.2f}",
            f"{one['seconds']['step'] / (one['seconds']['forward'] + one['seconds']['backward']) - 1:.2f}",
        ]
        for one in results
    ]  # fmt: skip
    rates = results[0]["rates"]
    header = [
        "cell", "sizes", "ms, products alone", "elementary functions alone", "memory alone", "ms, forward kernel",
        "backward kernel", "the three alone, of the kernels", "rest of the step, of the kernels",
    ]  # fmt: skip
    given = (
        f"\nThis core does {rates['operations_a_second'] / 1e9:.0f} billion multiplications and additions a second in "
        f"the products' code and {rates['functions_a_second'] / 1e9:.1f} billion sigmoids.\n"
    )
    return _table(header, lines) + given


def _watched(one: dict[str, Any]) -> str:
    if one["every"] > 1:
        return f"every {one['every']} steps"
    return "every step" if one["parts"] == 1 else f"each of {one['parts']} accumulated passes"


COSTS = {
    "share_of_wall_time": "share of wall time, a run of a minute",
    "writer_seconds_per_run": "the writer's seconds for each short run, beside the training",
    "restart_seconds": "seconds to start a finished sweep of 200 runs again",
}
SECTIONS = {
    "growth": _growth,
    "outcomes": _outcomes,
    "end_to_end": _end_to_end,
    "tracking": _tracking,
    "loading": _loading,
    "store_size": _store_size,
    "watching": _watching,
    "scan": _scan,
    "scan_peers": _scan_peers,
    "symbols": _symbols,
    "any_cell": _any_cell,
    "limits": _limits,
}


def _gpu() -> str:
    return "" if read_results("gpu") else "\nOn a GPU: unmeasured.\n"


def _machine(steps: dict[str, Any]) -> str:
    return f"\nMeasured on: {', '.join(f'{name} {value}' for name, value in steps['machine'].items())}.\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
