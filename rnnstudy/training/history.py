"""The readings of a population: collected on the device, fetched in blocks, cut where a replica stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnstudy.probes.reading import Reading
from rnnstudy.training.records import Series

NOTHING = np.empty(0)


@dataclass
class Waiting:
    """Readings of one name on the device: what they mean, and for each moment its steps and its values.

    Attributes:
        labels: the meaning, as a series without moments.
        steps: (replica) for each moment.
        values: (replica, *axes) for each of the newest moments, of the runs that are computed now.
        stacked: (moment, replica, *axes) of all runs, for the moments before.
    """

    labels: Series
    steps: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    stacked: list[Tensor] = field(default_factory=list)


class History:
    """Readings of a population over training, in blocks: one for each fetch, with one time stamp.

    A block holds steps (moment, replica) and values (moment, replica, *axes) in float32. A replica's readings count
    only up to the step at which it stopped.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.times: list[float] = []
        self._waiting: dict[str, Waiting] = {}
        self._blocks: list[dict[str, Series]] = []
        self._positions: Tensor | None = None

    def narrow(self, positions: Tensor | None) -> None:
        """The readings from now on are of the runs at these positions in `keys` only; of all when None."""
        self._stack()
        self._positions = positions

    def add(self, readings: Sequence[Reading], step: int | Tensor, spacing: int) -> None:
        """Collect readings made after `step` updates: one number, or one for each run in `keys` (replica)."""
        steps = torch.as_tensor(step).expand(len(self.keys))
        for reading in readings:
            waiting = self._waiting.get(reading.name)
            if waiting is None:
                labels = Series(NOTHING, NOTHING, reading.axes, reading.unit, spacing, reading.coordinates)
                waiting = self._waiting[reading.name] = Waiting(labels)
            waiting.steps.append(steps)
            waiting.values.append(reading.values.detach())

    def _stack(self) -> None:
        """Stack the newest moments, with NaN for the runs that are not computed."""
        for waiting in self._waiting.values():
            if not waiting.values:
                continue
            values = torch.stack(waiting.values)
            if self._positions is not None:
                computed = values
                values = computed.new_full((len(computed), len(self.keys), *computed.shape[2:]), torch.nan)
                values.index_copy_(1, self._positions, computed)
            waiting.stacked.append(values)
            waiting.values = []

    def fetch(self, time: float) -> None:
        """Copy the readings since the previous fetch to the host, as a block with this time stamp."""
        self._stack()
        block = {}
        for name, waiting in self._waiting.items():
            values = torch.cat(waiting.stacked).to("cpu", torch.float32)
            values[~values.isfinite()] = torch.nan
            block[name] = replace(waiting.labels, steps=torch.stack(waiting.steps).cpu().numpy(), values=values.numpy())
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
            series = Series.labelled(plain, steps, values)
            sound = (steps.dtype, values.dtype, steps.ndim) == (np.int64, np.float32, 2) and type(series.spacing) is int
            if not sound or values.shape[:2] != steps.shape or values.ndim != 2 + len(series.axes):
                raise ValueError("its readings have another form")
            return series

        history = History(keys)
        history.times = [float(time) for time in state["times"]]
        history._blocks = [{name: part(plain) for name, plain in block.items()} for block in state["blocks"]]
        return history
