"""Which device trains, and how many workers share the machine."""

import os
import sys

import torch

from rnnstudy.spec import RequestError


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA if available. Raises `RequestError` if there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device '{name}' is unknown; it takes auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device '{name}' is not supported; it takes auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RequestError(f"device '{name}' does not exist: {count} CUDA devices found; use --device cpu or auto")
    return device


def worker_devices(device: str) -> list[str]:
    """The devices of the workers: for `auto` and `cuda` every GPU, if there is one; otherwise `device` alone."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]


def default_workers(device: str) -> int:
    """One worker for each GPU that trains; on a CPU, one for each core that this process may use."""
    devices = worker_devices(device)
    if devices[0].startswith("cuda"):
        return len(devices)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
