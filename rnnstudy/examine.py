"""A probe on a finished run: what it reads of the network as it was when training ended."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from rich.table import Table

from rnnstudy import trained
from rnnstudy.evaluation import side
from rnnstudy.home import Home
from rnnstudy.population import Population
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.records import QUANTILES, Reading
from rnnstudy.results import FIRST

MOST_PLACES = {1: 12, 2: 5}
"""Places shown along each axis of a reading with one axis, and with two."""


def readings(network: trained.Trained, probe: Probe) -> list[Reading]:
    """What `probe` reads at the final moment of a trained network, each with a replica axis of length one.

    The sequences are those that the probe would have seen in the run itself.
    """
    population = Population((network.run,))
    parameters = {name: value.unsqueeze(0) for name, value in network.parameters.items()}
    batches = side(population, parameters, torch.device("cpu"))
    return probe.read(Moment("final", 0, parameters, {}, {}, None, batches, network.run.cell))


def examine(key: str, probe: Probe, *, home: Home | None = None) -> list[Reading]:
    """What `probe` reads of the run `key`, or of the one run whose key begins so.

    Raises `SpecError` when there is no such run, or its network cannot be loaded (see `trained.load`).
    """
    return readings(trained.load(key, home=home), probe)


def tables(found: list[Reading]) -> Iterator[Table]:
    """The scalars in one table, then one for each reading with axes, at evenly spaced places where there are many."""
    scalars = [one for one in found if not one.axes]
    if scalars:
        table = _table(["reading", "value", "unit"])
        for one in scalars:
            table.add_row(one.name.removeprefix("summary/"), _shown(float(one.values[0])), one.unit)
        yield table
    for one in found:
        if one.axes:
            yield _curve(one)


def _curve(reading: Reading) -> Table:
    """A row for each place, a column for each quantile, or one for the value."""
    values, axes = reading.values[0].double().cpu().numpy(), list(reading.axes)
    headings = [reading.unit or "value"]
    if "quantile" in axes:
        values = np.moveaxis(values, axes.index("quantile"), -1)
        axes.remove("quantile")
        headings = [f"{100 * quantile:.0f} %" for quantile in QUANTILES]
    else:
        values = values[..., None]
    table = _table([*axes, *headings], title=f"{reading.name} ({reading.unit})")
    most = MOST_PLACES.get(len(axes), 3)
    places = [np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int)) for size in values.shape[:-1]]
    for place in itertools.product(*places):
        table.add_row(
            *(_position(reading, axis, int(at)) for axis, at in zip(axes, place, strict=True)),
            *(_shown(float(value)) for value in values[place]),
        )
    return table


def _position(reading: Reading, axis: str, at: int) -> str:
    return f"{reading.coordinates[axis][at]:g}" if axis in reading.coordinates else str(at + FIRST.get(axis, 0))


def _shown(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"


def _table(headings: list[str], title: str | None = None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("reading", "unit") else "right", no_wrap=True)
    return table
