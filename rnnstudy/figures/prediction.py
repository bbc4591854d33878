"""Whether the gradient before training tells which runs will succeed."""


# pandas carries no type stubs, and what pyright infers from its source is not so.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportReturnType=false

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from rnnstudy.figures.chosen_runs import Results, judged, true, updates_to_solve
from rnnstudy.figures.concordance import FEWEST_SEEDS, Concordance, concordance, success_auc
from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import BOUND, cell_handle, cell_position, house_style, legend_below, panels, style
from rnnstudy.spec import SpecError

STRATUM = ("task", "cell", "length", "learning_rate")
"""Runs of one stratum differ in their seed alone."""


def prediction_table(
    results: Results, score: str, *, stratum: Sequence[str] = STRATUM, keys: Sequence[str] | None = None
) -> pd.DataFrame:
    """How well a column of `results.runs` known before training predicts success, within strata and across them.

    One row for each comparison, target and cell (and `all` of them). Comparison: `within strata`, pairs of runs of the
    same stratum; `across lengths`, pairs of runs that differ in their length and share all else of the stratum, which
    tells how much of a relation is the length alone. Target: `solved` (area under the ROC curve) and `sooner`
    (Harrell's C for `updates_to_solve`, unsolved runs censored). Columns: those of `Concordance`, runs, without_score
    (left out).

    Raises `SpecError` when the runs have no such column.
    """
    runs = judged(results, keys)
    if score not in runs.columns:
        raise SpecError(f"the runs have no column '{score}'; add the probe GradientThroughTime to the runs")
    values = runs[score].astype(float)
    scored = runs[np.isfinite(values)]
    rows = []
    comparisons = {"within strata": list(stratum), "across lengths": [name for name in stratum if name != "length"]}
    for comparison, columns in comparisons.items():
        for cell in ("all", *sorted(scored["cell"].unique(), key=cell_position)):
            chosen = scored if cell == "all" else scored[scored["cell"] == cell]
            labels = chosen[columns].astype(str).agg(" | ".join, axis=1).to_numpy()
            numbers, seeds = chosen[score].astype(float).to_numpy(), chosen["seed"].to_numpy()
            solved, sooner = true(chosen["solved"]).to_numpy(), updates_to_solve(chosen).to_numpy()
            apart = chosen["length"].to_numpy() if comparison == "across lengths" else None
            found: dict[str, Concordance] = {
                "solved": success_auc(numbers, solved, labels, seeds, apart=apart),
                "sooner": concordance(numbers, sooner, labels, seeds, apart=apart),
            }
            left_out = int((runs["cell"].eq(cell) if cell != "all" else runs["cell"].notna()).sum()) - len(chosen)
            rows += [
                {"comparison": comparison, "target": target, "cell": cell, **vars(one), "runs": len(chosen),
                 "without_score": left_out}
                for target, one in found.items()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def prediction(
    results: Results,
    score: str,
    *,
    label: str,
    stratum: Sequence[str] = STRATUM,
    keys: Sequence[str] | None = None,
) -> Picture:
    """Left: the score of every run by length, solved or not; right: how well it predicts (`prediction_table`).

    Args:
        score: the column known before training.
        label: what it is, with its unit.
        stratum: columns that make a stratum.
        keys: the runs to draw; all by default.
    """
    table = prediction_table(results, score, stratum=stratum, keys=keys)
    runs = judged(results, keys)
    cells = sorted(runs["cell"].unique(), key=cell_position)
    lengths = sorted(runs["length"].unique())
    targets = {"solved": "solved or not (AUC)", "sooner": "solved sooner (Harrell's C)"}
    groups = [(comparison, target) for comparison in ("across lengths", "within strata") for target in targets]
    with house_style():
        figure, (left, right) = panels(2, height=4.8, share_y=False)
        figure.set_figwidth(11.0)
        for number, cell in enumerate(cells):
            drawn, of_cell = style(cell), runs[runs["cell"] == cell]
            shift = (number - (len(cells) - 1) / 2) * 0.24
            for solved in (True, False):
                dots = of_cell[true(of_cell["solved"]) == solved]
                up = np.array([lengths.index(length) for length in dots["length"]]) + shift
                up = up + 0.07 * np.linspace(-1, 1, len(up)) if len(up) else up
                face = {"marker": drawn.marker, "mew": 0, "alpha": 0.75} if solved else {"marker": "x", "mew": 1.6}
                left.plot(dots[score].astype(float), up, linestyle="", color=drawn.colour, markersize=6, **face)
        left.set_yticks(range(len(lengths)), [str(length) for length in lengths])
        left.set(ylabel="length T (steps)", xlabel=label, title="every run, before training")
        order = ["all", *cells]
        for row in table.itertuples():
            if not np.isfinite(row.value):
                continue
            height = groups.index((row.comparison, row.target)) + (len(order) / 2 - order.index(row.cell)) * 0.15
            colour, marker = ("black", "P") if row.cell == "all" else (style(row.cell).colour, style(row.cell).marker)
            if np.isfinite(row.low):
                right.plot([row.low, row.high], [height, height], color=colour, linewidth=2)
            right.plot(row.value, height, marker=marker, color=colour, mec="white", markersize=9)
        right.axvline(0.5, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3)
        words = {"within strata": "same T, only the\nseed differs:", "across lengths": "T differs:"}
        right.set_yticks(range(len(groups)), [f"{words[group]}\n{targets[target]}" for group, target in groups])
        right.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(groups) - 0.4), title="does it predict?")
        right.set_xlabel("share of pairs in the right order (1/2: none)")
        handles = [cell_handle(cell) for cell in cells]
        handles.append(Line2D([], [], color="black", marker="P", markersize=9, label="all cells"))
        handles.append(
            Line2D([], [], color="0.4", marker="x", mew=1.6, linestyle="", label="not solved (filled: solved)")
        )
        legend_below(figure, handles)
    within = table[(table["comparison"] == "within strata") & (table["cell"] == "all")].set_index("target")
    told = within.loc["solved"]
    shared = ", ".join(name.replace("_", " ") for name in stratum)
    caption = (
        f"Right: of two runs, how often the one with the higher score solved the task (AUC), or solved it sooner "
        f"(Harrell's C, unsolved runs censored); bars: 95 % bootstrap interval over seeds, none where fewer than "
        f"{FEWEST_SEEDS} seeds stand on a side; no mark where no two runs can be compared. Within strata of {shared}: "
        f"{told['informative']} of {told['strata']} strata hold both solved and unsolved runs, {told['pairs']} pairs."
    )
    return Picture(figure, table, tuple(sorted(runs.index)), caption)
