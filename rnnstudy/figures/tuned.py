"""Cells compared, each at its own best settings: the fresh runs of the winners of their searches."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rnnstudy.figures.chosen_runs import Results, by_cell, judged, ordered, true
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.statistics import band_words, median_and_band, wilson_row
from rnnstudy.figures.style import cell_handle, chance_line, house_style, legend_below, panels, style


def tuned_comparison(
    results: Results, *, chance: float, error: str = "test error", keys: Sequence[str] | None = None
) -> Picture:
    """Share solved (Wilson 95 %) and median test error with its band, by length, for winners on fresh seeds.

    Args:
        chance: the error of the best predictor that sees no input (`task.chance.error`).
        error: what the error is (`task.criterion.error`).
        keys: the fresh runs; all by default. A diverged run counts as unsolved, with the error of chance.
    """
    runs = judged(results, keys)
    data = ordered(pd.DataFrame([_row(cell, length, group, chance) for (cell, length), group in by_cell(runs)]))
    cells, lengths = list(dict.fromkeys(data["cell"])), sorted(data["length"].unique())
    with house_style():
        figure, (left, right) = panels(2, share_y=False)
        for number, cell in enumerate(cells):
            own, drawn = data[data["cell"] == cell], style(cell)
            across = [lengths.index(length) + 0.16 * (number - (len(cells) - 1) / 2) for length in own["length"]]
            for axis, middle, low, high in (
                (left, "share", "wilson_low", "wilson_high"),
                (right, "median_error", "error_low", "error_high"),
            ):
                spread = np.clip([own[middle] - own[low], own[high] - own[middle]], 0, None)
                axis.errorbar(
                    across, own[middle], spread, fmt=drawn.marker, color=drawn.colour, capsize=4, markersize=8
                )
        chance_line(right, chance, labelled=True)
        left.set(ylim=(-0.06, 1.06), ylabel="share solved, on fresh seeds")
        right.set(ylabel=error)
        for axis in (left, right):
            axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axis.set(xlim=(-0.5, len(lengths) - 0.5), xlabel="length T (steps)")
        legend_below(figure, [cell_handle(cell) for cell in cells])
    fewest, most = int(data["runs"].min()), int(data["runs"].max())
    caption = (
        "Each cell at the settings that won its own search at that length, on seeds that the search has not seen. "
        f"Left: share solved on test sequences, with Wilson 95 % intervals. Right: median {error}, with the "
        f"{band_words(fewest, most)}; dashed: chance ({chance:.3g}), which also stands for a diverged run."
    )
    return Picture(figure, data, tuple(sorted(runs.index)), caption)


def _row(cell: str, length: int, group: pd.DataFrame, chance: float) -> dict[str, object]:
    counts = wilson_row(true(group["solved"]), "solved")
    errors = group["error"].astype(float).fillna(chance).to_numpy()
    middle, error_low, error_high = (float(one[0]) for one in median_and_band(errors[:, None]))
    of_error = {"median_error": middle, "error_low": error_low, "error_high": error_high}
    return {"cell": cell, "length": length, **counts, **of_error}
