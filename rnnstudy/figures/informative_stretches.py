"""Where the inputs that a task's answer depends on can stand."""

import torch

from rnnstudy.tasks.task import Task

__all__ = ["informative_stretches"]


def informative_stretches(task: Task) -> list[tuple[int, int]]:
    """First and last time step (from 1) of each stretch that holds informative inputs in some of 512 sequences."""
    somewhere = task.sample(512, torch.Generator().manual_seed(0)).informative.any(dim=1).tolist()
    steps = [step for step, informative in enumerate(somewhere, start=1) if informative]
    starts = [step for step in steps if step - 1 not in steps]
    ends = [step for step in steps if step + 1 not in steps]
    return list(zip(starts, ends, strict=True))
