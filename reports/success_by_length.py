# ---
# jupyter:
#   rnnstudy:
#     order: 40
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # What a vanishing gradient means for learning
#
# The same runs as in the first report, now with what they learned: which share of them solves temporal order at each
# length, and after how many updates.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("success_by_length")
study = here.study("sequence_length")
here.say(study.summary)

# %%
results = study.results
best = figures.best_by_validation(results)
task = TemporalOrder(length=int(results.runs["length"].max()))
here.say(
    f"*Solved* means that a run met the published criterion, tested once on fresh test sequences: "
    f"{task.criterion.words}. Guessing has an error of {task.chance.error:.3g} and never meets it. For each cell and "
    "length the learning rate was "
    "chosen by validation alone; a diverged run counts as unsolved."
)

# %% [markdown]
# ## How often

# %%
picture = figures.success(results, chance=task.chance.error, error=f"test:\n{task.criterion.error}", keys=best)
table = picture.data


def at_longest(cell: str) -> str:
    """How many runs of a cell solved the task at the longest length, of how many."""
    rows = table[(table["cell"] == cell) & (table["length"] == task.length)]
    return f"{rows['solved'].iloc[0]} of {rows['runs'].iloc[0]}" if len(rows) else NOT_RUN


here.show(
    picture,
    "success_by_length",
    title=f"At T = {task.length}, {at_longest('Elman')} RNNs solve the task, {at_longest('LSTM')} LSTMs and "
    f"{at_longest('GRU')} GRUs",
    takeaway="""
    Left: read the points from short to long sequences; the numbers below them count the runs that solved the task, and
    the bars are Wilson 95 % intervals. Right: the error of every run. A run on the dashed line has learned nothing, a
    run a third of the way down (at 1/2) has found one of the two marks, a run at zero has found both. All cells had the
    same width, sequences, learning rates and orthogonal matrices. The gates of LSTM and GRU were also given T: their
    biases are spread over the length of the sequence (chrono). What they do without that hint, the page on what each
    side was given shows.""",
)

# %% [markdown]
# Runs with the same seed saw the same sequences, whatever their cell, so cells are compared in pairs: how many seeds
# only one of the two solved, and how likely such an uneven division is by chance (McNemar's exact test).

# %%
runs = results.runs.loc[best]
rows = []
for length in sorted(runs["length"].unique()):
    solved = runs[runs["length"] == length].pivot(index="seed", columns="cell", values="solved").apply(figures.true)
    for gated in (cell for cell in ("LSTM", "GRU") if {cell, "Elman"} <= set(solved.columns)):
        alone, elman_alone, p = figures.mcnemar(solved[gated].to_numpy(), solved["Elman"].to_numpy())
        rows.append(
            {"T": length, "pair": f"{gated} and RNN", "seeds": len(solved), "gated cell alone": alone,
             "RNN alone": elman_alone, "McNemar's p": f"{p:.2g}"}
        )  # fmt: skip
here.table(pd.DataFrame(rows))

# %% [markdown]
# ## How soon

# %%
picture = figures.time_to_solve(results, keys=best)
ended = runs.assign(updates=figures.updates_to_solve(runs).replace(float("inf"), float("nan")))
# An unsolved run counts as later than every solved one: the median of all runs is unknown when half have not solved.
late = ended["updates"].astype(float).fillna(float("inf"))
typical = late.groupby([ended["cell"], ended["length"]]).median()


def soon(cell: str, length: int = task.length) -> str:
    """The median number of updates over all runs of a cell at one length."""
    value = typical.get((cell, length))
    if value is None:
        return NOT_RUN
    return f"{value:.0f}" if value < float("inf") else f"more than {int(runs['training.steps'].max())}"


def times(cell: str) -> str:
    """The median number of updates over all runs, for each length."""
    known = typical[cell].sort_index().index if cell in typical.index.get_level_values(0) else ()
    return ", ".join(f"{soon(cell, length)} at T = {length}" for length in known) or NOT_RUN


here.show(
    picture,
    "time_to_solve",
    title=f"Updates until half of the runs solve T = {task.length}: {soon('Elman')} (RNN), {soon('LSTM')} (LSTM), "
    f"{soon('GRU')} (GRU)",
    takeaway=f"""
    Each curve begins at 1, where no run has solved the task, and steps down whenever a run solves it. A curve that
    is above 0 at the dashed line contains runs that did not solve the task within the budget. Such runs are censored,
    not left out: leaving them out would make the slow cell look fast. Right of the line, the shares that remain with
    their intervals. Medians over all
    runs, in updates: RNN {times("Elman")}; LSTM {times("LSTM")}; GRU {times("GRU")}.""",
)

# %% [markdown]
# ## Every setting
#
# How each learning rate did in validation, and which one was chosen.

# %%
settings = figures.validation_table(results)
here.table(settings.assign(chosen=settings["chosen"].map({True: "chosen", False: ""})))
