"""The readings of a population: collected on the device, fetched in blocks, cut where a replica stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnstudy.probes.reading import Reading
from rnnstudy.training.records import Series

NOTHING = np.empty(0)


class History:
    """Readings of a population over training, in blocks: one for each fetch, with one time stamp.

    A block holds steps (moment, replica) and values (moment, replica, *axes) in float32. A replica's readings count
    only up to the step at which it stopped.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.times: list[float] = []
        # What the readings of a name mean, and for each moment the steps and the values.
        self._waiting: dict[str, tuple[Series, list[Tensor], list[Tensor]]] = {}
        self._blocks: list[dict[str, Series]] = []

    def add(self, readings: Sequence[Reading], step: int | Tensor, spacing: int) -> None:
        """Collect readings made after `step` updates: one number, or one for each replica (replica)."""
        at_moment = torch.as_tensor(step).expand(len(self.keys))
        for reading in readings:
            empty = Series(NOTHING, NOTHING, reading.axes, reading.unit, spacing, reading.coordinates)
            _, steps, values = self._waiting.setdefault(reading.name, (empty, [], []))
            steps.append(at_moment)
            values.append(reading.values.detach())

    def fetch(self, time: float) -> None:
        """Copy the readings since the previous fetch to the host, as a block with this time stamp."""
        block = {}
        for name, (empty, steps, moments) in self._waiting.items():
            values = torch.stack(moments).to("cpu", torch.float32)
            values[~values.isfinite()] = torch.nan
            block[name] = replace(empty, steps=torch.stack(steps).cpu().numpy(), values=values.numpy())
        self._waiting = {}
        self._blocks.append(block)
        self.times.append(time)

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def series(self, replica: int, stopped: int | None, first: int = 0, last: int | None = None) -> dict[str, Series]:
        """The readings of one replica in the blocks `first` to `last` (exclusive), up to the step where it stopped."""
        parts: dict[str, list[Series]] = {}
        for block in self._blocks[first:last]:
            for name, part in block.items():
                parts.setdefault(name, []).append(part)
        series = {}
        for name, joined in parts.items():
            steps = np.concatenate([part.steps[:, replica] for part in joined])
            values = np.concatenate([part.values[:, replica] for part in joined])
            counted = np.ones(len(steps), bool) if stopped is None else steps <= stopped
            if counted.any():
                series[name] = replace(joined[0], steps=steps[counted], values=values[counted])
        return series

    def last(self, name: str) -> Tensor | None:
        """The newest values (replica, *axes) of a reading, or None."""
        newest = next((block[name] for block in reversed(self._blocks) if name in block), None)
        return None if newest is None else torch.from_numpy(newest.values[-1])

    def state(self) -> dict[str, Any]:
        """Plain values and tensors with the replica axis second, for a checkpoint."""

        def plain(part: Series) -> dict[str, Any]:
            return {**part.labels, "steps": torch.from_numpy(part.steps), "values": torch.from_numpy(part.values)}

        blocks = [{name: plain(part) for name, part in block.items()} for block in self._blocks]
        return {"times": list(self.times), "blocks": blocks}

    @staticmethod
    def restore(keys: Sequence[str], state: Mapping[str, Any], replicas: Tensor) -> "History":
        """The history of `keys`, whose positions in the checkpoint's population are `replicas`."""

        def part(plain: Mapping[str, Any]) -> Series:
            steps, values = (plain[name][:, replicas].numpy() for name in ("steps", "values"))
            return Series.labelled(plain, steps, values)

        history = History(keys)
        history.times = list(state["times"])
        history._blocks = [{name: part(plain) for name, plain in block.items()} for block in state["blocks"]]
        return history
