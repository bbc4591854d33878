import os
import sys

import torch

from rnnstudy.spec import SpecError


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one. Raises `SpecError` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"device '{name}' is unknown; it takes auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"device '{name}' is not supported; it takes auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise SpecError(f"device '{name}' is not there: {count} CUDA devices found; use --device cpu or auto")
    return device


def devices(device: str) -> list[str]:
    """The devices that workers are spread over: every GPU where CUDA is wanted and none is named."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]


def default_workers(device: str) -> int:
    """One for each GPU that trains, otherwise one for each core that this process may use."""
    chosen = devices(device)
    if chosen[0].startswith("cuda"):
        return len(chosen)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
