"""The readings of a probe as tables for the terminal."""

import itertools
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from rnnstudy.cli.common import make_table
from rnnstudy.probes.reading import QUANTILES, Reading
from rnnstudy.results.results import FIRST

MOST_ROWS = {1: 12, 2: 5}
"""Positions shown along each axis, of a reading with one axis and with two."""


def reading_tables(readings: list[Reading]) -> Iterator[Table]:
    """The scalars in one table, then a table for each reading with axes, thinned to evenly spaced positions."""
    scalars = [reading for reading in readings if not reading.axes]
    if scalars:
        table = make_table(["reading", "value", "unit"], ("reading", "unit"))
        for scalar in scalars:
            table.add_row(scalar.name.removeprefix("summary/"), _shown(float(scalar.values[0])), scalar.unit)
        yield table
    yield from (_curve(reading) for reading in readings if reading.axes)


def _curve(reading: Reading) -> Table:
    """A row for each position; a column for each quantile, or one for the value."""
    values, axes = reading.values[0].double().cpu().numpy(), list(reading.axes)
    headings = [reading.unit or "value"]
    if "quantile" in axes:
        values = np.moveaxis(values, axes.index("quantile"), -1)
        axes.remove("quantile")
        headings = [f"{100 * quantile:.0f} %" for quantile in QUANTILES]
    else:
        values = values[..., None]
    table = make_table([*axes, *headings])
    table.title, table.title_justify, table.title_style = f"{reading.name} ({reading.unit})", "left", "bold"
    most = MOST_ROWS.get(len(axes), 3)
    shown = [np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int)) for size in values.shape[:-1]]
    for position in itertools.product(*shown):
        table.add_row(
            *(_position(reading, axis, int(at)) for axis, at in zip(axes, position, strict=True)),
            *(_shown(float(value)) for value in values[position]),
        )
    return table


def _position(reading: Reading, axis: str, at: int) -> str:
    return f"{reading.coordinates[axis][at]:g}" if axis in reading.coordinates else str(at + FIRST.get(axis, 0))


def _shown(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"
