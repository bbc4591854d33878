"""What the figures were measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("torch", "numba", "numpy", "jax", "mlflow")


def machine() -> dict[str, str]:
    """Processor, cores, and the versions of what takes part."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def only_one_core() -> set[int]:
    """Keep this process, and every thread it starts from now on, on one core: returns the cores it could use before.

    No library then computes in more than one thread, whatever its settings say.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    return cores


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    return ", ".join(part for part in (name or platform.machine(), vectors) if part)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
