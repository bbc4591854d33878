"""Runs grouped into populations."""

import math
from collections import defaultdict
from collections.abc import Sequence

from rnnstudy.run import Run
from rnnstudy.training.cost import cost, replicas_that_fit
from rnnstudy.training.population import Population


def populations(runs: Sequence[Run], most: int = 64, room: float = math.inf) -> list[Population]:
    """Group runs by structure, in the order of their first run, into populations of at most `most` replicas.

    `room`: bytes of memory that a population may use, by the estimate of `rnnstudy.training.cost`.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.structure].append(run)
    result = []
    for group in groups.values():
        size = min(most, replicas_that_fit(group[0], room)) if math.isfinite(room) else most
        result += [Population(tuple(group[start : start + size])) for start in range(0, len(group), size)]
    return result


def split_evenly(groups: Sequence[Population], workers: int) -> list[Population]:
    """Split large populations, so that no worker trains a large one at the end while the others have nothing to do."""
    if not groups:
        return []
    costs = [cost(group).seconds for group in groups]
    share = sum(costs) / workers
    split: list[Population] = []
    for group, seconds in zip(groups, costs, strict=True):
        parts = min(len(group.runs), max(1, round(seconds / share + 0.25)))
        most = -(-len(group.runs) // parts)
        split += populations(group.runs, most)
    return split
