import itertools
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from rnnstudy.probes.reading import QUANTILES, Reading
from rnnstudy.results.results import FIRST


def reading_tables(found: list[Reading]) -> Iterator[Table]:
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


def _table(headings: list[str], title: str | None = None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("reading", "unit") else "right", no_wrap=True)
    return table


MOST_PLACES = {1: 12, 2: 5}
"""Places shown along each axis of a reading with one axis, and with two."""


def _shown(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"
