"""The readings of a population: collected on the device, fetched in blocks, cut where a replica stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnstudy.probes.reading import Reading
from rnnstudy.training.records import Series


@dataclass
class Column:
    """Moments of one reading, in parts: `values` (moment, replica, *axes) in float32, `steps` (moment, replica)."""

    axes: tuple[str, ...]
    unit: str
    spacing: int
    coordinates: Mapping[str, tuple[float, ...]]
    steps: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class History:
    """Readings of a population over training, in blocks: one for each fetch, with one time stamp.

    A replica's readings count only up to the step at which it stopped.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.times: list[float] = []
        self._waiting: dict[str, Column] = {}
        self._blocks: list[dict[str, Column]] = []

    def add(self, readings: Sequence[Reading], step: int | Tensor, spacing: int) -> None:
        """Collect readings made after `step` updates: one number, or one for each replica (replica)."""
        steps = torch.as_tensor(step).expand(len(self.keys))
        for reading in readings:
            column = self._waiting.setdefault(
                reading.name, Column(reading.axes, reading.unit, spacing, reading.coordinates)
            )
            column.steps.append(steps)
            column.values.append(reading.values.detach())

    def fetch(self, time: float) -> None:
        """Copy the readings since the previous fetch to the host, as a block with this time stamp."""
        block = {}
        for name, column in self._waiting.items():
            values = torch.stack(column.values).to("cpu", torch.float32)
            values[~values.isfinite()] = torch.nan
            block[name] = replace(column, steps=[torch.stack(column.steps).cpu()], values=[values])
        self._waiting = {}
        self._blocks.append(block)
        self.times.append(time)

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def series(self, replica: int, stopped: int | None, first: int = 0, last: int | None = None) -> dict[str, Series]:
        """The readings of one replica in the blocks `first` to `last` (exclusive), up to the step where it stopped."""
        columns: dict[str, Column] = {}
        for block in self._blocks[first:last]:
            for name, column in block.items():
                joined = columns.setdefault(name, replace(column, steps=[], values=[]))
                joined.steps += [steps[:, replica] for steps in column.steps]
                joined.values += [values[:, replica] for values in column.values]
        series = {}
        for name, column in columns.items():
            steps, values = torch.cat(column.steps).numpy(), torch.cat(column.values).numpy()
            counted = np.ones(len(steps), bool) if stopped is None else steps <= stopped
            if counted.any():
                series[name] = Series(
                    steps[counted], values[counted], column.axes, column.unit, column.spacing, dict(column.coordinates)
                )
        return series

    def last(self, name: str) -> Tensor | None:
        """The newest values (replica, *axes) of a reading, or None."""
        for block in reversed(self._blocks):
            if name in block:
                return block[name].values[-1][-1]
        return None

    def state(self) -> dict[str, Any]:
        """Plain values and tensors with the replica axis second, for a checkpoint."""
        return {
            "times": list(self.times),
            "blocks": [
                {
                    name: {
                        "axes": list(column.axes),
                        "unit": column.unit,
                        "spacing": column.spacing,
                        "coordinates": {axis: list(positions) for axis, positions in column.coordinates.items()},
                        "steps": torch.cat(column.steps),
                        "values": torch.cat(column.values),
                    }
                    for name, column in block.items()
                }
                for block in self._blocks
            ],
        }

    @staticmethod
    def restore(keys: Sequence[str], state: Mapping[str, Any], replicas: Tensor) -> "History":
        """The history of `keys`, whose positions in the checkpoint's population are `replicas`."""
        history = History(keys)
        history.times = list(state["times"])
        history._blocks = [
            {
                name: Column(
                    axes=tuple(column["axes"]),
                    unit=column["unit"],
                    spacing=column["spacing"],
                    coordinates={axis: tuple(positions) for axis, positions in column["coordinates"].items()},
                    steps=[column["steps"][:, replicas]],
                    values=[column["values"][:, replicas]],
                )
                for name, column in block.items()
            }
            for block in state["blocks"]
        ]
        return history
