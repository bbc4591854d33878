"""Whether a quantity known before training predicts which runs succeed."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Sequence

import numpy as np

from rnnstudy.figures.chosen_runs import Keys, RunsAndReadings, cells_of, finished_or_diverged, true
from rnnstudy.figures.concordance import FEWEST_SEEDS
from rnnstudy.figures.drawing import offset, panels
from rnnstudy.figures.legend import cell_entries, legend_below, line_entry
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.prediction_table import STRATUM, prediction_table
from rnnstudy.figures.style import BOUND_LINE, house_style, style


def prediction(
    results: RunsAndReadings, score: str, *, label: str, stratum: Sequence[str] = STRATUM, keys: Keys = None
) -> Picture:
    """Left: the score of every run by length, solved or not; right: how well it predicts (`prediction_table`).

    Args:
        score: the column known before training.
        label: what it is, with its unit.
        stratum: the columns that runs of one stratum share.
        keys: the runs to draw; all by default.
    """
    table = prediction_table(results, score, stratum=stratum, keys=keys)
    runs = finished_or_diverged(results, keys)
    cells, lengths = cells_of(runs), sorted(runs["length"].unique())
    targets = {"solved": "solved or not (AUC)", "sooner": "solved sooner (Harrell's C)"}
    groups = [(comparison, target) for comparison in ("across lengths", "within strata") for target in targets]
    with house_style():
        figure, (left, right) = panels(2, height=4.8, share_y=False)
        figure.set_figwidth(11.0)
        for number, cell in enumerate(cells):
            drawn, of_cell = style(cell), runs[runs["cell"] == cell]
            for solved in (True, False):
                dots = of_cell[true(of_cell["solved"]) == solved]
                up = np.array([lengths.index(length) for length in dots["length"]]) + offset(number, len(cells), 0.24)
                up = up + 0.07 * np.linspace(-1, 1, len(up))
                face = {"marker": drawn.marker, "mew": 0, "alpha": 0.75} if solved else {"marker": "x", "mew": 1.6}
                left.plot(dots[score].astype(float), up, linestyle="", color=drawn.colour, markersize=6, **face)
        left.set_yticks(range(len(lengths)), [str(length) for length in lengths])
        left.set(ylabel="length T (steps)", xlabel=label, title="every run, before training")
        order = ["all", *cells]
        for row in table[np.isfinite(table["value"])].itertuples():
            height = groups.index((row.comparison, row.target)) + (len(order) / 2 - order.index(row.cell)) * 0.15
            colour, marker = ("black", "P") if row.cell == "all" else (style(row.cell).colour, style(row.cell).marker)
            if np.isfinite(row.low):
                right.plot([row.low, row.high], [height, height], color=colour, linewidth=2)
            right.plot(row.value, height, marker=marker, color=colour, mec="white", markersize=9)
        right.axvline(0.5, **BOUND_LINE)
        words = {"within strata": "same T, only the\nseed differs:", "across lengths": "T differs:"}
        right.set_yticks(range(len(groups)), [f"{words[group]}\n{targets[target]}" for group, target in groups])
        right.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(groups) - 0.4), title="does it predict?")
        right.set_xlabel("share of pairs in the right order (1/2: none)")
        all_cells = line_entry("all cells", color="black", marker="P", markersize=9)
        unsolved = line_entry("not solved (filled: solved)", color="0.4", marker="x", mew=1.6, linestyle="")
        legend_below(figure, [*cell_entries(cells), all_cells, unsolved])
    within = table[(table["comparison"] == "within strata") & (table["cell"] == "all")].set_index("target")
    solved = within.loc["solved"]
    shared = ", ".join(name.replace("_", " ") for name in stratum)
    caption = (
        f"Right: of two runs, how often the one with the higher score solved the task (AUC), or solved it sooner "
        f"(Harrell's C, unsolved runs censored); bars: 95 % bootstrap interval over seeds, none where one "
        f"side has fewer than {FEWEST_SEEDS} seeds; no mark where no two runs can be compared. Within strata of "
        f"{shared}: {solved['informative']} of {solved['strata']} strata hold both solved and unsolved runs, "
        f"{solved['pairs']} pairs."
    )
    return Picture(figure, table, tuple(sorted(runs.index)), caption)
