"""Shards: parts of a sweep for machines that share nothing. Each machine computes its part by itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rnnstudy.run import Run
from rnnstudy.spec import RequestError
from rnnstudy.training.grouping import populations, split_evenly


@dataclass(frozen=True)
class Shard:
    """Part `part` (counted from 1) of `parts`."""

    part: int
    parts: int

    @staticmethod
    def parse(text: str) -> "Shard":
        """From `3/16`. Raises `RequestError` for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
        if not 1 <= shard.part <= shard.parts:
            raise RequestError(f"--shard is '{text}'; it takes PART/PARTS with PART from 1 to PARTS, for example 3/16")
        return shard

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """The runs of this part. Every run is in exactly one part; the division depends on `runs` and `parts` alone.

        Populations, split where they are large, are dealt out in the order of the hash of their keys. No part is empty
        unless there are more parts than runs.
        """
        dealt = split_evenly(populations(sorted(runs, key=lambda run: run.key)), self.parts)
        while len(dealt) < min(self.parts, len(runs)):
            largest = max(dealt, key=lambda population: len(population.runs))
            dealt.remove(largest)
            dealt += populations(largest.runs, -(-len(largest.runs) // 2))
        dealt.sort(key=lambda population: population.key)
        keys = {key for population in dealt[self.part - 1 :: self.parts] for key in population.keys}
        return [run for run in runs if run.key in keys]
