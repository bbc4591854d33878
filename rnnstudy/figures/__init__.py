"""Figures: results -> pictures, one file for each figure, named as its function.

What comes in: results (`RunsAndReadings`), or the single unit. What goes out: a `Picture`: the figure, the table of the
numbers in it, the runs it was made from, and a caption. Begin with `picture.py` and `style.py`, then
`gradient_by_lag.py`. `chosen_runs.py` selects runs and readings, `statistics.py` computes intervals.

A new figure is one new file with one public function of the same name, which takes results and returns a `Picture`.
A file with `__all__` holds helpers instead. Both are exported from here by themselves. The style of every figure:

- **One palette**, that of Okabe and Ito, safe for colour-blind readers. A cell has one colour, marker and dash in all
  figures (`STYLES`, `style`): RNN (Elman) vermilion, LSTM blue, GRU green. Colour is never the only difference: marker,
  dash or position differ too. What is not measured (bounds, chance levels, thresholds) is grey and dashed.
- **Lengths** are shades of the cell's colour, light for short and dark for long, each with its own dash.
- **Heat maps** use `HEAT`, or `AROUND_ZERO` for a quantity that has a centre; absent values are `ABSENT`, and named.
- **Units** stand on every axis. Gradients are log10 of a Euclidean norm; the axis says so, and is linear in decades.
- **Uncertainty** is always drawn, and named in the legend or the caption: Wilson intervals for shares, bootstrap
  intervals of the median from 10 runs on, and the range of the runs below that (`median_and_band`, `band_words`).
- **Runs that fall into groups** are drawn one by one: a median between two groups stands where no run is.
- **Size**: `panels` puts at most four panels in a row, with type that is readable at half size; one legend stands under
  the whole figure (`legend_below`). Titles are short and in words.
- **The table** of a figure holds every number in it, in a fixed order (`ordered`): equal runs give equal bytes.
- A figure is drawn within `house_style()`. No function opens a window or needs a display.

The comment `pyright:` at the top of a file turns off rules that fail because pandas has no type stubs.
"""

import importlib
import pkgutil
from typing import Any

from rnnstudy.spec import nearest


def _exported() -> dict[str, Any]:
    """The public names of all modules of this package."""
    modules = {info.name: importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)}
    return {
        name: getattr(module, name)
        for file, module in modules.items()
        for name in getattr(module, "__all__", (file,))
    }  # fmt: skip


globals().update(_names := _exported(), __all__=sorted(_names))


def __getattr__(name: str) -> Any:
    hint = nearest(name, _names) or ";"
    raise AttributeError(f"{__name__} has no '{name}'{hint} It has {', '.join(sorted(_names))}", name=name)
