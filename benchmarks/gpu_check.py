"""What to run when a GPU is at hand: `make gpu-check`, or `PYTHONPATH=. python3 -m benchmarks.gpu_check OUT`.

Needs torch and triton; neither MLflow nor Optuna. Each part is a process of its own with a time limit and writes
`OUT/<part>.json` as it goes, so that a fault or a limit costs one part: correctness first, then whole training steps
beside their peers, Triton variants, JAX where it is installed, and a short study. Within 10 minutes on one H100.
`--cpu` runs every part at a tiny size without a GPU, to see that all of them end.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import ENGINES, cases
from benchmarks.gpu_steps import measured_steps
from benchmarks.gpu_variants import measured_variants
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.triton import interpreted, verified
from rnnstudy.run import Run, Training
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.loop import train

ROOT = Path(__file__).parent.parent

LIMITS = {"correctness": 110, "steps": 170, "variants": 90, "jax_peer": 80, "study": 110}
"""Seconds for each part, in the order in which they run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes, no GPU")
    parser.add_argument("--part", choices=LIMITS, help="this part alone, in this process")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.cpu and not torch.cuda.is_available():
        sys.exit("there is no CUDA device; --cpu shows that the check itself runs")
    if chosen.part:
        PARTS[chosen.part](Results(chosen.out / f"{chosen.part}.json"), chosen.cpu)
        return
    summary = Results(chosen.out / "summary.json")
    summary.add("machine", machine())
    for part, limit in LIMITS.items():
        began = time.monotonic()
        verdict = run_part(part, limit, chosen.out, chosen.cpu)
        summary.add(part, {"verdict": verdict, "seconds": round(time.monotonic() - began, 1)})
        print(f"{part}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    failed = [part for part in LIMITS if summary.content[part]["verdict"] != "done"]
    sys.exit(1 if failed else 0)


class Results:
    """A JSON file that is written anew with each result, so that nothing is lost when the time is up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        self.content[name] = value
        self.path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")


def run_part(part: str, limit: float, out: Path, cpu: bool) -> str:
    """Run one part in a process of its own; what it says goes to `OUT/log.txt`."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", str(out), "--part", part, *(["--cpu"] if cpu else [])]
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"--- {part}\n")
        log.flush()
        # A session of its own, so that at the limit what the part has started ends with it.
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped at its limit of {limit:g} s"
    return "done" if code == 0 else f"exit code {code}"


def machine() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "numpy", "jax"):
        try:
            found[package] = __import__(package).__version__
        except ImportError:
            found[package] = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return found


def correctness(results: Results, cpu: bool) -> None:
    """Every engine against the reference, and where a training step waits for the device; exit code 1 for a fault."""
    device = torch.device("cpu" if cpu else "cuda")
    faults = 0
    for name, kind in ENGINES.items():
        if (name == "triton" and cpu and not interpreted()) or (name in ("scan", "traced") and not cpu):
            continue
        found: dict[str, str] = {}
        for case, run in cases(kind(), device, small=cpu).items():
            try:
                found[case] = run()
            # A fault of a compiler or a driver is a result here.
            except Exception as error:
                found[case] = f"{type(error).__name__}: {error}"[:500]
            results.add(name, {"faults": {one: what for one, what in found.items() if what}, "cases": len(found)})
        faults += len(results.content[name]["faults"])
    if not cpu:
        kernels = (Elman(), Elman(width=100), LSTM())
        results.add("proven at first use", {repr(cell): verified(cell, device) for cell in kernels})
        results.add("waits", waits_for_the_device())
    if faults:
        sys.exit(1)


def waits_for_the_device() -> dict[str, Any]:
    """Where training steps between two checks make the host wait, as CUDA's own watch tells it: line to count."""
    training = Training(steps=40, batch=20, check_every=20, validation_sequences=20, test_sequences=20)
    run = Run(task=TemporalOrder(length=30), cell=LSTM(), training=training)
    found: dict[str, int] = {}
    for engine in ("graph", "reference"):
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            list(train(run, device="cuda", engine=engine))
        torch.cuda.set_sync_debug_mode("default")
        places = Counter(f"{engine}: {Path(one.filename).name}:{one.lineno}" for one in said)
        found |= dict(places.most_common(30))
    return found


def steps(results: Results, cpu: bool) -> None:
    measured_steps(results.add, torch.device("cpu" if cpu else "cuda"), tiny=cpu)


def variants(results: Results, cpu: bool) -> None:
    measured_variants(results.add, torch.device("cpu" if cpu else "cuda"), tiny=cpu)


def jax_peer(results: Results, cpu: bool) -> None:
    try:
        from benchmarks.jax_peer import measured_jax
    except ImportError as error:
        results.add("jax", f"not installed: {error}")
        return
    measured_jax(results.add, tiny=cpu)


def study(results: Results, cpu: bool) -> None:
    """The quickstart at smoke scale and then, on a GPU, at desk scale, into files; what each run says of itself."""
    folder = results.path.parent / "study"
    for scale in ("smoke",) if cpu else ("smoke", "desk"):
        began = time.monotonic()
        # The experiment's own command, without the tracking store that may not be there.
        command = [
            *(sys.executable, "-c", "from rnnstudy.cli import main; main()", "sweep", "experiments/quickstart.py"),
            *("--scale", scale, "--offline", str(folder / scale), "--workers", "1"),
            *("--device", "cpu" if cpu else "cuda", "--engine", "graph" if cpu else "auto"),
            *(["--set", "training.steps=2"] if cpu else []),
        ]
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=LIMITS["study"] - 15 - (time.monotonic() - began))
            code: int | str = done.returncode
        except subprocess.TimeoutExpired:
            code = "stopped at its limit"
        endings = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / scale).glob("*/ending.json")]
        tags = Counter((one["tags"]["rnnstudy.outcome"], one["tags"]["rnnstudy.engine"]) for one in endings)
        outcomes = {f"{outcome}, trained by {engine}": count for (outcome, engine), count in tags.items()}
        results.add(scale, {"code": code, "seconds": time.monotonic() - began, "runs": outcomes})
    with tarfile.open(results.path.with_name("study.tar.gz"), "w:gz") as archive:
        archive.add(folder, "study")
    if any(one["code"] not in (0, "stopped at its limit") for one in results.content.values()):
        sys.exit(1)


PARTS: dict[str, Callable[[Results, bool], None]] = {
    "correctness": correctness,
    "steps": steps,
    "variants": variants,
    "jax_peer": jax_peer,
    "study": study,
}


if __name__ == "__main__":
    main()
